"""HDF5 images: which dataset, which axes, any region; and files that lead elsewhere or are damaged."""

import json

import h5py
import numpy as np
import pytest

import forestbridge as fb
from forestbridge.errors import ImageError
from forestbridge.image import base_name, check_distinct_names
from forestbridge.image.axistags import axes_of_tags, resolutions_of_tags, tags_of_axes
from forestbridge.image.hdf5 import split_internal
from ilp_files import tags, write_ilp

ARRAY = np.random.default_rng(0).integers(0, 1000, (3, 4, 50, 60, 2)).astype(np.uint16)  # tzyxc


def write(path, array=ARRAY, *, name="exported_data", attributes=None, **options):
    """Write one dataset."""
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=array, **options).attrs.update(attributes or {})
    return path


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (1, 2, 16, 17, 1)}, {"chunks": (2, 4, 50, 7, 2), "compression": "gzip"}]
)
def test_regions_are_those_of_the_array(tmp_path, options):
    path = write(tmp_path / "a.h5", attributes={"axistags": tags("tzyxc")}, **options)
    image = fb.read_image(path)
    assert (image.axes, image.shape, image.dtype) == ("TCZYX", (3, 2, 4, 50, 60), np.uint16)
    np.testing.assert_array_equal(image.plane(t=2, z=1), ARRAY[2, 1].transpose(2, 0, 1))
    region = image.region((slice(1, 3), slice(10, 33), slice(5, 60)), t=1)
    np.testing.assert_array_equal(region, ARRAY[1, 1:3, 10:33, 5:60].transpose(3, 0, 1, 2))


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<i4", ">f4", "f8", "?"])
def test_dtypes(tmp_path, dtype):
    array = ARRAY[0, 0, :, :, 0].astype(dtype)
    image = fb.read_image(write(tmp_path / "a.h5", array))
    assert image.axes == "YX" and image.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(image.plane()[0], array)


def test_axes_come_from_tags_labels_or_the_user(tmp_path):
    path = write(tmp_path / "a.h5", attributes={"DIMENSION_LABELS": np.array(list("tzyxc"), dtype=object)})
    assert fb.read_image(path).sizes == {"T": 3, "C": 2, "Z": 4, "Y": 50, "X": 60}
    path = write(tmp_path / "b.h5", ARRAY[0, 0], attributes={"axistags": "no JSON"})
    with pytest.raises(ImageError, match=r"expected axes with a name, found shape \(50, 60, 2\) .* --axes"):
        fb.read_image(path)
    assert fb.read_image(path, axes="yxc").axes == "CYX"


def test_a_dataset_is_chosen_by_its_path(tmp_path):
    path = write(tmp_path / "a.h5", ARRAY[0, 0, ..., 0], name="volume/raw")
    assert fb.read_image(path).source == str(path)
    write(path, ARRAY[0, 0, ..., 1], name="other")
    with pytest.raises(ImageError, match=r"found 2 image\(s\) in the file; give .*a.h5/other or .*a.h5/volume/raw"):
        fb.read_image(path)
    image = fb.read_image(path / "volume" / "raw")
    np.testing.assert_array_equal(image.plane()[0], ARRAY[0, 0, ..., 0])
    assert image.source == f"{path}/volume/raw"
    with pytest.raises(
        ImageError, match=r"expected an image at volume/gone, found none; the file holds other, volume/raw"
    ):
        fb.read_image(path / "volume" / "gone")


