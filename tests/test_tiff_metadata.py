"""What TIFF files say beside their pixels: sizes, names, scenes; and what their axes are, which is never guessed."""

import numpy as np
import pytest
import tifffile

from forestbridge.errors import ImageError
from forestbridge.image import read_image
from image_files import PLANE, RGB, SERIES, STACK, assert_reads


def test_imagej_hyperstack(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        SERIES.transpose(0, 2, 1, 3, 4),
        imagej=True,
        resolution=(4, 2),
        metadata={
            "axes": "TZCYX",
            "unit": "um",
            "spacing": 2.0,
            "finterval": 0.5,
            "Labels": ["DAPI", "GFP", "RFP"] * 8,
        },
    )
    image = assert_reads(tmp_path / "a.tif", SERIES, "TCZYX")
    assert image.pixel_size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert image.frame_interval == 0.5
    assert image.channel_names == ("DAPI", "GFP", "RFP")


@pytest.mark.parametrize(
    ("unit", "factor"), [("micron", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("inch", 25400)]
)
def test_imagej_units(tmp_path, unit, factor):
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": unit, "spacing": 3}
    )
    assert read_image(tmp_path / "a.tif").pixel_size == pytest.approx(
        {"z": 3 * factor, "y": factor / 2, "x": factor / 2}
    )


@pytest.mark.parametrize("unit", ["pixel", ""])
def test_imagej_without_a_unit_has_no_pixel_size(tmp_path, unit):
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": unit, "spacing": 3}
    )
    assert read_image(tmp_path / "a.tif").pixel_size == {}


def test_imagej_slice_labels_are_no_channel_names(tmp_path):
    labels = [f"slice {i}" for i in range(24)]
    tifffile.imwrite(
        tmp_path / "a.tif", SERIES.transpose(0, 2, 1, 3, 4), imagej=True, metadata={"axes": "TZCYX", "Labels": labels}
    )
    assert read_image(tmp_path / "a.tif").channel_names == ()


def test_imagej_rgb_stack(tmp_path):
    stack = np.stack([RGB, RGB[::-1]])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, photometric="rgb", metadata={"axes": "ZYXS"})
    assert_reads(tmp_path / "a.tif", stack.transpose(3, 0, 1, 2), "CZYX")


def test_imagej_stack_of_channels_only(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "CYX"})
    assert_reads(tmp_path / "a.tif", STACK, "CYX")


def test_grey_values_with_a_lookup_table_are_intensities(tmp_path):
    table = np.stack([np.arange(256)] * 3).astype(np.uint16) * 256
    tifffile.imwrite(tmp_path / "a.tif", PLANE, imagej=True, colormap=table)
    assert_reads(tmp_path / "a.tif", PLANE, "YX")


def test_ome_tiff(tmp_path):
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm",
        "TimeIncrement": 2, "TimeIncrementUnit": "min", "Channel": {"Name": ["DAPI", "GFP", "größe"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", SERIES, metadata=metadata, photometric="minisblack", tile=(16, 16))
    image = assert_reads(tmp_path / "a.ome.tif", SERIES, "TCZYX")
    assert image.pixel_size == {"z": 2.0, "y": 0.5, "x": 0.25}
    assert image.frame_interval == 120
    assert image.channel_names == ("DAPI", "GFP", "größe")


def test_ome_tiff_in_another_order_without_sizes(tmp_path):
    stored = SERIES.transpose(2, 1, 0, 3, 4)  # (Z, C, T, Y, X)
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, metadata={"axes": "ZCTYX"}, photometric="minisblack")
    image = assert_reads(tmp_path / "a.ome.tif", SERIES, "TCZYX")
    assert (image.pixel_size, image.frame_interval, image.channel_names) == ({}, None, ())


def test_ome_tiff_keeps_no_axes_of_length_1(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE[None, None], metadata={"axes": "CZYX"}, photometric="minisblack")
    assert_reads(tmp_path / "a.ome.tif", PLANE, "YX")


@pytest.mark.parametrize("multifile_part", [0, 1])
def test_ome_tiff_in_two_files(tmp_path, multifile_part):
    names = ["a.ome.tif", "b.ome.tif"]
    uuids = [f"urn:uuid:0000000{i}-0000-0000-0000-000000000000" for i in range(2)]
    data = "".join(
        f'<TiffData FirstZ="{i}" IFD="0" PlaneCount="1"><UUID FileName="{n}">{u}</UUID></TiffData>'
        for i, (n, u) in enumerate(zip(names, uuids))
    )
    for name, uuid, plane in zip(names, uuids, STACK):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            'SizeX="50" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / name, plane, description=xml, metadata=None)
    assert_reads(tmp_path / names[multifile_part], STACK[:2], "ZYX")
    (tmp_path / names[1 - multifile_part]).unlink()
    with pytest.raises(ImageError, match=r"expected 2 planes of an image \(2, 40, 50\), found 1: .* other files"):
        read_image(tmp_path / names[multifile_part])


@pytest.mark.parametrize(
    ("unit", "per_unit", "size"),
    [
        ("CENTIMETER", 20000, 0.5),
        ("INCH", 25400, 1.0),
        ("INCH", 300, None),
        ("INCH", 72, None),
        ("NONE", 2, None),
        ("NONE", 1, None),
    ],
)
def test_resolution_tags_count_where_the_unit_is_real(tmp_path, unit, per_unit, size):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(per_unit, per_unit), resolutionunit=unit)
    assert read_image(tmp_path / "a.tif").pixel_size == ({} if size is None else {"y": size, "x": size})


