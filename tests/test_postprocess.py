"""Cleaning of labels: smoothing as FeatureForest does it, sizes, holes, majorities, and merging with older results."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

import forestbridge as fb
from command_line import call, done
from forestbridge.errors import ImageError, LabelError
from forestbridge.image.result_facts import read_result_facts
from forestbridge.objects.clean import area_of, filled, majority, smooth_mask
from forestbridge.objects.smoothing import mean_curvature

RNG = np.random.default_rng(3)
BLOBS = (ndimage.gaussian_filter(RNG.random((150, 170)), 3) > 0.5).astype(np.uint8)
TABLE = {"classes": (1, 2, 5), "names": ("background", "cell", "nucleus"), "colours": ("#000000", "#ff0000", "#00ff00")}


def curvature_step(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one iteration, as the formula is written: a quarter of |grad| times the curvature, from 3 × 3 differences."""
    p = np.pad(image, 1, mode="edge")
    dx, dy = p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]
    dxx = p[1:-1, 2:] + p[1:-1, :-2] - 2 * image
    dyy = p[2:, 1:-1] + p[:-2, 1:-1] - 2 * image
    dxy = 0.25 * (p[2:, 2:] - p[:-2, 2:] - p[2:, :-2] + p[:-2, :-2])
    square = dx**2 + dy**2
    third = np.sqrt(square**3)
    curvature = (dx**2 * dyy + dy**2 * dxx - 2 * dx * dy * dxy) / np.where(third == 0, np.float32(1), third)
    return image + np.float32(0.25) * np.sqrt(square) * curvature


def reference_mask(mask: NDArray[np.bool_], iterations: int) -> NDArray[np.bool_]:
    """Return a mask that is closed, smoothed, stretched to 0 … 255 and thresholded."""
    cross = ndimage.generate_binary_structure(2, 1)
    closed = ndimage.binary_erosion(ndimage.binary_dilation(mask, cross, 2), cross, 2, border_value=1)
    values = closed.astype(np.float32) * 255
    for _ in range(iterations):
        values = curvature_step(values)
    grey = ((values - values.min()) * (255 / (values.max() - values.min()))).astype(np.uint8)
    return grey > threshold_otsu(grey)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 50), (150, 40), (90, 2050)])
def test_smoothing_is_the_formula(shape: tuple[int, int]) -> None:
    mask = (ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 2) > 0.5) * np.float32(255)
    expected = mask
    for iterations in range(1, 13):
        before, expected = expected, curvature_step(expected)
        assert np.abs(mean_curvature(before, 1) - expected).max() < 1e-3
        # over several steps the formula can blow up the rounding of a pixel whose gradient nearly vanishes; processors round differently
        assert np.count_nonzero(np.abs(mean_curvature(mask, iterations) - expected) > 1) <= 1e-4 * mask.size
    np.testing.assert_array_equal(mean_curvature(mask, 0), mask)


def test_smooth_mask_is_that_of_the_formula() -> None:
    for iterations in (1, 25):
        _, mask = smooth_mask(BLOBS > 0, iterations)
        np.testing.assert_array_equal(mask, reference_mask(BLOBS > 0, iterations))
    found = fb.postprocess(BLOBS, min_area=0)
    np.testing.assert_array_equal(found, reference_mask(BLOBS > 0, 25))
    np.testing.assert_array_equal(fb.postprocess(np.stack([BLOBS] * 2), min_area=0), np.stack([found] * 2))


@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (1, 30), (4, 30, 30)])
def test_nothing_and_everything_stay(shape: tuple[int, ...]) -> None:
    for value in (0, 1):
        labels = np.full(shape, value, np.uint8)
        found = fb.postprocess(labels, background=0, min_area=1, fill_holes=True, majority=1)
        np.testing.assert_array_equal(found, labels)


def test_no_iterations_do_nothing() -> None:
    np.testing.assert_array_equal(fb.postprocess(BLOBS, smooth=0, min_area=None), BLOBS)


def test_the_larger_value_wins_whatever_the_order() -> None:
    parted = np.zeros((80, 90), np.uint8)
    parted[10:70, 10:45], parted[10:70, 45:80] = 1, 2
    parted[30:50, 40:45] = 2
    swapped = np.array([0, 2, 1], np.uint8)[parted]
    first, second = (np.asarray(fb.postprocess(labels, min_area=0)) for labels in (parted, swapped))
    np.testing.assert_array_equal(first, np.array([0, 2, 1])[second])
    assert (first[14:66, 14:76] > 0).all()  # no gap between the classes