def test_files_without_an_image(tmp_path):
    write(tmp_path / "a.h5", np.zeros(5))
    with pytest.raises(
        ImageError, match=r"found no image\(s\) in the file; give a file with a dataset of 2 to 5 dimensions"
    ):
        fb.read_image(tmp_path / "a.h5")
    write(tmp_path / "a.h5", np.array([[b"a"]]), name="texts")
    with pytest.raises(ImageError, match=r"expected an image of 2 to 5 dimensions of numbers at texts, found .S1"):
        fb.read_image(tmp_path / "a.h5" / "texts")
    path = write_ilp(tmp_path / "p.ilp", ARRAY[0, 0])
    with pytest.raises(
        ImageError, match=r"expected an image, found an ilastik project; give an image, and the project with"
    ):
        fb.read_image(path)
    assert fb.read_image(path / "Input Data/local_data/an-id").axes == "CYX"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"element_size_um": [2.0, 0.5, 0.25]}, {"z": 2.0, "y": 0.5, "x": 0.25}),
        (
            {
                "axistags": tags_of_axes("tzyxc", {"z": 2000, "x": 250}),
                "axis_units": json.dumps({"z": "nm", "x": "nm", "y": ""}),
            },
            {"z": 2.0, "x": 0.25},
        ),
        ({"axistags": tags_of_axes("tzyxc", {"x": 3})}, {}),  # a number without a unit says nothing
        ({"element_size_um": [0, -1, np.nan]}, {}),
        ({"axis_units": "no JSON"}, {}),
    ],
)
def test_pixel_size(tmp_path, attributes, expected):
    path = write(tmp_path / "a.h5", attributes={"axistags": tags("tzyxc"), **attributes})
    assert fb.read_image(path).pixel_size == expected


def test_nothing_outside_the_file_is_read(tmp_path):
    other = write(tmp_path / "other.h5", ARRAY[0, 0, ..., 0], name="x")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["link"], file["soft"] = h5py.ExternalLink(str(other), "x"), h5py.SoftLink("/real")
        file["real"] = ARRAY[0, 0, ..., 1]
        file["group/itself"] = file["/"]  # a group that contains itself
    np.testing.assert_array_equal(fb.read_image(path).plane()[0], ARRAY[0, 0, ..., 1])
    for name in ("link", "soft"):
        with pytest.raises(ImageError, match=rf"expected what the file holds itself at /{name}, found a link"):
            fb.read_image(path / name)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (50, 60), np.uint8, external=[(str(other), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(ImageError, match=r"found a dataset whose values lie in another file"):
        fb.read_image(path)


def test_damage_is_told(tmp_path):
    path = write(tmp_path / "a.h5", ARRAY[0, 0, ..., 0], chunks=(10, 60), compression="gzip")
    image = fb.read_image(path)
    with h5py.File(path, "r") as file:
        chunk = file["exported_data"].id.get_chunk_info(2)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * 20)
    image = fb.read_image(path)
    with pytest.raises(
        ImageError, match=r"expected whole pixels in exported_data around \[20:30, 0:60\], found damaged ones"
    ):
        image.plane()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ImageError, match=r"expected an HDF5 image \(an HDF5 file\), found a file that cannot be opened as such"
    ):
        fb.read_image(path)


def test_a_file_that_changes_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", ARRAY[0, 0, ..., 0])
    image = fb.read_image(path)
    path.unlink()
    write(path, ARRAY[0, 0, :20, ..., 0])
    with pytest.raises(ImageError, match=r"expected the file as it was when it was opened"):
        image.plane()


def test_names_of_datasets(tmp_path):
    path = write(tmp_path / "a.h5", ARRAY[0, 0, ..., 0], name="volume/raw")
    assert split_internal(path / "volume/raw") == (str(path), "volume/raw")
    assert split_internal(path) == (str(path), None)
    assert split_internal(tmp_path / "gone.h5" / "x") == (str(tmp_path / "gone.h5" / "x"), None)
    (tmp_path / "folder.h5").mkdir()
    assert split_internal(tmp_path / "folder.h5" / "x") == (str(tmp_path / "folder.h5" / "x"), None)
    assert base_name(path / "volume/raw") == "a-volume-raw" and base_name(path) == "a"
    check_distinct_names([path / "volume/raw", path / "volume/other"])


def test_axistags():
    assert axes_of_tags(tags("tzyxc")) == "tzyxc"
    for text in (
        None,
        "",
        "{}",
        "[]",
        '{"axes": 3}',
        '{"axes": [{"key": "q"}]}',
        '{"axes": [{"key": "x"}, {"key": "x"}]}',
    ):
        assert axes_of_tags(text) is None
    assert json.loads(tags_of_axes("yxc")) == json.loads(tags("yxc"))
    assert resolutions_of_tags(tags_of_axes("zyx", {"z": 2.5})) == {"z": 2.5} and resolutions_of_tags("[]") == {}
