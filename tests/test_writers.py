"""Results: every format is read back with its pixels and all that stands beside them."""

import re
import sys
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import tifffile
import yaozarrs
import zarr
from PIL import Image as Pillow

from forestbridge.image import ResultInfo, create_result, label_dtype, read_image, write_labels, write_probabilities
from results import CLASSES, FACTS, LABELS, PROBABILITIES, RNG, WITH_AXES, info_of, whole

# Every format


@pytest.mark.parametrize("suffix", WITH_AXES)
def test_series_of_probabilities_are_read_back(tmp_path, suffix):
    path = write_probabilities(tmp_path / f"p{suffix}", PROBABILITIES, axes="TCZYX", **CLASSES)
    image = read_image(path)
    assert (image.axes, image.dtype) == ("TCZYX", np.float32)
    np.testing.assert_array_equal(whole(path), PROBABILITIES)
    assert (image.pixel_size, image.frame_interval) == (CLASSES["pixel_size"], 3.0)
    assert image.channel_names == ("background", "Zellkern ü")
    assert [p.name for p in tmp_path.iterdir()] == [f"p{suffix}"]


@pytest.mark.parametrize("suffix", WITH_AXES)
def test_series_of_labels_are_read_back(tmp_path, suffix):
    path = write_labels(tmp_path / f"l{suffix}", LABELS, axes="TZYX", **CLASSES)
    image = read_image(path)
    assert (image.axes, image.dtype) == ("TZYX", np.uint8)
    np.testing.assert_array_equal(whole(path), LABELS)
    assert (image.pixel_size, image.frame_interval) == (CLASSES["pixel_size"], 3.0)


@pytest.mark.parametrize("suffix", [*WITH_AXES, ".npy"])
def test_planes_are_read_back(tmp_path, suffix):
    path = write_labels(tmp_path / f"l{suffix}", LABELS[0, 0], **CLASSES)
    assert read_image(path).axes == "YX"
    np.testing.assert_array_equal(whole(path), LABELS[0, 0])
    path = write_probabilities(tmp_path / f"p{suffix}", PROBABILITIES[0, :, 0], **CLASSES)
    np.testing.assert_array_equal(whole(path, axes="CYX"), PROBABILITIES[0, :, 0])
    one = info_of("YX", (40, 30), np.float32)  # one value per pixel: uncertainty
    with create_result(tmp_path / f"u{suffix}", one) as writer:
        writer.write((slice(None), slice(None)), PROBABILITIES[0, 0, 0])
    np.testing.assert_array_equal(whole(tmp_path / f"u{suffix}"), PROBABILITIES[0, 0, 0])


@pytest.mark.parametrize("suffix", [*WITH_AXES, ".npy", ".nrrd"])
def test_blocks_in_any_order_give_the_bytes_of_one_block(tmp_path, suffix):
    info = info_of("TCZYX", PROBABILITIES.shape, np.float32)
    corners = [(t, z, y, x) for t in range(2) for z in range(3) for y in (0, 17, 34) for x in (0, 13, 26)]
    RNG.shuffle(corners)
    with create_result(tmp_path / f"a{suffix}", info) as writer:
        for t, z, y, x in corners:
            region = (
                slice(t, t + 1),
                slice(0, 2),
                slice(z, z + 1),
                slice(y, min(y + 17, 40)),
                slice(x, min(x + 13, 30)),
            )
            writer.write(region, PROBABILITIES[region])
    write_probabilities(tmp_path / f"b{suffix}", PROBABILITIES, axes="TCZYX", **CLASSES)
    if suffix == ".nrrd":
        assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
    axes = "TCZYX" if suffix == ".npy" else None
    np.testing.assert_array_equal(whole(tmp_path / f"a{suffix}", axes), whole(tmp_path / f"b{suffix}", axes))