def test_sizes() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[2:22, 2:22], labels[30:37, 2:9], labels[30:35, 20:25], labels[30:33, 40:43] = 1, 1, 1, 2

    def areas(**options: object) -> list[int]:
        found = np.asarray(fb.postprocess(labels, smooth=0, **{"min_area": 0, **options}))  # type: ignore[arg-type]
        return sorted(np.bincount(ndimage.label(found)[0].ravel())[1:].tolist())  # type: ignore[index]

    assert areas() == [9, 25, 49, 400]
    assert areas(min_area=25) == [25, 49, 400]
    assert areas(min_area=26) == [49, 400]
    assert areas(min_area="10%") == [9, 49, 400]  # of the largest of each class
    assert areas(max_area=49) == [9, 25, 49]
    assert areas(min_area=500) == []
    assert areas(min_area=50, classes=["1"]) == [9, 400]


def test_physical_sizes(tmp_path: Path) -> None:
    labels = np.ones((4, 20, 20), np.uint8)
    labels[0, 2:6, 2:6], labels[:, 10:14, 10:14] = 2, 2
    size = {"z": 2.0, "y": 0.5, "x": 0.25}
    names = {"classes": (1, 2), "names": ("background", "cell"), "colours": ("#000000", "#ff0000")}
    path = fb.write_labels(tmp_path / "l.ome.tif", labels, axes="ZYX", pixel_size=size, **names)
    # 16 and 64 voxels of 0.25 µm³
    for text, left in (("4um3", 80), ("4.1 µm³", 64), ("17", 64), ("16um3", 64), ("16.1um3", 0)):
        assert (fb.postprocess(path, smooth=0, min_area=text) == 2).sum() == left
    assert (fb.postprocess(path, smooth=0, min_area="2um2", plane_by_plane=True) == 2).sum() == 80
    with pytest.raises(ValueError, match="expected a size in um3, since regions have 3 axes, found 2um2"):
        fb.postprocess(path, smooth=0, min_area="2um2")
    with pytest.raises(ImageError, match="expected a pixel size along y, x for 3um2, found none for y, x"):
        fb.postprocess(labels[0], min_area="3um2")


@pytest.mark.parametrize("text", ["", "-1", "10 um", "200%", "1.2.3", "nan", "5 cells"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 50"):
        area_of(text)


def test_holes() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:35, 5:35] = 1
    labels[8:11, 8:11] = 0  # in class 1
    labels[15:30, 15:30], labels[20:25, 20:25] = 2, 0  # in class 2, in class 1
    labels[10:20, 40:50], labels[12:15, 45:60] = 1, 0  # open
    found = filled(labels, None, {}, "a")
    expected = labels.copy()
    expected[8:11, 8:11], expected[20:25, 20:25] = 1, 2
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(filled(labels, area_of("9"), {}, "a")[20:25, 20:25], 0)
    tunnel = np.ones((5, 9, 9), np.uint8)
    tunnel[:, 4, 4] = tunnel[2, 2, 2] = 0
    assert filled(tunnel, None, {}, "a").sum() == tunnel.size - 5  # a tunnel is no hole of a volume
    assert np.asarray(fb.postprocess(tunnel, smooth=0, min_area=0, fill_holes=True, plane_by_plane=True)).all()


def test_majority() -> None:
    rng = np.random.default_rng(5)
    for shape in ((20, 30), (5, 8, 9)):
        classes = rng.integers(0, 3, shape).astype(np.uint8)
        found = majority(classes, 1)
        padded = np.pad(classes, 1, constant_values=9)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3,) * len(shape)).reshape(*shape, -1)
        counts = np.stack([(windows == k).sum(axis=-1) * 2 + (classes == k) for k in range(3)])
        np.testing.assert_array_equal(found, counts.argmax(axis=0))


def test_values_stay_and_other_classes_too(tmp_path: Path) -> None:
    labels = np.ones((60, 60), np.uint8)
    labels[5:50, 5:50], labels[20:30, 20:30], labels[55:58, 55:58] = 2, 5, 5
    path = fb.write_labels(tmp_path / "l.ome.tif", labels, provenance={"encoder": "filters"}, **TABLE)
    found = np.asarray(fb.postprocess(path))
    assert set(np.unique(found)) == {1, 2, 5} and found.dtype == np.uint8
    assert found[56, 56] == 1  # too small: background
    only = np.asarray(fb.postprocess(path, classes=["nucleus"]))
    np.testing.assert_array_equal(only == 2, labels == 2)
    assert only[56, 56] == 1
    out = fb.postprocess(path, out=tmp_path / "c.ome.tif")
    facts = read_result_facts(out)  # type: ignore[arg-type]
    assert list(facts.names.values()) == ["background", "cell", "nucleus"]
    assert facts.provenance == {"encoder": "filters", "postprocess": "smooth=25 min_area=50"}
    unlabelled = labels.copy()
    unlabelled[0] = 0
    assert (np.asarray(fb.postprocess(unlabelled, background=1))[0] == 0).all()


