"""Drift: an image that is unlike those of the training is told, or refused, before anything is computed from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import forestbridge as fb
from command_line import CELLS, call, done
from forestbridge.forest import load_forest
from forestbridge.image import as_image
from forestbridge.phantom import phantom
from forestbridge.qc.drift import BLOCKS, PLANES, SIDE, drift, image_statistics, merged_statistics

OTHER = phantom((96, 112), classes=2, seed=5).image


def compared(trained: list[Any], image: Any) -> list[str]:
    return drift(merged_statistics([image_statistics(as_image(i)) for i in trained]), image_statistics(as_image(image)))


def named(pixels: NDArray, *, names: tuple[str, ...] = (), size: dict[str, float] | None = None):
    return replace(as_image(pixels), channel_names=names, pixel_size=size or {})


def test_the_same_kind_of_image_is_no_drift() -> None:
    assert compared([CELLS.image], CELLS.image) == []
    assert compared([CELLS.image], OTHER) == []
    assert compared([CELLS.image, OTHER * 2], OTHER) == []


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda i: (i // 14).astype("uint8"),
            ["bit depth: expected uint16 as in training, found uint8;", "grey values: "],
        ),
        (lambda i: i.astype("float32"), ["bit depth: expected uint16 as in training, found float32"]),
        (lambda i: i * 3, ["grey values: expected 98 % of channel 0 within "]),
        (lambda i: (i // 3).astype("uint16"), ["grey values: "]),
        (lambda i: i + 6000, ["grey values: "]),
        (lambda i: np.full_like(i, 400), ["grey values: "]),
        (lambda i: np.stack([i, i]), ["channels: expected 1 as in training, found 2; choose them with --channels"]),
    ],
)
def test_what_is_told(change: Any, words: list[str]) -> None:
    found = compared([CELLS.image], change(CELLS.image))
    assert len(found) == len(words)
    assert all(text.startswith(start) for text, start in zip(found, words, strict=True)), found


def test_names_of_channels() -> None:
    pixels = np.stack([CELLS.image, OTHER])
    trained = [named(pixels, names=("DAPI", "GFP"))]
    [note] = compared(trained, named(pixels, names=("GFP", "DAPI")))
    assert note == (
        "order of channels: expected DAPI, GFP as in training, found GFP, DAPI; --channels 1 0 brings them into order"
    )
    [note] = compared(trained, named(pixels, names=("DAPI", "Cy5")))
    assert note.startswith(
        "channels: expected DAPI, GFP as in training, found DAPI, Cy5; check that it is the same stain"
    )
    assert compared(trained, named(pixels)) == []
    assert compared([named(pixels)], trained[0]) == []


def test_pixel_sizes() -> None:
    trained = [named(CELLS.image, size={"y": 0.5, "x": 0.5}), named(CELLS.image, size={"y": 0.25, "x": 0.25})]
    assert compared(trained, named(CELLS.image, size={"y": 0.54, "x": 0.54})) == []
    [note] = compared(trained, named(CELLS.image, size={"y": 0.36, "x": 0.36}))
    assert note.startswith("pixel size: expected y=0.5 × x=0.5 µm as in training, found y=0.36 × x=0.36 µm; rescale")
    assert compared(trained, CELLS.image) == []
    assert compared([CELLS.image], trained[0]) == []


def test_a_sample_stands_for_the_whole() -> None:
    class Counting:
        """An array that counts the pixels read."""

        def __init__(self, pixels: NDArray) -> None:
            self.pixels, self.shape, self.dtype, self.read = pixels, pixels.shape, pixels.dtype, 0

        def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
            self.read += self.pixels[key].size
            return self.pixels[key]

    pixels = np.random.default_rng(0).integers(0, 4000, (40, 600, 700)).astype("uint16")
    counting = Counting(pixels)
    found = image_statistics(fb.Image(counting, "ZYX", {}))
    assert counting.read == PLANES * (BLOCKS * SIDE) ** 2
    for percent in (1, 50, 99):
        assert found["channels"][0][f"p{percent}"][0] == pytest.approx(np.percentile(pixels, percent), abs=20)
    assert found["bits"] == [12]


def test_pixels_that_are_no_numbers() -> None:
    nothing = np.full((20, 30), np.nan, np.float32)
    assert image_statistics(as_image(nothing))["channels"][0]["p1"] is None
    assert compared([nothing], np.ones((20, 30), np.float32)) == []
    half = np.where(np.arange(30) < 15, np.nan, CELLS.image[:20, :30]).astype(np.float32)
    assert image_statistics(as_image(half))["channels"][0]["max"][0] == np.nanmax(half)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a.tif, its labels, a.forest trained on it, and dark.tif of the same in 8 bits."""
    folder = tmp_path_factory.mktemp("drift")
    tifffile.imwrite(folder / "a.tif", CELLS.image)
    tifffile.imwrite(folder / "a_labels.tif", CELLS.scribbles)
    tifffile.imwrite(folder / "dark.tif", (CELLS.image // 14).astype("uint8"))
    encoder = fb.open_encoder("filters", selection={"GaussianSmoothing": [1.0]})
    fb.train([(fb.read_image(folder / "a.tif"), CELLS.scribbles)], encoder=encoder, n_trees=3, engine="sklearn").save(
        folder / "a.forest"
    )
    return folder


def test_command_tells_and_refuses(line: Path, tmp_path: Path) -> None:
    forest = ["--forest", line / "a.forest"]
    ended = done("predict", line / "a.tif", *forest, "-o", tmp_path / "a.npy", "--strict", "--json")
    assert ended.json()["drift"] == [{"input": str(line / "a.tif"), "compared": True, "notes": []}]
    assert "WARNING" not in ended.err
    ended = done("predict", line / "dark.tif", *forest, "-o", tmp_path / "d.npy", "--json")
    notes = ended.json()["drift"][0]["notes"]
    assert [note.split(":")[0] for note in notes] == ["bit depth", "grey values"]
    for note in notes:
        assert f"WARNING: {line / 'dark.tif'}: {note}\n" in ended.err
    for more in ([], ["--dry-run"]):
        ended = call("predict", line / "dark.tif", *forest, "-o", tmp_path / "s.npy", "--strict", *more)
        assert ended.code == 4 and "leave out --strict to classify it all the same" in ended.err
    assert not (tmp_path / "s.npy").exists()


def test_the_rest_of_a_batch_goes_on(line: Path, tmp_path: Path) -> None:
    inputs = [line / "dark.tif", line / "a.tif"]
    ended = call("predict", *inputs, "--forest", line / "a.forest", "-o", tmp_path / "out", "--strict", "--json")
    assert ended.code == 4
    assert [Path(p).name for p in ended.json()["outputs"]] == ["a_probabilities.tif"]


def test_old_forests_are_not_compared(line: Path, tmp_path: Path) -> None:
    forest = load_forest(line / "a.forest")
    old = {name: value for name, value in forest.training.items() if name != "images"}
    replace(forest, training=old).save(tmp_path / "old.forest")
    arguments = ["predict", line / "dark.tif", "-o", tmp_path / "d.npy", "--strict", "--json", "--overwrite"]
    assert done(*arguments, "--forest", tmp_path / "old.forest").json()["drift"][0]["compared"] is False
    replace(forest, training={**old, "images": {"dtypes": 3}}).save(tmp_path / "bad.forest")
    ended = call(*arguments, "--forest", tmp_path / "bad.forest")
    assert ended.code == 3 and "expected statistics of the training images, found damaged ones" in ended.err


def test_stores_keep_what_their_image_is_like(line: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.features.ome.zarr"
    done("extract", line / "a.tif", "-o", store, "--scales", "1")
    train = ["--labels", line / "a_labels.tif", "--n-trees", "2", "-o", tmp_path / "s.forest"]
    done("train", store, *train)
    forest = load_forest(tmp_path / "s.forest")
    assert forest.training["images"] == load_forest(line / "a.forest").training["images"]
    ended = done("predict", store, "--forest", tmp_path / "s.forest", "-o", tmp_path / "p.npy", "--json", "--strict")
    assert ended.json()["drift"][0] == {"input": "a.tif", "compared": True, "notes": []}


def test_packages_keep_it_too(line: Path, tmp_path: Path, without_schema: None) -> None:
    done("package", "fused", line / "a.forest", "-o", tmp_path / "a.zip", "--formats", "onnx", "--author", "Ada")
    ended = call("predict", line / "dark.tif", "--package", tmp_path / "a.zip", "-o", tmp_path / "d.npy", "--strict")
    assert ended.code == 4 and "bit depth: expected uint16 as in training, found uint8" in ended.err
