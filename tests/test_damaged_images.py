"""Files that are cut off or damaged are refused by name; nothing else is raised."""

import logging

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from forestbridge.errors import ImageError
from forestbridge.image import read_image
from image_files import PLANE, RGB, RNG, STACK, cut, whole


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_imagej_tiff_cut_off(tmp_path, share):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 60000, (8, 64, 64)).astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    cut(path, share)
    with pytest.raises(ImageError, match=r"a\.tif: expected .* found .*: the file is cut off; copy or export it again"):
        read_image(path)


def test_imagej_tiff_cut_off_names_the_images_that_are_whole(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 64, 64), np.uint16), imagej=True, metadata={"axes": "ZYX"})
    cut(path, 0.5)
    with pytest.raises(
        ImageError, match=r"expected 8 images of 8192 bytes, as ImageJ wrote, found 4 whole ones: the file is cut off"
    ):
        read_image(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
@pytest.mark.parametrize("metadata", [{"axes": "ZYX"}, None])
@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("ome", [False, True])
def test_tiff_cut_off(tmp_path, share, metadata, compression, ome):
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    pixels = RNG.integers(0, 60000, (8, 64, 64)).astype(np.uint16)
    tifffile.imwrite(
        path,
        pixels,
        compression=compression,
        metadata=metadata,
        photometric="minisblack",
        ome=ome and metadata is not None,
    )
    cut(path, share)
    with pytest.raises(ImageError, match=r"a(\.ome)?\.tif: expected .*cut off"):
        read_image(path, axes="ZYX")


def test_tiff_without_pages_or_with_a_broken_header(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(ImageError, match=r"a\.tif: expected .*cut off"):
        read_image(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"II*\0" + b"\xff" * 60)
    with pytest.raises(ImageError, match=r"b\.tif: expected .*cut off"):
        read_image(tmp_path / "b.tif")


def test_damaged_compressed_pixels_are_refused_when_they_are_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", metadata={"axes": "ZYX"}, photometric="minisblack")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        start, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    content[start : start + count] = b"\x55" * count
    path.write_bytes(content)
    image = read_image(path)
    np.testing.assert_array_equal(image.plane(z=1)[0], STACK[1])
    with pytest.raises(
        ImageError, match=r"a\.tif: expected compressed pixels in strip or tile 0 of page 2, found damaged ones"
    ):
        image.plane(z=2)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_cut_off(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Pillow.fromarray(RGB).save(path)
    cut(path, 0.5)
    image = read_image(path)
    with pytest.raises(
        ImageError, match=r"expected a whole picture, found one that ends early or is damaged .*copy or export it again"
    ):
        whole(image)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ImageError, match=r"expected a PNG or JPEG picture, found a cut or damaged one"):
        read_image(path)


def test_npy_cut_off(tmp_path):
    np.save(tmp_path / "a.npy", PLANE)
    cut(tmp_path / "a.npy", 0.5)
    with pytest.raises(
        ImageError, match=r"expected 6428 bytes for an array \(70, 90\) of uint8, found 3214 bytes: the file is cut off"
    ):
        read_image(tmp_path / "a.npy")


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path, STACK, tile=(16, 16), compression="lzw", metadata={"axes": "ZYX"}, photometric="minisblack"
        )
        content = path.read_bytes()
        refused = 0
        for _ in range(150):
            damaged = bytearray(content)
            for place in RNG.integers(0, 700, 4):
                damaged[place] = RNG.integers(0, 256)
            path.write_bytes(damaged)
            try:
                image = read_image(path)
                if np.prod(image.shape, dtype=float) < 1e6:
                    whole(image)
            except ImageError:
                refused += 1
        assert refused > 50
    finally:
        logging.getLogger("tifffile").setLevel(logging.NOTSET)
