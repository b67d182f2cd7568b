"""From an image or a store to classes: the same bits on every route, in memory and in every file, in bounded memory."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from forestbridge import engine
from forestbridge.encoders.features import CORE, features
from forestbridge.errors import (
    ForestError,
    ImageError,
    OutputExistsError,
    ResourceError,
    SpecMismatchError,
    StoreError,
)
from forestbridge.extract import extract
from forestbridge.forest import PixelForest, load_forest
from forestbridge.image import Image, read_image
from forestbridge.predict import predict
from forestbridge.stores import open_store
from forestbridge.train import train
from results import whole
from small_encoders import local_encoder
from small_line import CELLS, SELECTION, STACK, STAINED, noise, run_and_measure, small_encoder, small_forest


@pytest.fixture(scope="module")
def mixed() -> PixelForest:
    """A forest whose features are computed in 2D at one scale and in 3D at the others."""
    encoder = small_encoder(volume=True, compute_in_2d={0.7: True, 1.0: False})
    return train([(STACK.image, STACK.scribbles)], encoder=encoder, n_trees=10)


def test_is_the_engine_on_the_features() -> None:
    forest = small_forest()
    expected = engine.predict(forest, features(CELLS.image, small_encoder()))
    found = predict(CELLS.image, forest)
    assert found.dtype == np.float32
    assert found.shape == (3, 96, 112)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("core", [(96, 112), (256, 256), (33, 112), (17, 19), (1, 40)])
def test_tiled_equals_untiled(core: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predict(CELLS.image, small_forest())
    monkeypatch.setitem(CORE, "yx", core)
    np.testing.assert_array_equal(predict(CELLS.image, small_forest()), expected)


@pytest.mark.parametrize("core", [(18, 70, 74), (5, 40, 23), (1, 64, 64)])
def test_tiled_equals_untiled_in_3d(
    core: tuple[int, int, int], mixed: PixelForest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for forest in (small_forest("stack"), mixed):
        monkeypatch.setitem(CORE, "zyx", (64, 128, 128))
        expected = predict(STACK.image, forest)
        assert expected.shape == (3, 18, 70, 74)
        monkeypatch.setitem(CORE, "zyx", core)
        np.testing.assert_array_equal(predict(STACK.image, forest), expected)


def test_image_and_store_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (noise("TZYX", (2, 3, 40, 50)), small_forest()),
        (STAINED.image, small_forest("stained")),
        (noise("TZYX", (2, 7, 30, 40)), small_forest("stack")),
    ]
    for n, (image, forest) in enumerate(cases):
        encoder = small_encoder(channels=forest.spec.channels, volume=forest.spec.axes == "zyx")  # pyright: ignore[reportOptionalMemberAccess]
        store = extract(image, encoder, tmp_path / f"{n}.features.ome.zarr")
        assert store.spec == forest.spec
        for core in ((256, 256), (20, 33)):
            monkeypatch.setitem(CORE, "yx", core)
            np.testing.assert_array_equal(predict(store, forest), predict(image, forest))
    labels = predict(store, forest, kind="labels", out=tmp_path / "labels.ome.zarr")
    assert read_image(labels).axes == "TZYX"


def test_kinds() -> None:
    forest = replace(small_forest(), classes=(2, 7, 300))
    probabilities = predict(CELLS.image, forest)
    labels = predict(CELLS.image, forest, kind="labels")
    uncertainty = predict(CELLS.image, forest, kind="uncertainty")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, np.array([2, 7, 300])[probabilities.argmax(axis=0)])
    ordered = np.sort(probabilities, axis=0)
    assert uncertainty.dtype == np.float32
    np.testing.assert_array_equal(uncertainty, 1 - (ordered[-1] - ordered[-2]))
    assert 0 <= uncertainty.min() < uncertainty.max() <= 1
    with pytest.raises(
        ValueError, match=r"expected one of the results probabilities, labels, uncertainty, found 'mask'"
    ):
        predict(CELLS.image, forest, kind="mask")  # pyright: ignore[reportArgumentType]


def test_of_equal_probabilities_the_first_class_counts() -> None:
    forest = small_forest()
    undecided = replace(forest, leaves=np.full_like(forest.leaves, 1 / 3))
    assert (predict(CELLS.image, undecided, kind="labels") == 1).all()
    assert (predict(CELLS.image, undecided, kind="uncertainty") == 1).all()


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "TZYX", "CYX", "TCYX", "TCZYX"])
def test_planes_of_stacks_and_series(axes: str) -> None:
    channels = 3 if "C" in axes else 1
    forest = small_forest("stained" if channels == 3 else "cells")
    sizes = {"T": 2, "C": channels, "Z": 3, "Y": 30, "X": 41}
    image = noise(axes, tuple(sizes[a] for a in axes))
    result = predict(image, forest)
    spatial = axes.replace("C", "")
    kept = "".join(a for a in "TCZYX" if a in spatial or a == "C")
    assert result.shape == tuple({**sizes, "C": 3}[a] for a in kept)
    full = result.reshape(sizes["T"] if "T" in axes else 1, 3, sizes["Z"] if "Z" in axes else 1, 30, 41)
    for t, z in image.planes():
        np.testing.assert_array_equal(full[t, :, z], predict(image.plane(t, z), forest))
    labels = predict(image, forest, kind="labels")
    assert labels.shape == tuple(sizes[a] for a in spatial)
    np.testing.assert_array_equal(labels, result.argmax(axis=kept.index("C")) + 1)


@pytest.mark.parametrize("axes", ["TZYX", "ZYX", "CZYX"])
def test_stacks_and_series_in_3d(axes: str, mixed: PixelForest) -> None:
    shape = tuple({"T": 2, "C": 1, "Z": 9, "Y": 30, "X": 41}[a] for a in axes)
    image = noise(axes, shape)
    for forest in (small_forest("stack"), mixed):
        result = predict(image, forest)
        frames = result if "T" in axes else result[None]
        for t in range(image.sizes["T"]):
            volume = image.region((slice(0, 9), slice(0, 30), slice(0, 41)), t=t)
            np.testing.assert_array_equal(frames[t], predict(volume, forest))


SUFFIXES = [".npy", ".tif", ".ome.tif", ".ome.zarr", ".nrrd"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["probabilities", "labels", "uncertainty"])
def test_files_hold_what_is_returned_in_memory(
    kind, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CORE, "yx", (32, 48))
    image = noise("TZYX", (2, 3, 40, 50))
    expected = predict(image, small_forest(), kind=kind)
    path = predict(image, small_forest(), kind=kind, out=tmp_path / f"result{suffix}")
    assert path == tmp_path / f"result{suffix}"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    axes = "TCZYX" if kind == "probabilities" else "TZYX"
    found = whole(path, axes if suffix == ".npy" else None)
    assert read_image(path, axes=axes if suffix == ".npy" else None).axes == axes
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if suffix != ".npy":
        assert read_image(path).pixel_size == pytest.approx({"z": 2.0, "y": 0.5, "x": 0.25})


def test_png_of_labels(tmp_path: Path) -> None:
    path = predict(CELLS.image, small_forest(), kind="labels", out=tmp_path / "labels.png")
    with PIL.Image.open(path) as picture:  # a palette of the classes' colours
        found = np.asarray(picture)
    np.testing.assert_array_equal(found, predict(CELLS.image, small_forest(), kind="labels"))
    with pytest.raises(
        ValueError, match=r"expected one plane of labels up to 255 for a PNG, found axes CYX of float32"
    ):
        predict(CELLS.image, small_forest(), out=tmp_path / "probabilities.png")
    assert [p.name for p in tmp_path.iterdir()] == ["labels.png"]


def test_the_saved_forest_answers_the_same(tmp_path: Path) -> None:
    small_forest().save(tmp_path / "cells.forest")
    loaded = load_forest(tmp_path / "cells.forest")
    np.testing.assert_array_equal(predict(CELLS.image, loaded), predict(CELLS.image, small_forest()))


def test_progress_is_told_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORE, "yx", (32, 48))
    image = noise("ZYX", (2, 40, 50))  # 2 × 2 tiles per plane
    told: list[tuple[int, int]] = []
    predict(image, small_forest(), progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 8) for n in range(1, 9)]
    told.clear()
    store = extract(image, small_encoder(), tmp_path / "a.features.ome.zarr")
    predict(store, small_forest(), out=tmp_path / "a.npy", progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 8) for n in range(1, 9)]


class Untouched:
    """Pixels that nobody may read."""

    shape = (40, 50)
    dtype = np.dtype("uint8")

    def __getitem__(self, key):
        raise AssertionError("pixels were read")


def test_an_output_that_exists_is_refused_before_computing(tmp_path: Path) -> None:
    image = Image(Untouched(), "YX", pixel_size={})
    (tmp_path / "a.npy").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"found that .*a\.npy exists; give another name or --overwrite"):
        predict(image, small_forest(), out=tmp_path / "a.npy")
    assert (tmp_path / "a.npy").read_text() == "mine"
    with pytest.raises(ResourceError, match=r"expected the folder .*none for a\.npy, found none; make it first"):
        predict(image, small_forest(), out=tmp_path / "none" / "a.npy")
    with pytest.raises(ValueError, match=r"expected a result named with one of .*found .*a\.jpeg"):
        predict(image, small_forest(), out=tmp_path / "a.jpeg")
    predict(CELLS.image, small_forest(), out=tmp_path / "a.npy", overwrite=True)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), predict(CELLS.image, small_forest()))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_a_failure_midway_leaves_nothing(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORE, "yx", (32, 48))
    pixels = np.ones((100, 100))
    pixels[90, 90] = np.nan
    with pytest.raises(ImageError, match=r"found 1 NaN or infinite ones .* y=90 x=90; replace them with --nan VALUE"):
        predict(pixels, small_forest(), kind="labels", out=tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match=r"found 1 NaN or infinite ones"):
        predict(pixels, small_forest())


def test_a_failure_midway_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("mine")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(CELLS.image, small_forest(), out=tmp_path / "a.npy", overwrite=True, progress=stop)
    assert (tmp_path / "a.npy").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_forests_that_do_not_fit(tmp_path: Path) -> None:
    forest = small_forest()
    out = tmp_path / "a.npy"
    message = r"expected a forest with the spec of its features, found one without; use forestbridge\.engine\.predict"
    with pytest.raises(ForestError, match=message):
        predict(CELLS.image, replace(forest, spec=None), out=out)
    message = r"array: expected 1 channel\(s\) for the encoder filters \[\w+\], found 3; choose them with --channels"
    with pytest.raises(ImageError, match=message):
        predict(STAINED.image, forest, out=out)
    with pytest.raises(ImageError, match=r"expected at least 3 planes for 3D filters, found 1; use 2D filters"):
        predict(CELLS.image, small_forest("stack"), out=out)
    with pytest.raises(
        ValueError, match=r"expected one of the encoders filters, .*, found 'local'; update forestbridge"
    ):
        predict(CELLS.image, replace(forest, spec=local_encoder().spec), out=out)
    with pytest.raises(TypeError, match=r"found the path 'a\.tif'; open it with read_image or open_store"):
        predict("a.tif", forest)  # pyright: ignore[reportArgumentType]
    assert not out.exists()


def test_stores_that_do_not_fit(tmp_path: Path) -> None:
    forest = small_forest()
    other = small_encoder(selection={**SELECTION, "GaussianSmoothing": [0.7]})
    store = extract(CELLS.image, other, tmp_path / "a.features.ome.zarr")
    message = (
        r"the forest expects the features of filters \[\w+\], store .*a\.features\.ome\.zarr has those of filters "
        r"\[\w+\] \(maps: .*\); extract the features again with the forest's encoder"
    )
    with pytest.raises(SpecMismatchError, match=message):
        predict(store, forest, out=tmp_path / "a.npy")
    path = tmp_path / "b.features.ome.zarr"
    extract(noise("ZYX", (3, 40, 50)), small_encoder(), path)
    for file in (path / "features" / "filters" / "0" / "c").rglob("*"):
        if file.is_file() and file.relative_to(path).parts[-3] == "2":
            file.unlink()
    journal = path / "forestbridge" / "journal.0.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["forestbridge"]["done"] = False
    (path / "zarr.json").write_text(json.dumps(document))
    message = (
        r"expected the features of the whole image in .*b\.features\.ome\.zarr, found 1 shards missing, the first "
    )
    with pytest.raises(StoreError, match=message):
        predict(open_store(path, allow_partial=True), forest, out=tmp_path / "b.npy")
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (30, 2), (3, 500)])
def test_sizes_come_out_exactly(shape: tuple[int, int]) -> None:
    result = predict(noise("YX", shape), small_forest())
    assert result.shape == (3, *shape)
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-6)


PEAK = """
import sys
import numpy as np
from forestbridge import load_forest, predict, read_image
from small_line import peak_memory
folder = sys.argv[1]
forest = load_forest(folder + "/small.forest")
predict(np.zeros((40, 40), np.uint8), forest)  # loads and compiles everything
before = peak_memory()
predict(read_image(folder + "/large.npy"), forest, out=folder + "/large.ome.tif")
print(before, peak_memory())
"""


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    side = 6000
    pixels = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.uint8, shape=(side, side))
    for row in range(0, side, 500):
        pixels[row : row + 500] = np.arange(side) % 251
    del pixels
    encoder = small_encoder(selection={"GaussianSmoothing": [0.7, 1.6], "LaplacianOfGaussian": [1.0]})
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=encoder, n_trees=3)
    forest.save(tmp_path / "small.forest")
    before, peak = run_and_measure(PEAK, tmp_path)
    assert (tmp_path / "large.ome.tif").stat().st_size > side * side * 3 * 4  # 412 MiB
    assert peak < 700
    assert peak - before < 150
