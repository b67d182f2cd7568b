"""`read_image`: NPY, PNG and JPEG, odd paths, files that are none of ours, and what is known of an image."""

import gc
import json
import logging
import os
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from forestbridge.errors import ImageError
from forestbridge.image import Image, base_name, check_distinct_names, check_same_kind, describe_image, read_image
from image_files import PLANE, RGB, RNG, STACK, TCZYX, assert_reads, write_zarr


@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "i4", "u8", "f2", ">f4", "f8"])
def test_npy(tmp_path, dtype):
    pixels = (RNG.random((40, 50)) * 100).astype(dtype)
    for stored in (pixels, np.asfortranarray(pixels)):
        np.save(tmp_path / "a.npy", stored)
        assert_reads(tmp_path / "a.npy", pixels, "YX")


def test_npy_of_three_dimensions_is_ambiguous(tmp_path):
    np.save(tmp_path / "a.npy", RGB)
    with pytest.raises(
        ImageError, match=r"found shape \(50, 60, 3\).*--axes YXC or --axes ZYX or --axes TYX or --axes CYX"
    ):
        read_image(tmp_path / "a.npy")
    assert_reads(tmp_path / "a.npy", RGB.transpose(2, 0, 1), "CYX", axes="YXC")


def test_npy_that_is_no_image_is_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"objects\.npy: expected an array of numbers, found object; save the pixels"):
        read_image(tmp_path / "objects.npy")
    np.save(tmp_path / "line.npy", np.zeros(5))
    with pytest.raises(ImageError, match=r"array of 2 to 5 dimensions, found shape \(5,\); reshape"):
        read_image(tmp_path / "line.npy")
    np.save(tmp_path / "empty.npy", np.zeros((0, 5)))
    with pytest.raises(ImageError, match=r"at least one pixel along each axis, found Y=0 X=5"):
        read_image(tmp_path / "empty.npy")
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    with pytest.raises(ImageError, match=r"expected integers, bool or floats of at most 64 bits, found <U1; convert"):
        read_image(tmp_path / "text.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': nonsense")
    with pytest.raises(ImageError, match=r"bad\.npy: expected an NPY file, found a damaged one"):
        read_image(tmp_path / "bad.npy")


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_complex_pixels_are_refused(tmp_path, kind):
    pixels = np.ones((8, 8), np.complex64)
    path = tmp_path / f"a.{kind}"
    np.save(path, pixels) if kind == "npy" else tifffile.imwrite(path, pixels)
    with pytest.raises(
        ImageError,
        match=r"expected real pixels, found complex ones \(complex64\); save the magnitude .* or the real part",
    ):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_grey_png(tmp_path, dtype):
    pixels = (PLANE > 100) if dtype is bool else PLANE.astype(dtype) * (200 if dtype is np.uint16 else 1)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", pixels, "YX")


def test_rgb_png_and_jpeg(tmp_path):
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", RGB.transpose(2, 0, 1), "CYX")
    Pillow.fromarray(RGB).save(tmp_path / "a.jpg", quality=95)
    with Pillow.open(tmp_path / "a.jpg") as picture:
        decoded = np.asarray(picture)
    assert_reads(tmp_path / "a.jpg", decoded.transpose(2, 0, 1), "CYX")
    Pillow.fromarray(PLANE).save(tmp_path / "g.jpg")
    assert read_image(tmp_path / "g.jpg").axes == "YX"


def test_the_kind_of_a_file_is_its_content(tmp_path):
    Pillow.fromarray(PLANE).save(tmp_path / "a.tif", format="PNG")
    assert_reads(tmp_path / "a.tif", PLANE, "YX")


def test_palette_pictures_are_refused(tmp_path):
    Pillow.fromarray(RGB).convert("P").save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: .*found colours by number \(a palette image\); convert it to RGB"):
        read_image(tmp_path / "a.png")
    table = RNG.integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="palette", colormap=table)
    with pytest.raises(ImageError, match=r"a\.tif: .*found colours by number \(a palette image\); convert it to RGB"):
        read_image(tmp_path / "a.tif")


