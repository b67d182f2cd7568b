"""The baseline: scikit-image's bits, on planes, volumes and frames; and how it is held against a forest's labels."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.filters import gaussian, threshold_otsu

import forestbridge as fb
from command_line import CELLS, STACK, STAINED, call, done
from forestbridge.errors import ImageError
from forestbridge.objects.agreement import Agreement

VOLUME = STACK.image.reshape(STACK.truth.shape)


def expected(pixels: np.ndarray, sigma: float = 3) -> np.ndarray:
    """Return the recipe as it is written in lessons."""
    blurred = gaussian(pixels, sigma)
    return blurred > threshold_otsu(blurred)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
def test_the_bits_of_skimage(dtype: type) -> None:
    pixels = CELLS.image > 9000 if dtype is bool else (CELLS.image / 257).astype(dtype)
    for sigma in (0, 1.5, 3):
        found = fb.baseline(pixels, sigma=sigma)
        assert np.asarray(found).dtype == np.uint8
        np.testing.assert_array_equal(found, expected(pixels, sigma))
    np.testing.assert_array_equal(fb.baseline(pixels, invert=True), ~expected(pixels))


def test_volumes_planes_and_frames() -> None:
    np.testing.assert_array_equal(fb.baseline(VOLUME, axes="ZYX"), expected(VOLUME))
    planes = np.stack([expected(plane) for plane in VOLUME])
    np.testing.assert_array_equal(fb.baseline(VOLUME, axes="ZYX", plane_by_plane=True), planes)
    np.testing.assert_array_equal(fb.baseline(VOLUME, axes="TYX"), planes)
    movie = np.stack([VOLUME, VOLUME[::-1] // 2])
    np.testing.assert_array_equal(fb.baseline(movie, axes="TZYX")[1], expected(movie[1]))  # type: ignore[index]


def test_channels() -> None:
    np.testing.assert_array_equal(fb.baseline(STAINED.image, channel=2), expected(STAINED.image[2]))
    with pytest.raises(ImageError, match="expected one channel, found 3; choose one of 0 to 2 with --channel"):
        fb.baseline(STAINED.image)
    with pytest.raises(ImageError, match="expected different channels from 0 to 2"):
        fb.baseline(STAINED.image, channel=3)


def test_edges(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert not np.any(fb.baseline(np.full((20, 20), 7, np.uint8)))
    assert "all pixels have one value" in caplog.text
    assert np.shape(fb.baseline(np.ones((1, 1), np.uint8))) == (1, 1)
    broken = np.full((9, 9), np.nan, np.float32)
    with pytest.raises(ImageError, match="expected finite pixels, found 81 NaN"):
        fb.baseline(broken)
    with pytest.raises(ValueError, match="expected a sigma of 0 or more"):
        fb.baseline(CELLS.image, sigma=-1)


def test_measures() -> None:
    same = Agreement(both=6, only_first=2, only_second=1, neither=11)
    assert (same.dice, same.iou, same.pixel_agreement) == (12 / 15, 6 / 9, 17 / 20)
    assert (Agreement(0, 0, 0, 5).dice, Agreement(0, 0, 0, 5).iou, Agreement(0, 1, 0, 5).dice) == (1, 1, 0)


def test_command_compares_with_labels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CELLS.image)
    table = {"classes": (1, 2), "names": ("background", "cell"), "colours": ("#000000", "#ffffff")}
    fb.write_labels(tmp_path / "truth.ome.tif", CELLS.truth, **table)
    first, second = expected(CELLS.image), CELLS.truth == 2
    for suffix in (".tif", ".ome.zarr", ".npy", ".png"):
        ended = done(
            "baseline",
            "otsu",
            tmp_path / "a.tif",
            "-o",
            tmp_path / f"o{suffix}",
            "--compare",
            tmp_path / "truth.ome.tif",
            "--json",
        )
        found = ended.json()["results"][0]["compare"]
        assert found["dice"] == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()))
        assert found["iou"] == pytest.approx((first & second).sum() / (first | second).sum())
        assert found["pixel_agreement"] == pytest.approx((first == second).mean())
    text = done(
        "baseline",
        "otsu",
        tmp_path / "a.tif",
        "-o",
        tmp_path / "p.tif",
        "--compare",
        tmp_path / "truth.ome.tif",
        "--class",
        "cell",
    )
    assert f"Dice {found['dice']:.4f}" in text.out


def test_command_refuses_before_it_writes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CELLS.image)
    tifffile.imwrite(tmp_path / "small.tif", CELLS.truth[:50])
    out = tmp_path / "o.tif"
    for code, *arguments in (
        (3, "--compare", tmp_path / "small.tif"),
        (2, "--compare", tmp_path / "small.tif", tmp_path / "a.tif"),
        (3, "--channel", "1"),
        (2, "--format", "zarr"),
    ):
        ended = call("baseline", "otsu", tmp_path / "a.tif", "-o", out, *arguments)
        assert (ended.code, out.exists()) == (code, False), ended.err
    ended = done(
        "baseline", "otsu", tmp_path / "a.tif", tmp_path / "small.tif", "-o", tmp_path / "all", "--suffix", "_o.ome.tif"
    )
    assert [Path(line).name for line in ended.out.splitlines()] == ["a_o.ome.tif", "small_o.ome.tif"]
