"""Pixels of TIFF files: every dtype, layout and compression comes out as it went in, region by region."""

import logging
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from forestbridge.image import read_image
from image_files import PLANE, RGB, RNG, SERIES, STACK, assert_reads, whole

LAYOUTS = {
    "plain": {},
    "tiles": {"tile": (16, 32)},
    "zlib strips": {"compression": "zlib", "rowsperstrip": 7},
    "zlib tiles, predictor": {"compression": "zlib", "tile": (32, 16), "predictor": True},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd", "tile": (32, 32)},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_tiff_dtypes_in_both_byte_orders(tmp_path, dtype, order):
    pixels = (RNG.random((40, 50)) * 200 - (50 if dtype[0] != "u" else 0)).astype(order + dtype)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order, compression=compression)
        assert_reads(tmp_path / "a.tif", pixels, "YX")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pixels", [PLANE, STACK], ids=["plane", "stack"])
def test_tiff_layouts(tmp_path, layout, pixels):
    axes = "ZYX"[-pixels.ndim :]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": axes}, **LAYOUTS[layout])
    assert_reads(tmp_path / "a.tif", pixels, axes)


def test_tiff_of_one_bit(tmp_path):
    pixels = PLANE > 100
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    image = assert_reads(tmp_path / "a.tif", pixels, "YX")
    assert set(np.unique(image.region((slice(0, 70), slice(0, 90))))) == {0.0, 1.0}


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (3, 5)])
def test_tiff_of_few_pixels(tmp_path, shape):
    pixels = RNG.integers(0, 9, shape).astype(np.uint8)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression)
        assert_reads(tmp_path / "a.tif", pixels, "YX")


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"tile": (16, 16), "compression": "zlib"}])
def test_rgb_tiff_is_not_ambiguous(tmp_path, options):
    pixels = RGB.transpose(2, 0, 1) if "planarconfig" in options else RGB
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", **options)
    assert_reads(tmp_path / "a.tif", RGB.transpose(2, 0, 1), "CYX")


def test_jpeg_tiles_with_tables_of_their_own(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    pixels = np.stack([smooth, smooth + 20, smooth + 40], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 16), compression="jpeg")
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "CYX"
    np.testing.assert_allclose(whole(image).astype(int), pixels.transpose(2, 0, 1), atol=25)


def test_alpha_is_left_out_with_a_note(tmp_path, caplog):
    rgba = np.dstack([RGB, RGB[..., :1]])
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    with caplog.at_level(logging.INFO, logger="forestbridge"):
        assert_reads(tmp_path / "a.tif", RGB.transpose(2, 0, 1), "CYX")
    assert "a.tif: the alpha channel is left out" in caplog.text
    tifffile.imwrite(
        tmp_path / "g.tif", rgba[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"]
    )
    assert_reads(tmp_path / "g.tif", RGB[..., 0], "YX")
    Pillow.fromarray(rgba).save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", RGB.transpose(2, 0, 1), "CYX")
    Pillow.fromarray(RGB[..., 0]).convert("LA").save(tmp_path / "g.png")
    assert_reads(tmp_path / "g.png", RGB[..., 0], "YX")


def test_tiles_that_were_left_out_are_zero(tmp_path):
    tiles = [np.full((16, 16), 5, np.uint8), None, None, np.full((16, 16), 6, np.uint8)]
    tifffile.imwrite(tmp_path / "a.tif", iter(tiles), shape=(32, 32), dtype=np.uint8, tile=(16, 16))
    expected = np.zeros((32, 32), np.uint8)
    expected[:16, :16], expected[16:, 16:] = 5, 6
    assert_reads(tmp_path / "a.tif", expected, "YX")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_region_of_a_compressed_series(tmp_path, data):
    path = tmp_path / "a.ome.tif"
    if not path.exists():
        tifffile.imwrite(
            path, SERIES, tile=(16, 16), compression="zlib", metadata={"axes": "TCZYX"}, photometric="minisblack"
        )
    key = tuple(slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in SERIES.shape)
    np.testing.assert_array_equal(read_image(path).data[key], SERIES[key])


def test_a_region_of_a_large_tiff_reads_only_its_tiles(tmp_path):
    tile = zlib.compress(RNG.integers(0, 4000, (256, 256)).astype(np.uint16).tobytes())
    with tifffile.TiffWriter(tmp_path / "big.tif") as tif:
        tiles = (tile for _ in range(79 * 79))
        tif.write(tiles, shape=(20_000, 20_000), dtype=np.uint16, tile=(256, 256), compression="zlib")
    script = (
        "import resource, sys; from forestbridge.image import read_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "image = read_image(sys.argv[1]); before = peak()\n"
        "for x in range(0, 20_000, 2_000): image.region((slice(9000, 9512), slice(x, x + 512)))\n"
        "print(image.shape, (peak() - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "big.tif"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("(20000, 20000)")
    assert int(done.stdout.split()[-1]) < 200  # MiB; the image has 763


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_compression_of_a_missing_package_names_its_extra(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, compression=compression)
    script = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from forestbridge.image import read_image; from forestbridge.errors import MissingExtraError\n"
        "try: read_image(sys.argv[1]).plane()\nexcept MissingExtraError as error: print(error)"
    )
    run = [sys.executable, "-c", script, str(tmp_path / "a.tif")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "reading TIFF with" in done.stdout and "needs the extra 'formats', which is not installed" in done.stdout