def test_other_colours_are_refused(tmp_path):
    Pillow.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"expected a grey or RGB picture, found the colours CMYK; convert it to RGB"):
        read_image(tmp_path / "a.jpg")


def test_colours_of_16_bits_in_png_are_refused(tmp_path):
    import imagecodecs

    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 200))
    with pytest.raises(ImageError, match=r"expected 8 bits for each colour, found 16, .*save it as TIFF"):
        read_image(tmp_path / "a.png")


def test_several_pictures_in_a_png_are_refused(tmp_path):
    first, second = Pillow.fromarray(PLANE), Pillow.fromarray(PLANE[::-1])
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match=r"expected one picture, found 2 in one file; save them as a TIFF stack"):
        read_image(tmp_path / "a.png")


def test_a_scene_of_a_plain_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", PLANE)
    with pytest.raises(ImageError, match=r"expected scene 0, since such a file holds one image, found 1"):
        read_image(tmp_path / "a.npy", scene=1)


def test_empty_file_is_named(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(ImageError, match=r"a\.tif: expected an image, found an empty file \(0 bytes\)"):
        read_image(tmp_path / "a.tif")


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match=r"expected an image at .*gone\.tif, found nothing there; check the path"):
        read_image(tmp_path / "gone.tif")


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "a\0b.tif"])
def test_impossible_paths(tmp_path, name):
    with pytest.raises(ImageError, match=r"found no usable path \(.*\); check the path"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["with space.tif", "50%#1.tif", "größe µ.tif", "細胞.tif", os.fsdecode(b"latin\xe9.tif")]
)
def test_odd_names_work_and_can_be_printed(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    with path.open("wb") as file:
        tifffile.imwrite(file, PLANE)
    image = assert_reads(path, PLANE, "YX")
    image.source.encode()
    write_zarr(path.with_suffix(".zarr"), STACK, "0.5", TCZYX[2:], [1000, 1, 1])
    assert_reads(path.with_suffix(".zarr"), STACK, "ZYX")


def test_a_name_of_foreign_bytes_is_printed_as_escapes(tmp_path):
    with pytest.raises(ImageError, match=r"latin\\xe9\.tif, found nothing"):
        read_image(tmp_path / os.fsdecode(b"latin\xe9.tif"))


def test_folder_instead_of_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "cells.tif").touch()
    with pytest.raises(
        ImageError, match=r"found a folder without Zarr metadata; give one of its files, for example cells\.tif"
    ):
        read_image(tmp_path / "folder")


def test_zarr_as_a_file(tmp_path):
    (tmp_path / "a.ome.zarr").write_bytes(b"something")
    with pytest.raises(
        ImageError, match=r"found a file of another kind; an OME-Zarr image is a folder, unpack it first"
    ):
        read_image(tmp_path / "a.ome.zarr")


def test_other_kinds_of_files_say_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ImageError, match=r"\(a zip archive\); unpack it first"):
        read_image(tmp_path / "a.zip")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
    with pytest.raises(ImageError, match=r"expected an HDF5 image .* found a file that cannot be opened as such"):
        read_image(tmp_path / "a.h5")
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + b"\0" * 50)
    with pytest.raises(ImageError, match=r"expected TIFF, OME-TIFF, .* convert it to OME-TIFF"):
        read_image(tmp_path / "a.czi")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "locked.tif"
    tifffile.imwrite(path, PLANE)
    path.chmod(0)
    monkeypatch.chdir(tmp_path)  # so that another user needs no permission on the folders above
    root = os.geteuid() == 0
    if root:  # root reads everything
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match=r"locked\.tif"):
            read_image("locked.tif")
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_changes_is_noticed(tmp_path):
    for name, write in (("a.tif", tifffile.imwrite), ("a.npy", np.save)):
        path = tmp_path / name
        write(path, PLANE)
        image = read_image(path)
        image.plane()
        later = time.time_ns() + 10**9
        os.utime(path, ns=(later, later))
        with pytest.raises(
            ImageError, match=r"expected the file as it was when it was opened \(\d+ bytes\), found it changed since"
        ):
            image.plane()
        path.unlink()
        with pytest.raises(ImageError, match=r"found nothing there"):
            image.plane()