def test_several_images_need_a_scene(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(PLANE, metadata={"Name": "first", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0})
        tif.write(STACK, metadata={"axes": "ZYX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 2.0}, photometric="minisblack")
    with pytest.raises(
        ImageError, match=r"found 2 images in the file \(0: first 70x90, 1: .* 5x40x50\); choose with --scene 0"
    ):
        read_image(tmp_path / "a.ome.tif")
    image = assert_reads(tmp_path / "a.ome.tif", STACK, "ZYX", scene=1)
    assert image.pixel_size == {"y": 2.0, "x": 2.0}
    with pytest.raises(ImageError, match=r"expected a scene from 0 to 1, found 2 images"):
        read_image(tmp_path / "a.ome.tif", scene=2)


def test_a_pyramid_is_one_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(PLANE, subifds=1, tile=(16, 16))
        tif.write(PLANE[::2, ::2], subfiletype=1, tile=(16, 16))
    assert_reads(tmp_path / "a.ome.tif", PLANE, "YX")


@pytest.mark.parametrize("metadata", [{}, None])
def test_pages_without_a_word_need_axes(tmp_path, metadata):
    tifffile.imwrite(tmp_path / "a.tif", STACK[:3], photometric="minisblack", metadata=metadata)
    message = r'a\.tif: expected axes .*shape \(3, 40, 50\).*--axes ZYX or --axes TYX or --axes CYX \(axes="ZYX"'
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.tif")
    for axes in ("ZYX", "TYX", "CYX"):
        assert_reads(tmp_path / "a.tif", STACK[:3], axes, axes=axes)


def test_axes_replace_what_the_file_says(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX", "Labels": list("abcde")})
    assert_reads(tmp_path / "a.tif", STACK, "TYX", axes="tyx")
    assert read_image(tmp_path / "a.tif", axes="CYX").n_channels == 5


def test_colour_pages_need_only_the_first_letter(tmp_path):
    stack = np.stack([RGB] * 4)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", metadata=None)
    with pytest.raises(ImageError, match=r"--axes ZYXS or --axes TYXS \(axes"):
        read_image(tmp_path / "a.tif")
    assert_reads(tmp_path / "a.tif", stack.transpose(0, 3, 1, 2), "TCYX", axes="TYXS")
    with pytest.raises(
        ImageError, match=r"expected C or S for the colour samples .*dimension 4 of \(4, 50, 60, 3\).*found 'CYXZ'"
    ):
        read_image(tmp_path / "a.tif", axes="CYXZ")


def test_five_dimensions_without_a_word_need_axes(tmp_path):
    np.save(tmp_path / "a.npy", SERIES)
    with pytest.raises(
        ImageError, match=r"shape \(2, 3, 4, 20, 30\) and no word about what they are; say it with --axes"
    ):
        read_image(tmp_path / "a.npy")
    assert_reads(tmp_path / "a.npy", SERIES, "TCZYX", axes="TCZYX")


@pytest.mark.parametrize("axes", ["YX", "ZZYX", "QYX", "TZC", "ZYXS", ""])
def test_axes_that_do_not_fit_are_refused(tmp_path, axes):
    np.save(tmp_path / "a.npy", STACK)
    message = (
        rf"3 different letters of T \(time\), C or S .*each dimension of \(5, 40, 50\), found '{axes}'; .*--axes ZYX"
    )
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.npy", axes=axes)


def test_channels_and_samples_together_are_refused(tmp_path):
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", metadata={"axes": "CYXS"})
    with pytest.raises(ImageError, match=r"expected one axis of channels, found channels and samples \(CYXS"):
        read_image(tmp_path / "a.ome.tif")
