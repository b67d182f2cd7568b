"""OME-Zarr 0.4 and 0.5 images as other programs write them."""

from typing import Any

import pytest
import zarr

from forestbridge.errors import ImageError
from forestbridge.image import read_image
from image_files import SERIES, STACK, TCZYX, assert_reads, whole, write_zarr


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    channels = [
        {"label": n, "color": "FFFFFF", "window": {"min": 0, "max": 1, "start": 0, "end": 1}} for n in ("a", "b", "c")
    ]
    write_zarr(tmp_path / "a.ome.zarr", SERIES, version, TCZYX, [500, 1, 2000, 0.5, 0.25], omero={"channels": channels})
    image = assert_reads(tmp_path / "a.ome.zarr", SERIES, "TCZYX")
    assert image.pixel_size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert image.frame_interval == 0.5
    assert image.channel_names == ("a", "b", "c")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_without_units_has_no_pixel_size(tmp_path, version):
    axes = [{"name": "z", "type": "space"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    write_zarr(tmp_path / "a.zarr", STACK.astype(">u2"), version, axes, [1, 1, 1])
    assert assert_reads(tmp_path / "a.zarr", STACK, "ZYX").pixel_size == {}


def test_ome_zarr_with_axes_of_other_names(tmp_path):
    axes = [{"name": "lambda", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    write_zarr(tmp_path / "a.zarr", STACK, "0.5", axes, [1, 1, 1])
    assert_reads(tmp_path / "a.zarr", STACK, "CYX")
    axes[0] = {"name": "angle"}
    write_zarr(tmp_path / "b.zarr", STACK, "0.5", axes, [1, 1, 1])
    with pytest.raises(ImageError, match=r"b\.zarr.*expected axes with a name, found shape \(5, 40, 50\)"):
        read_image(tmp_path / "b.zarr")
    assert_reads(tmp_path / "b.zarr", STACK, "ZYX", axes="ZYX")


def test_ome_zarr_of_bioformats_needs_a_scene(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for i in range(2):
        write_zarr(tmp_path / "a.zarr" / str(i), STACK[i:], "0.4", TCZYX[2:], [1000, 1, 1])
    with pytest.raises(ImageError, match=r"found 2 in the folder \(\[0, 1\]\); choose with --scene 0"):
        read_image(tmp_path / "a.zarr")
    assert_reads(tmp_path / "a.zarr", STACK[1:], "ZYX", scene=1)


def test_ome_zarr_with_two_images_needs_a_scene(tmp_path):
    write_zarr(tmp_path / "a.zarr", STACK, "0.5", TCZYX[2:], [1000, 1, 1])
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    ome: Any = group.attrs["ome"]
    first = ome["multiscales"][0]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [first, {**first, "datasets": first["datasets"][1:]}]}
    with pytest.raises(ImageError, match=r"expected the number of one image, found 2 in the folder"):
        read_image(tmp_path / "a.zarr")
    assert_reads(tmp_path / "a.zarr", STACK[:, ::2, ::2], "ZYX", scene=1)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"found a Zarr folder without `multiscales`; give the folder of the image itself"),
        (
            {"plate": {"wells": [{"path": "B/3"}]}},
            r"found a plate of wells; give the path of one of its images, .*/B/3/0",
        ),
        (
            {"multiscales": [{"axes": [], "datasets": []}]},
            r"expected axes and datasets in `multiscales`, found them incomplete",
        ),
        ({"version": "0.6", "multiscales": [{}]}, r"expected OME-Zarr 0\.4 or 0\.5, found version 0\.6; convert it"),
        (
            {"multiscales": [{"axes": [{"name": "x"}], "datasets": [{"path": "../../up"}]}]},
            r"expected an array inside the folder",
        ),
        (
            {"multiscales": [{"axes": [{"name": "x"}], "datasets": [{"path": "s0"}]}]},
            r"expected the array s0, found none",
        ),
    ],
)
def test_ome_zarr_that_is_no_image_is_refused(tmp_path, metadata, message):
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = {"version": "0.5", **metadata}
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.zarr")


def test_ome_zarr_damage_is_named(tmp_path):
    path = tmp_path / "a.zarr"
    write_zarr(path, STACK, "0.5", TCZYX[2:], [1000, 1, 1])
    with pytest.raises(
        ImageError, match=r"expected the folder of an OME-Zarr image, found one of its arrays; give the folder above"
    ):
        read_image(path / "s0")
    image = read_image(path)
    chunk = next(p for p in sorted((path / "s0" / "c").rglob("*")) if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(
        ImageError, match=r"a\.zarr: expected whole chunks around \[0:5, 0:40, 0:50\], found a damaged one"
    ):
        whole(image)
    (path / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"found Zarr metadata that cannot be read"):
        read_image(path)


def test_ome_zarr_with_other_axes_than_its_array_is_refused(tmp_path):
    write_zarr(tmp_path / "a.zarr", STACK, "0.5", TCZYX[3:], [1, 1])
    with pytest.raises(ImageError, match=r"expected an array of 2 axes \(yx\), found shape \(5, 40, 50\)"):
        read_image(tmp_path / "a.zarr")
