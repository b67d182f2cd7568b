"""A package answers as the forest it was made from, on images of any size; foreign packages run or are refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestbridge import runner
from forestbridge.assemble import labels_of
from forestbridge.errors import ImageError, OutputExistsError, PackageError, ResourceError
from forestbridge.image import as_image, read_image
from forestbridge.package import write_forest_package, write_package
from forestbridge.phantom import phantom
from forestbridge.predict import predict
from forestbridge.runner import Package, open_package
from forestbridge.tiles import plan_windows
from results import whole
from small_line import CELLS, STAINED, noise, run_and_measure, small_forest

HALO = 8
"""Of the packages here; the smallest window is 64."""

ROUNDING = 1e-6
"""Largest difference of a probability where all decisions agree; measured: 6e-8."""

ONE_TREE = 0.1 + ROUNDING
"""What one of ten trees changes when a feature lies within float32 rounding of its threshold."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path = tmp_path_factory.mktemp("cells") / "cells.zip"
    write_package(path, small_forest(), image=CELLS.image, formats=["onnx"])
    return open_package(path, threads=2)


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path = tmp_path_factory.mktemp("stained") / "stained.zip"
    write_package(path, small_forest("stained"), image=STAINED.image, formats=["onnx"])
    return open_package(path)


def compare(found: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """Return the largest difference of (..., K, Y, X), and the number of pixels with another label."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    flips = int((found.argmax(axis=-3) != expected.argmax(axis=-3)).sum())
    return float(np.abs(found - expected).max()), flips


@pytest.mark.parametrize("shape", [(64, 64), (65, 112), (79, 81), (96, 500), (513, 70), (300, 301), (600, 700)])
def test_same_answer_as_the_forest(cells: Package, shape: tuple[int, int]) -> None:
    """Up to the border: windows slide inside the image, and the graph reflects where the encoder does."""
    picture = phantom(shape, seed=sum(shape)).image
    difference, flips = compare(cells.predict(picture), predict(picture, small_forest()))
    print(f"{shape}: largest difference {difference:.1e}, {flips} of {picture.size} labels differ")
    assert difference <= ONE_TREE
    assert flips <= 1e-4 * picture.size


def test_channels(stained: Package) -> None:
    picture = phantom((150, 170), channels=3, seed=8).image
    difference, flips = compare(stained.predict(picture), predict(picture, small_forest("stained")))
    assert difference <= ONE_TREE
    assert flips <= 1
    assert stained.classes.names == small_forest("stained").names


@pytest.mark.parametrize("shape", [(9, 9), (17, 40), (30, 500), (63, 63), (63, 129)])
def test_images_smaller_than_the_smallest_window(cells: Package, shape: tuple[int, int]) -> None:
    """They go through the graph as they are, so that their border is the border of the graph, too."""
    picture = noise("YX", shape)
    difference, flips = compare(cells.predict(picture), predict(picture, small_forest()))
    print(f"{shape}: largest difference {difference:.1e}, {flips} of {shape[0] * shape[1]} labels differ")
    assert difference <= ONE_TREE
    assert flips <= 1e-4 * shape[0] * shape[1]


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 200), (5, 500), (8, 63)])
def test_images_smaller_than_the_halo(cells: Package, shape: tuple[int, int]) -> None:
    """They are continued by reflection: farther than the halo from the continued edge nothing changes."""
    picture = noise("YX", shape)
    found, expected = cells.predict(picture), predict(picture, small_forest())
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=ROUNDING)
    difference, flips = compare(found, expected)
    print(f"{shape}: largest difference {difference:.1e}, {flips} of {shape[0] * shape[1]} labels differ")
    assert flips <= 0.05 * picture.data.size


@pytest.mark.parametrize("tile", [1, 64, 80, 100, 128, 1000])
def test_windows_of_any_length_agree(cells: Package, tile: int) -> None:
    picture = phantom((200, 233), seed=5).image
    difference, flips = compare(cells.predict(picture, tile=tile), cells.predict(picture))
    assert difference <= ROUNDING
    assert flips == 0


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_windows_cover_an_axis_once_and_lie_inside(data: st.DataObject) -> None:
    halo = data.draw(st.integers(0, 40))
    window = data.draw(st.integers(2 * halo + 1, 2 * halo + 100))
    size = data.draw(st.integers(window, window + 500))
    covered = []
    for core, outer in plan_windows(size, window, halo):
        assert 0 <= outer.start <= core.start < core.stop <= outer.stop <= size
        assert outer.stop - outer.start == window
        assert core.start - outer.start >= halo or outer.start == 0
        assert outer.stop - core.stop >= halo or outer.stop == size
        covered += range(core.start, core.stop)
    assert covered == list(range(size))


@pytest.mark.parametrize(("size", "length"), [(8, 64), (9, 9), (63, 63), (64, 64), (65, 64), (600, 512)])
def test_short_images_of_our_own_packages(size: int, length: int) -> None:
    axis = runner._Axis("y", 64, 16, 8, 9)
    assert {outer.stop - outer.start for _, outer in runner._windows(size, axis, 512, "a.zip")} == {length}


@given(st.integers(1, 400), st.integers(1, 128), st.integers(0, 32), st.integers(0, 70), st.integers(1, 300))
@settings(deadline=None, max_examples=300)
def test_windows_have_lengths_that_the_package_allows(
    size: int, minimum: int, step: int, halo: int, wanted: int
) -> None:
    axis = runner._Axis("y", minimum, step, halo, minimum)
    if step == 0 and minimum <= 2 * halo and size > minimum:
        with pytest.raises(
            PackageError, match=r"expected windows of more than twice the halo \d+ along y, found the fixed"
        ):
            runner._windows(size, axis, wanted, "a.zip")
        return
    windows = runner._windows(size, axis, wanted, "a.zip")
    [length] = {outer.stop - outer.start for _, outer in windows}
    assert length == minimum or (step and (length - minimum) % step == 0 and length > minimum)
    assert [n for core, _ in windows for n in range(core.start, core.stop)] == list(range(size))
    for core, outer in windows:
        assert outer.start <= core.start < core.stop <= outer.stop
        assert outer.stop <= size or len(windows) == 1


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "TZYX", "TCZYX"])
def test_stacks_and_series_go_plane_by_plane(cells: Package, stained: Package, axes: str) -> None:
    package, forest = (stained, small_forest("stained")) if "C" in axes else (cells, small_forest())
    image = noise(axes, tuple({"T": 2, "C": 3, "Z": 3, "Y": 70, "X": 66}[a] for a in axes))
    found, expected = package.predict(image), predict(image, forest)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= ONE_TREE
    labels = package.predict(image, kind="labels")
    assert labels.shape == tuple(image.sizes[a] for a in axes if a != "C")
    np.testing.assert_array_equal(labels, found.argmax(axis=expected.ndim - 3 - ("Z" in axes)) + 1)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("kind", ["probabilities", "labels", "uncertainty"])
def test_files_hold_what_is_returned_in_memory(cells: Package, kind: Any, suffix: str, tmp_path: Path) -> None:
    image = noise("ZYX", (2, 100, 130))
    told: list[tuple[int, int]] = []
    out = tmp_path / f"a{suffix}"
    path = cells.predict(image, kind=kind, out=out, tile=64, progress=lambda done, total: told.append((done, total)))
    assert path == out
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    assert told == [(n, 2 * 2 * 3) for n in range(1, 13)]
    axes = "CZYX" if kind == "probabilities" else "ZYX"
    np.testing.assert_array_equal(
        whole(path, axes if suffix == ".npy" else None), cells.predict(image, kind=kind, tile=64)
    )
    if suffix != ".npy":
        assert read_image(path).axes == axes
        assert read_image(path).pixel_size == pytest.approx({"z": 2.0, "y": 0.5, "x": 0.25})


def test_files_are_not_half_written(cells: Package, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"found that .*a\.npy exists"):
        cells.predict(CELLS.image, out=tmp_path / "a.npy")
    pixels = np.ones((100, 100))
    pixels[99, 99] = np.inf
    with pytest.raises(ImageError, match=r"found 1 NaN or infinite ones .* y=99 x=99"):
        cells.predict(pixels, tile=64, out=tmp_path / "b.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_text() == "mine"


def test_another_number_of_channels(cells: Package, stained: Package, tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"array: expected 1 channel\(s\) for the package .*, found 3; choose them with"
    ):
        cells.predict(STAINED.image, out=tmp_path / "a.npy")
    image = noise("CYX", (4, 70, 80))
    with pytest.raises(
        ImageError, match=r"noise\.tif: expected 3 channel\(s\) for the package .*, found 4; choose them with"
    ):
        stained.predict(image)
    assert stained.predict(image.select_channels([3, 0, 1])).shape == (3, 70, 80)
    assert not list(tmp_path.iterdir())


def test_forest_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "forest.zip"
    write_forest_package(path, small_forest(), image=CELLS.image, formats=["onnx"])
    with pytest.raises(PackageError, match=r"found a package of kind 'forest'; packages of feature maps are run with"):
        open_package(path)


def test_device_that_is_not_there(cells: Package) -> None:
    with pytest.raises(ResourceError, match=r"expected a GPU for device='cuda'"):
        open_package(cells.info.path, device="cuda")
    with pytest.raises(ValueError, match=r"expected the device cpu, cuda, cuda:1 or auto, found 'tpu'"):
        open_package(cells.info.path, device="tpu")
    picture = as_image(CELLS.image)
    labels = open_package(cells.info.path, device="auto", threads=1).predict(picture, kind="labels")
    np.testing.assert_array_equal(labels, labels_of(cells.predict(picture), cells.classes.values))


PEAK = """
import sys
import numpy as np
from forestbridge import open_package, read_image
from small_line import peak_memory
folder = sys.argv[1]
package = open_package(sys.argv[1] + "/cells.zip")
package.predict(np.zeros((600, 600), np.uint8))
before = peak_memory()
package.predict(read_image(folder + "/large.npy"), out=folder + "/large.ome.tif")
print(before, peak_memory())
"""


def test_memory_does_not_grow_with_the_image(cells: Package, tmp_path: Path) -> None:
    side = 5000
    (tmp_path / "cells.zip").write_bytes(cells.info.path.read_bytes())
    pixels = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.uint8, shape=(side, side))
    for row in range(0, side, 500):
        pixels[row : row + 500] = np.arange(side) % 251
    del pixels
    before, peak = run_and_measure(PEAK, tmp_path)
    assert (tmp_path / "large.ome.tif").stat().st_size > side * side * 3 * 4  # 286 MiB
    assert peak < 600
    assert peak - before < 100