def test_no_file_stays_open_and_images_travel_to_other_processes(tmp_path):
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("needs /proc")
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata={"axes": "ZYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", STACK, metadata={"axes": "ZYX"}, photometric="minisblack", compression="zlib")
    np.save(tmp_path / "a.npy", PLANE)
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    write_zarr(tmp_path / "a.zarr", STACK, "0.5", TCZYX[2:], [1000, 1, 1])
    images = [read_image(tmp_path / n) for n in ("a.tif", "b.tif", "a.npy", "a.png", "a.zarr")]
    for image in images:
        image.plane()
    gc.collect()
    opened = [str(f.readlink()) for f in fds.iterdir() if f.is_symlink() and f.exists()]
    assert not [f for f in opened if str(tmp_path) in f]
    for image in images:
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).plane(), image.plane())


def test_channels_and_nan_are_passed_on(tmp_path):
    pixels = np.full((3, 8, 8), np.nan, np.float32)
    pixels[2] = 4
    np.save(tmp_path / "a.npy", pixels)
    image = read_image(tmp_path / "a.npy", axes="CYX", channels=[2, 0], nan=0)
    np.testing.assert_array_equal(image.region((slice(0, 8), slice(0, 8))).mean(axis=(1, 2)), [4, 0])
    with pytest.raises(ImageError, match=r"expected different channels from 0 to 2, found \[3\]"):
        read_image(tmp_path / "a.npy", axes="CYX", channels=[3])
    with pytest.raises(
        ImageError, match=r"a\.npy: expected finite pixels, found 4 NaN .* the first at t=0 c=0 z=0 y=2 x=3"
    ):
        read_image(tmp_path / "a.npy", axes="CYX", channels=[0]).region((slice(2, 4), slice(3, 5)))


def test_a_region_must_be_slices(tmp_path):
    np.save(tmp_path / "a.npy", PLANE)
    image = read_image(tmp_path / "a.npy")
    with pytest.raises(IndexError, match=r"expected one slice with a positive step for each axis of \(70, 90\)"):
        image.data[(slice(None),)]


def test_a_missing_pixel_size_is_said(tmp_path, caplog):
    np.save(tmp_path / "a.npy", PLANE)
    with caplog.at_level(logging.INFO, logger="forestbridge"):
        read_image(tmp_path / "a.npy")
    assert "a.npy: no pixel size in the file, sizes are in pixels" in caplog.text


def test_describe_image(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "um", "spacing": 3}
    )
    facts = json.loads(json.dumps(describe_image(read_image(tmp_path / "a.tif"))))
    assert facts.pop("source").endswith("a.tif")
    assert facts == {
        "axes": "ZYX",
        "shape": [5, 40, 50],
        "dtype": "uint16",
        "channels": 1,
        "channel_names": [],
        "pixel_size": {"z": 3.0, "y": 0.5, "x": 0.5},
        "frame_interval": None,
        "bytes": 20000,
    }


def test_images_of_another_kind_are_listed():
    def image(n, dtype, name):
        return Image(np.zeros((n, 4, 4), dtype), "CYX", {}, source=name)

    same = [image(1, "u1", "a"), image(1, "u1", "b")]
    check_same_kind(same)
    check_same_kind([])
    message = r"\(1 of uint8, as most have\), found c\.tif \(3 of uint8\), d\.tif \(1 of uint16\); choose channels"
    with pytest.raises(ImageError, match=message):
        check_same_kind([*same, image(3, "u1", "c.tif"), image(1, "u2", "d.tif")])


def test_names_without_suffixes():
    names = ["x/a.tif", "a.ome.tif", "a.OME.TIFF", "a.features.ome.zarr", "a.png", "a.b.tif", "a", ".tif"]
    assert [base_name(n) for n in names] == ["a", "a", "a", "a", "a", "a.b", "a", ".tif"]


def test_files_of_the_same_name_are_listed():
    check_distinct_names(["x/a.tif", "x/b.tif"])
    with pytest.raises(ImageError, match=r"found x/a\.tif, y/A\.ome\.tif; rename them"):
        check_distinct_names(["x/a.tif", "x/b.tif", "y/A.ome.tif"])