@pytest.mark.parametrize(("largest", "dtype"), [(1, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")])
def test_labels_have_the_smallest_dtype(tmp_path, largest, dtype):
    assert label_dtype((1, largest)) == np.dtype(dtype)
    labels = np.array([[0, largest]])
    path = write_labels(tmp_path / "l.ome.zarr", labels, classes=(largest,), names=("a",), colours=("#ffffff",))
    assert read_image(path).dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole(path), labels)


def test_no_classes_still_have_a_dtype():
    assert label_dtype(()) == np.uint8


# What each format keeps


def test_imagej_tiff_is_what_imagej_opens(tmp_path):
    path = write_probabilities(tmp_path / "p.tif", PROBABILITIES, axes="TCZYX", **CLASSES)
    with tifffile.TiffFile(path) as tif:
        metadata, page = tif.imagej_metadata, tif.pages.first
        assert metadata is not None
        assert (metadata["images"], metadata["channels"], metadata["slices"], metadata["frames"]) == (12, 2, 3, 2)
        assert (metadata["hyperstack"], metadata["unit"], metadata["spacing"], metadata["finterval"]) == (
            True,
            "micron",
            2.0,
            3.0,
        )
        assert (metadata["min"], metadata["max"], metadata["Ranges"]) == (0.0, 1.0, (0.0, 1.0, 0.0, 1.0))
        assert metadata["Labels"] == ["background", "Zellkern ü"] * 6
        assert metadata["Info"] == "".join(f"{k}: {v}\n" for k, v in FACTS.items())
        assert (page.compression, page.is_tiled, tif.is_bigtiff, page.is_contiguous) == (1, False, False, True)
        assert page.tags["XResolution"].value == (4, 1) and page.tags["YResolution"].value == (2, 1)
        np.testing.assert_array_equal(tif.asarray(), PROBABILITIES.transpose(0, 2, 1, 3, 4))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_imagej_labels_have_the_colours_of_their_classes(tmp_path, dtype):
    info = info_of("YX", (40, 30), dtype)
    with create_result(tmp_path / "l.tif", info) as writer:
        writer.write((slice(0, 40), slice(0, 30)), LABELS[0, 0])
    with tifffile.TiffFile(tmp_path / "l.tif") as tif:
        metadata, colormap = tif.imagej_metadata, tif.pages.first.colormap
    assert metadata is not None
    table = metadata["LUTs"] if colormap is None else colormap // 257
    assert (colormap is None) == (dtype == "u2")
    assert (
        table[:, 1].tolist() == [255, 0, 0]
        and table[:, 7].tolist() == [0, 255, 128]
        and table[:, 0].tolist() == [0, 0, 0]
    )
    assert (metadata["min"], metadata["max"]) == (0.0, 255.0)  # value k is shown in colour k


def test_imagej_labels_beyond_the_table_have_a_range(tmp_path):
    path = write_labels(tmp_path / "l.tif", np.array([[0, 300]]), classes=(300,), names=("a",), colours=("#ffffff",))
    with tifffile.TiffFile(path) as tif:
        assert tif.imagej_metadata is not None
        assert tif.imagej_metadata["max"] == 300.0 and "LUTs" not in tif.imagej_metadata


def test_results_without_pixel_size_have_none(tmp_path):
    bare = {**CLASSES, "pixel_size": {}, "frame_interval": None, "provenance": {}}
    for suffix in WITH_AXES:
        image = read_image(write_probabilities(tmp_path / f"p{suffix}", PROBABILITIES, axes="TCZYX", **bare))
        assert (image.pixel_size, image.frame_interval) == ({}, None)


def test_ome_tiff_keeps_classes_and_provenance(tmp_path):
    path = write_probabilities(tmp_path / "p.ome.tif", PROBABILITIES, axes="TCZYX", **CLASSES)
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata or ""
        page = tif.pages.first
        assert tif.byteorder == "<" and not tif.is_bigtiff
        assert (page.tags["XResolution"].value, page.tags["ResolutionUnit"].value) == ((40000, 1), 3)
    channels = tifffile.xml2dict(xml)["OME"]["Image"]["Pixels"]["Channel"]
    assert [c["Name"] for c in channels] == ["background", "Zellkern ü"]
    assert [c["Color"] & 0xFFFFFFFF for c in channels] == [0xFF0000FF, 0x00FF80FF]
    assert {m[0]: m[1] for m in re.findall('<M K="([^"]*)">([^<]*)</M>', xml)} == FACTS


def test_large_ome_planes_are_cut_into_strips(tmp_path):
    info = info_of("YX", (3000, 2000), np.float32)
    with create_result(tmp_path / "p.ome.tif", info) as writer:
        writer.write((slice(0, 3000), slice(0, 2000)), np.zeros((3000, 2000)))
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tif:
        assert tif.pages.first.rowsperstrip == 131 and len(tif.pages.first.dataoffsets) == 23


def test_ome_zarr_probabilities_are_valid(tmp_path):
    path = write_probabilities(tmp_path / "p.ome.zarr", PROBABILITIES, axes="TCZYX", **CLASSES)
    group = zarr.open_group(path, mode="r")
    ome_zarr_models.open_ome_zarr(group)
    yaozarrs.validate_zarr_store(path)
    ome: Any = group.attrs["ome"]
    assert [c["label"] for c in ome["omero"]["channels"]] == ["background", "Zellkern ü"]
    assert [c["color"] for c in ome["omero"]["channels"]] == ["FF0000", "00FF80"]
    assert group.attrs["forestbridge"] == FACTS
    array: Any = group["0"]
    assert array.metadata.dimension_names == ("t", "c", "z", "y", "x")
    codec = array.compressors[0].to_dict()
    assert codec["name"] == "zstd" and codec["configuration"]["checksum"] is True


def test_ome_zarr_labels_are_valid(tmp_path):
    path = write_labels(tmp_path / "l.ome.zarr", LABELS, axes="TZYX", **CLASSES)
    for part in ("", "labels", "labels/classes"):
        model = ome_zarr_models.open_ome_zarr(zarr.open_group(path / part, mode="r"))
        assert type(model).__name__ == {"": "Image", "labels": "Labels", "labels/classes": "ImageLabel"}[part]
        yaozarrs.validate_zarr_store(path / part)
    label: Any = zarr.open_group(path / "labels/classes", mode="r").attrs["ome"]
    assert label["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [255, 0, 0, 255]},
        {"label-value": 7, "rgba": [0, 255, 128, 255]},
    ]
    assert [p["name"] for p in label["image-label"]["properties"]] == ["background", "Zellkern ü"]
    np.testing.assert_array_equal(whole(path / "labels/classes"), LABELS)


def test_nrrd_is_as_its_format_says(tmp_path):
    path = write_probabilities(tmp_path / "p.nrrd", PROBABILITIES, axes="TCZYX", **CLASSES)
    header, _, pixels = path.read_bytes().partition(b"\n\n")
    lines = header.decode().split("\n")
    assert lines[0] == "NRRD0005"
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line and ":=" not in line)
    assert fields["type"] == "float" and fields["dimension"] == "5" and fields["encoding"] == "raw"
    assert fields["sizes"] == "30 40 3 2 2" and fields["spacings"] == "0.25 0.5 2.0 nan 3.0"
    assert fields["kinds"] == "domain domain domain list time" and fields["units"] == '"um" "um" "um" "" "s"'
    assert dict(line.split(":=", 1) for line in lines if ":=" in line) == FACTS
    assert fields["endian"] == sys.byteorder
    np.testing.assert_array_equal(np.frombuffer(pixels, np.float32).reshape(PROBABILITIES.shape), PROBABILITIES)


def test_png_of_labels_is_a_palette(tmp_path):
    path = write_labels(tmp_path / "l.png", LABELS[0, 0], **CLASSES)
    with Pillow.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), LABELS[0, 0])
        palette = np.array(picture.getpalette("RGB")).reshape(-1, 3)
        assert palette[[0, 1, 7]].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 128]]
        assert picture.info["dpi"] == pytest.approx((101600, 50800))
    with Pillow.open(path) as picture:
        picture.verify()
    assert [p.name for p in tmp_path.iterdir()] == ["l.png"]


def test_imagej_labels_beyond_16_bits_are_exact_floats(tmp_path):
    info = ResultInfo("YX", (1, 2), np.dtype("u4"), {}, None, (1, 70_000), ("a", "b"), ("#000000", "#ffffff"))
    with create_result(tmp_path / "l.tif", info) as writer:
        writer.write((slice(0, 1), slice(0, 2)), np.array([[1, 70_000]], np.uint32))
    found = tifffile.imread(tmp_path / "l.tif")
    assert (found.dtype, found.tolist()) == (np.float32, [[1, 70_000]])
