"""Label images in every format, merged, matched to images, described and written."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from forestbridge.errors import LabelError, OutputExistsError
from forestbridge.image import Image, as_image, read_image
from forestbridge.labels import (
    DEFAULT_COLOURS,
    as_scribbles,
    check_scribbles,
    common_names,
    match_to_image,
    merge_scribbles,
    new_labels,
    read_scribbles,
    scribble_stats,
    share_names,
    write_new_labels,
    write_scribbles,
)
from forestbridge.phantom import phantom


@pytest.fixture
def flat():
    labels = np.zeros((20, 30), np.uint8)
    labels[2, 3:9] = 1
    labels[10:12, 20:25] = 2
    return labels


@pytest.fixture
def stack():
    labels = np.zeros((4, 20, 30), np.uint8)
    labels[1, 2, 3:9] = 1
    labels[3, 10:12, 20:25] = 2
    return labels


def dense(scribbles):
    t, z = scribbles.shape[:2]
    return np.stack([scribbles.at_plane(i, j) for i in range(t) for j in range(z)]).reshape(scribbles.shape)


def test_points_values_and_properties(stack):
    s = as_scribbles(stack, names=["background", "nucleus"])
    assert s.points.dtype == s.values.dtype == np.int64
    assert s.points.shape == (16, 4)
    assert s.points[0].tolist() == [0, 1, 2, 3]
    assert s.classes == (1, 2)
    assert s.counts == {1: 6, 2: 10}
    assert s.planes == [(0, 1), (0, 3)]
    assert s.names == {1: "background", 2: "nucleus"}
    assert s.colours == {1: DEFAULT_COLOURS[0], 2: DEFAULT_COLOURS[1]}
    assert s.size_text == "Q=4 Y=20 X=30"
    assert repr(s) == "<Scribbles array: Q=4 Y=20 X=30, 16 pixels of classes [1, 2]>"
    np.testing.assert_array_equal(dense(s)[0], stack)


def test_values_seven_and_one_are_kept(flat):
    s = as_scribbles(np.where(flat == 2, 7, flat), names={1: "a", 7: "b", 9: "not here"}, colours={7: "#FF0000"})
    assert s.classes == (1, 7)
    assert s.names == {1: "a", 7: "b", 9: "not here"}
    assert s.colours == {1: DEFAULT_COLOURS[0], 7: "#ff0000"}
    assert s.at_plane().max() == 7


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">u2", "uint32", "int64", "uint64", "float16", "float64"])
def test_dtypes(flat, dtype):
    labels = flat.astype(dtype)
    s = as_scribbles(labels)
    np.testing.assert_array_equal(s.at_plane(), flat > 0 if dtype == "bool" else flat)


def test_axes_in_any_order(stack):
    s = as_scribbles(stack.transpose(2, 0, 1)[:, None], axes="XCZY")
    assert s.axes == "ZYX"
    np.testing.assert_array_equal(dense(s)[0], stack)
    assert (np.diff(np.ravel_multi_index(tuple(s.points.T), s.shape)) > 0).all()


def test_blocks_of_rows_give_the_same_points(flat, monkeypatch):
    whole = as_scribbles(flat)
    monkeypatch.setattr("forestbridge.labels.scribbles.BLOCK_BYTES", 100)  # three rows
    blocks = as_scribbles(flat)
    np.testing.assert_array_equal(blocks.points, whole.points)
    np.testing.assert_array_equal(blocks.values, whole.values)


@pytest.mark.parametrize("ignore", [255, [255], {255, -1}, np.int64(255)])
def test_ignore(flat, ignore):
    s = as_scribbles(np.where(flat == 0, 255, flat), ignore=ignore)
    np.testing.assert_array_equal(s.at_plane(), flat)


def write_tiff(path, labels, kind):
    match kind:
        case "imagej":
            tifffile.imwrite(path, labels, imagej=True, metadata={"axes": "TZYX"[-labels.ndim :]})
        case "ome":
            tifffile.imwrite(path, labels, ome=True, metadata={"axes": "TZYX"[-labels.ndim :]})
        case "pages":
            tifffile.imwrite(path, labels, photometric="minisblack", metadata=None)
        case "zlib":
            tifffile.imwrite(path, labels, photometric="minisblack", compression="zlib", metadata=None)
        case "napari":  # what napari saves a Labels layer as
            tifffile.imwrite(path, labels.astype(np.int32), compression="zlib", photometric="minisblack")
        case "bigtiff":
            tifffile.imwrite(path, labels, bigtiff=True, photometric="minisblack", byteorder=">")


@pytest.mark.parametrize("kind", ["imagej", "ome", "pages", "zlib", "napari", "bigtiff"])
def test_tiff(tmp_path, flat, stack, kind):
    write_tiff(tmp_path / "flat.tif", flat, kind)
    np.testing.assert_array_equal(read_scribbles(tmp_path / "flat.tif").at_plane(), flat)
    write_tiff(tmp_path / "stack.tif", stack, kind)
    s = read_scribbles(tmp_path / "stack.tif", shape=(4, 20, 30))
    assert s.axes == "ZYX"
    np.testing.assert_array_equal(dense(s)[0], stack)


def test_tiff_of_a_time_series(tmp_path, stack):
    frames = Image(np.zeros((4, 2, 20, 30)), "TCYX", {})
    tifffile.imwrite(tmp_path / "t.tif", stack, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "unknown.tif", stack, photometric="minisblack")
    for name in ("t.tif", "unknown.tif"):
        s = read_scribbles(tmp_path / name, shape=frames)
        assert (s.axes, s.shape) == ("TYX", (4, 1, 20, 30))
        assert s.planes == [(1, 0), (3, 0)]


def test_palette_tiff_gives_indices(tmp_path, flat):
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", flat, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_scribbles(tmp_path / "p.tif").at_plane(), flat)
    lut = np.zeros((3, 256), np.uint8)  # what Fiji writes for an 8-bit image with the glasbey lookup table
    tifffile.imwrite(tmp_path / "lut.tif", flat, imagej=True, colormap=lut.astype(np.uint16), photometric="palette")
    np.testing.assert_array_equal(read_scribbles(tmp_path / "lut.tif").at_plane(), flat)


@pytest.mark.parametrize("mode", ["L", "I;16", "P"])
def test_png(tmp_path, flat, mode):
    labels = flat.astype(np.uint16) * 200 if mode == "I;16" else flat
    picture = Pillow.fromarray(labels)
    if mode == "P":
        picture = picture.convert("P")
        picture.putdata(flat.ravel().tolist())
        picture.putpalette([0, 0, 0, 255, 128, 0, 0, 64, 255])
    picture.save(tmp_path / "a.png")
    s = read_scribbles(tmp_path / "a.png")
    np.testing.assert_array_equal(s.at_plane(), labels)
    if mode == "P":
        assert s.colours == {1: "#ff8000", 2: "#0040ff"}


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("kind", [0, 3])
def test_png_of_few_bits(tmp_path, depth, kind):
    """Pillow writes no grey of 2 or 4 bits, so the file is put together here: colour type 0 is grey, 3 palette."""
    import struct
    import zlib

    values = np.arange(16).reshape(2, 8) % 2**depth
    rows = b"".join(
        b"\0" + np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, -depth:]).tobytes()
        for row in values
    )

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    palette = chunk(b"PLTE", bytes(3 * 2**depth)) if kind == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, depth, kind, 0, 0, 0))
    content = header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(read_scribbles(tmp_path / "a.png").at_plane(), values)


def test_npy(tmp_path, stack):
    np.save(tmp_path / "a.npy", np.asfortranarray(stack))
    np.testing.assert_array_equal(dense(read_scribbles(tmp_path / "a.npy"))[0], stack)


def write_zarr_label(root, labels, version, *, path="labels/cells", names=("background", "nucleus")):
    """An OME-Zarr image with one label image, in the layout of 0.4 (zarr 2) or 0.5 (zarr 3)."""
    zarr_format = 2 if version == "0.4" else 3
    axes = [{"name": a, "type": "time" if a == "t" else "space"} for a in "tzyx"[-labels.ndim :]]
    scale = [{"type": "scale", "scale": [1.0] * labels.ndim}]
    multiscale = [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}], "version": version}]
    label = {
        "version": version,
        "colors": [{"label-value": 1, "rgba": [0, 0, 255, 255]}, {"label-value": 2, "rgba": [255, 0, 0, 255]}],
        "properties": [{"label-value": i + 1, "name": n} for i, n in enumerate(names)],
    }

    def wrap(attributes):
        return attributes if version == "0.4" else {"ome": {"version": version, **attributes}}

    top = zarr.open_group(root, mode="a", zarr_format=zarr_format)
    top.attrs.update(wrap({"multiscales": multiscale}))
    top.create_array("s0", data=np.zeros_like(labels))
    folder, name = path.split("/")
    group = top.require_group(folder)
    known = dict(group.attrs).get("ome", dict(group.attrs)).get("labels", [])
    group.attrs.update(wrap({"labels": [*known, name]}))
    node = group.create_group(name)
    node.attrs.update(wrap({"multiscales": multiscale, "image-label": label}))
    node.create_array("s0", data=labels, chunks=(1,) * (labels.ndim - 2) + (8, 8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_label(tmp_path, stack, version):
    root = tmp_path / "a.ome.zarr"
    write_zarr_label(root, stack, version)
    for path in (root / "labels" / "cells", root / "labels", root):
        s = read_scribbles(path)
        assert s.axes == "ZYX"
        assert s.names == {1: "background", 2: "nucleus"}
        assert s.colours == {1: "#0000ff", 2: "#ff0000"}
        np.testing.assert_array_equal(dense(s)[0], stack)
    assert read_scribbles(root / "labels" / "cells").source.endswith("a.ome.zarr/labels/cells")
    assert read_scribbles(root, names=["x", "y"]).names == {1: "x", 2: "y"}


def test_transposed_file_is_read_with_its_axes(tmp_path, flat):
    np.save(tmp_path / "a.npy", flat.T)
    np.testing.assert_array_equal(read_scribbles(tmp_path / "a.npy", axes="XY", shape=(20, 30)).at_plane(), flat)


def test_plane_puts_flat_labels_into_a_stack(tmp_path, flat):
    np.save(tmp_path / "a.npy", flat)
    s = read_scribbles(tmp_path / "a.npy", plane=3, shape=(5, 20, 30))
    assert (s.planes, s.axes, s.shape, s.plane) == ([(0, 3)], "ZYX", (1, 5, 20, 30), None)
    image = Image(np.zeros((2, 5, 20, 30)), "TZYX", {})
    assert match_to_image(as_scribbles(flat), image, plane=(1, 4)).planes == [(1, 4)]
    assert match_to_image(as_scribbles(flat, plane=(0, 2)), image).planes == [(0, 2)]
    frames = Image(np.zeros((6, 20, 30)), "TYX", {})
    assert match_to_image(as_scribbles(flat), frames, plane=4).planes == [(4, 0)]
    pages = as_scribbles(np.stack([flat] * 5), axes="ZYX")
    assert match_to_image(pages, image, plane=1).planes == [(1, z) for z in range(5)]


@pytest.mark.parametrize("size", [(20, 30), {"Y": 20, "X": 30}, {"T": 1, "C": 3, "Z": 1, "Y": 20, "X": 30}])
def test_sizes_of_an_image(flat, size):
    s = match_to_image(as_scribbles(flat), size)
    np.testing.assert_array_equal(s.at_plane(), flat)
    assert s.shape == (1, 1, 20, 30)


def test_several_files_are_laid_over_each_other(tmp_path, flat):
    first, second = np.where(flat == 1, 1, 0), np.where(flat == 2, 2, 0)
    second[2, 3] = 1  # the same class on the same pixel is no contradiction
    np.save(tmp_path / "1.npy", first)
    Pillow.fromarray(second.astype(np.uint8)).save(tmp_path / "2.png")
    s = read_scribbles([tmp_path / "1.npy", tmp_path / "2.png"], names=["a", "b"])
    np.testing.assert_array_equal(s.at_plane(), flat)
    assert s.names == {1: "a", 2: "b"}
    assert s.source == "1.npy, 2.png"


def test_merge_first_and_last(flat):
    a, b = as_scribbles(flat), as_scribbles(np.where(flat == 1, 2, 0))
    assert merge_scribbles([a, b], merge="first").at_plane()[2, 3] == 1
    assert merge_scribbles([a, b], merge="last").at_plane()[2, 3] == 2
    assert merge_scribbles([a]).counts == a.counts


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4))
def test_merging_is_painting_over(layers):
    arrays = [np.array(layer, np.uint8).reshape(2, 3) for layer in layers]
    parts = [as_scribbles(a) for a in arrays]
    first, last = arrays[0].copy(), arrays[0].copy()
    for array in arrays[1:]:
        first, last = np.where(first == 0, array, first), np.where(array == 0, last, array)
    np.testing.assert_array_equal(merge_scribbles(parts, merge="first").at_plane(), first)
    np.testing.assert_array_equal(merge_scribbles(parts, merge="last").at_plane(), last)


def test_names_over_several_images(flat):
    one = as_scribbles(np.where(flat == 1, 1, 0), colours={1: "#111111"})
    two = as_scribbles(np.where(flat == 2, 2, 0))
    a, b = share_names([one, two], names=["background", "nucleus"], colours={2: "#222222"})
    assert a.names == b.names == {1: "background", 2: "nucleus"}
    assert a.colours == b.colours == {1: "#111111", 2: "#222222"}
    assert common_names([one, as_scribbles(flat, names=["x", "y"])]) == {1: "x", 2: "y"}
    assert share_names([one, two])[0].names == {1: "class 1", 2: "class 2"}


def test_stats_are_json(stack):
    stats = scribble_stats(as_scribbles(stack, names=["background", "nucleus"], source="a.tif"))
    assert json.loads(json.dumps(stats)) == stats
    assert stats["source"] == "a.tif"
    assert stats["size"] == {"Q": 4, "Y": 20, "X": 30}
    assert stats["classes"] == [
        {"value": 1, "name": "background", "colour": DEFAULT_COLOURS[0], "pixels": 6, "planes": 1},
        {"value": 2, "name": "nucleus", "colour": DEFAULT_COLOURS[1], "pixels": 10, "planes": 1},
    ]
    assert stats["pixels"] == 16
    assert stats["fraction"] == 16 / stack.size
    assert stats["planes"] == [{"t": 0, "z": 1, "pixels": 6}, {"t": 0, "z": 3, "pixels": 10}]
    assert (stats["warnings"], stats["refused"]) == ([], None)


def test_stats_of_labels_that_cannot_train(flat):
    stats = scribble_stats(as_scribbles(flat > 0))
    assert "add a second class" in stats["refused"]
    assert scribble_stats(as_scribbles(np.zeros_like(flat)))["pixels"] == 0


def test_new_labels_have_the_shape_of_the_image():
    image = Image(np.zeros((2, 3, 4, 20, 30), np.uint16), "TCZYX", {})
    assert new_labels(image).shape == (2, 4, 20, 30)
    assert new_labels(as_image(np.zeros((3, 20, 30)))).shape == (20, 30)
    assert not new_labels(image).any()


def test_new_label_tiff_keeps_size_and_pixel_size(tmp_path):
    size = {"z": 2.0, "y": 0.5, "x": 0.25}
    image = Image(np.zeros((2, 3, 4, 20, 30), np.uint16), "TCZYX", size, frame_interval=1.5)
    path = write_new_labels(tmp_path / "new.tif", image)
    found = read_image(path)
    assert (found.axes, found.shape, found.dtype) == ("TZYX", (2, 4, 20, 30), np.uint8)
    assert found.pixel_size == pytest.approx(size)
    assert found.frame_interval == 1.5
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_imagej
        assert tiff.pages.first.compression == 1
    assert read_scribbles(path, shape=image).classes == ()
    assert [p.name for p in tmp_path.iterdir()] == ["new.tif"]


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png"])
def test_new_labels_of_a_flat_image(tmp_path, suffix):
    path = write_new_labels(tmp_path / f"new{suffix}", as_image(np.zeros((20, 30))))
    assert read_scribbles(path, shape=(20, 30)).shape == (1, 1, 20, 30)
    with pytest.raises(OutputExistsError, match=r"expected a new output, found that .*new.* exists"):
        write_new_labels(path, as_image(np.zeros((20, 30))))
    write_new_labels(path, as_image(np.zeros((8, 8))), overwrite=True)
    assert read_scribbles(path).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".png"])
@pytest.mark.parametrize("factor", [1, 1000])
def test_scribbles_round_trip(tmp_path, flat, suffix, factor):
    s = as_scribbles(flat.astype(np.uint32) * factor)
    path = write_scribbles(tmp_path / f"a{suffix}", s)
    again = read_scribbles(path, shape=(20, 30))
    np.testing.assert_array_equal(again.points, s.points)
    np.testing.assert_array_equal(again.values, s.values)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_stacks_and_large_values_round_trip(tmp_path, stack, suffix):
    image = Image(np.zeros((3, 4, 20, 30)), "CZYX", {"z": 3.0, "y": 1.0, "x": 1.0})
    s = match_to_image(as_scribbles(stack.astype(np.uint32) * 100_000), image)
    again = read_scribbles(write_scribbles(tmp_path / f"a{suffix}", s, image=image), shape=image)
    np.testing.assert_array_equal(dense(again), dense(s))
    four = as_scribbles(np.stack([stack, stack[::-1]]))
    again = read_scribbles(write_scribbles(tmp_path / f"b{suffix}", four))
    np.testing.assert_array_equal(dense(again), dense(four))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        ("a.jpg", (20, 30), np.uint8, r"expected a label file of the type .tif, .tiff, .npy, .png, found .jpg"),
        ("a", (20, 30), np.uint8, r"found no suffix; choose one of them"),
        ("a.png", (4, 20, 30), np.uint8, r"expected 2D labels of at most 65535 for a PNG, found ZYX .*; write a .tif"),
        ("a.png", (20, 30), np.uint32, r"for a PNG, found YX \(20, 30\) uint32; write a .tif"),
    ],
)
def test_formats_that_cannot_hold_the_labels(tmp_path, name, shape, dtype, message):
    labels = np.full(shape, 70_000 if dtype == np.uint32 else 1, dtype)
    with pytest.raises(LabelError, match=message):
        write_scribbles(tmp_path / name, as_scribbles(labels))


def test_imagej_tiff_of_more_than_4_gib_is_refused(tmp_path):
    image = Image(np.broadcast_to(np.uint8(0), (5000, 1000, 1000)), "ZYX", {})
    with pytest.raises(LabelError, match=r"expected at most 4 GiB for an ImageJ TIFF, found 4768 MiB; write a .npy"):
        write_new_labels(tmp_path / "a.tif", image)


def test_phantom_goes_through_a_file(tmp_path):
    p = phantom((6, 64, 64), classes=4, channels=2)
    image = as_image(p.image)
    path = write_scribbles(tmp_path / "a.tif", match_to_image(as_scribbles(p.scribbles), image))
    s = read_scribbles(path, names=p.names, shape=image)
    assert check_scribbles(s) == []
    assert tuple(s.names.values()) == p.names
    np.testing.assert_array_equal(dense(s)[0], p.scribbles)