def test_probabilities_become_labels() -> None:
    probabilities = np.stack([1 - BLOBS * 0.8, BLOBS * 0.8]).astype(np.float32)
    np.testing.assert_array_equal(fb.postprocess(probabilities), np.asarray(fb.postprocess(BLOBS)) + 1)


def test_replace_and_add() -> None:
    old, new = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    old[2:10, 2:20], new[5:15, 10:28] = 1, 2
    plain = {"smooth": 0, "min_area": 0}
    np.testing.assert_array_equal(fb.postprocess(new, into=old, **plain), new)
    np.testing.assert_array_equal(fb.postprocess(new, into=old, mode="add", **plain), np.where(new > 0, new, old))
    np.testing.assert_array_equal(
        fb.postprocess(new, into=old, mode="add", preserve=True, **plain), np.where(old > 0, old, new)
    )
    with pytest.raises(ValueError, match="expected an older result to add to, found none"):
        fb.postprocess(new, mode="add")
    with pytest.raises(ValueError, match="expected preserve with the mode 'add'"):
        fb.postprocess(new, into=old, preserve=True)
    with pytest.raises(ImageError, match="expected labels of the size of array, T=1 Z=1 Y=20 X=30, found"):
        fb.postprocess(new, into=old[:5])


def test_merging_asks_for_the_same_classes(tmp_path: Path) -> None:
    first = fb.write_labels(tmp_path / "a.ome.tif", np.ones((9, 9), np.uint8), **TABLE)
    other = {**TABLE, "names": ("background", "yeast", "nucleus")}
    second = fb.write_labels(tmp_path / "b.ome.tif", np.ones((9, 9), np.uint8), **other)
    with pytest.raises(LabelError, match="where 2 is 'cell', found 2 as 'yeast'"):
        fb.postprocess(first, into=second)


def test_slices() -> None:
    stack = np.stack([BLOBS] * 4)
    older = np.stack([1 - BLOBS] * 4)
    clean = np.asarray(fb.postprocess(BLOBS))
    for axes in ("ZYX", "TYX"):
        found = np.asarray(fb.postprocess(stack, axes=axes, slices=[1, 3]))
        np.testing.assert_array_equal(found, np.stack([BLOBS, clean, BLOBS, clean]))
        found = np.asarray(fb.postprocess(stack, axes=axes, slices=[2], into=older))
        np.testing.assert_array_equal(found, np.stack([older[0], older[1], clean, older[3]]))
    with pytest.raises(ValueError, match=r"expected slices from 0 to 3, found \[4\]"):
        fb.postprocess(stack, slices=[0, 4])


def test_seventy_thousand_regions() -> None:
    labels = np.zeros((1060, 1060), np.uint8)
    labels[::4, ::4] = labels[1::4, ::4] = 1
    labels[0, 1] = 1
    found = np.asarray(fb.postprocess(labels, smooth=0, min_area=3, fill_holes=True))
    assert found.sum() == 3


def test_command(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", BLOBS)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([BLOBS] * 9), imagej=True, metadata={"axes": "ZYX"})
    ended = done("postprocess", tmp_path / "a.tif", "-o", tmp_path / "c.tif", "--json")
    assert ended.json()["done"] == "smooth=25 min_area=50"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), fb.postprocess(BLOBS))
    done("postprocess", tmp_path / "stack.tif", "-o", tmp_path / "s.tif", "--slices", "0", "3-5", "--smooth", "0")
    changed = (tifffile.imread(tmp_path / "s.tif") != BLOBS).any(axis=(1, 2))
    assert np.flatnonzero(changed).tolist() == [0, 3, 4, 5]
    done("postprocess", tmp_path / "a.tif", tmp_path / "c.tif", "-o", tmp_path / "all", "--suffix", "_p.ome.tif")
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["a_p.ome.tif", "c_p.ome.tif"]
    before = sorted(p.name for p in tmp_path.iterdir())
    for code, *arguments in (
        (2, "--max-hole", "9"),
        (2, "--min-area", "some"),
        (2, "--slices", "x"),
        (2, "--mode", "add"),
        (3, "--class", "cell"),
        (3, "--min-area", "9um2"),
    ):
        refused = call("postprocess", tmp_path / "a.tif", "-o", tmp_path / "n.tif", *arguments)
        assert refused.code == code and "expected" in refused.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    dry = done("postprocess", tmp_path / "a.tif", "-o", tmp_path / "n.tif", "--dry-run")
    assert "after smooth=25 min_area=50" in dry.out and not (tmp_path / "n.tif").exists()
