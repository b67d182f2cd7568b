"""Results that cannot be written are refused before they are computed, and nothing half-written is left."""

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from forestbridge.errors import OutputExistsError, ResourceError
from forestbridge.image import create_result, write_labels, write_probabilities
from forestbridge.image.mapped_results import create_imagej_tiff
from results import CLASSES, LABELS, PROBABILITIES, WITH_AXES, info_of, whole


@pytest.mark.parametrize(
    ("name", "info", "message"),
    [
        (
            "p.png",
            info_of("CYX", (2, 4, 5), "f4"),
            r"one plane of labels up to 255 for a PNG, found axes CYX of float32",
        ),
        ("l.png", info_of("ZYX", (2, 4, 5), "u1"), r"one plane of labels up to 255 for a PNG, found axes ZYX of uint8"),
        ("l.png", info_of("YX", (4, 5), "u2"), r"one plane of labels up to 255 for a PNG, found axes YX of uint16"),
        (
            "l.tif",
            info_of("YX", (4, 5), "u8"),
            r"uint8, uint16 or float32 pixels, which ImageJ opens, found uint64; write \.ome",
        ),
        (
            "l.ome.tif",
            info_of("YX", (4, 5), "u8"),
            r"up to 32 bits, which OME-TIFF has, found uint64; write \.ome\.zarr",
        ),
        ("l.gif", info_of("YX", (4, 5), "u1"), r"named with one of \.ome\.tif, .*\.png, found .*l\.gif; add a suffix"),
        (".tif", info_of("YX", (4, 5), "u1"), r"named with one of"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused(tmp_path, name, info, message):
    with pytest.raises(ValueError, match=message), create_result(tmp_path / name, info):
        pass
    assert list(tmp_path.iterdir()) == []


def test_planes_beyond_imagej_tiff_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"less than 4 GB, which an ImageJ TIFF holds, found 1600000000 pixels of float32"
    ):
        create_imagej_tiff(tmp_path / "p.tif", info_of("YX", (40_000, 40_000), "f4"))


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".ome.tif", ".nrrd"])
def test_a_disk_too_small_is_refused_before_anything_is_computed(tmp_path, suffix):
    info = info_of("ZYX", (2_000_000, 20_000, 20_000), "u1")  # 800 TB
    with (
        pytest.raises(ResourceError, match=r"GiB of free space for .*, found .* GiB; make room"),
        create_result(tmp_path / f"a{suffix}", info),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.ENOSPC, ResourceError, r"room on the disk for .*a\.npy, found it full \(No space left"),
        (errno.EIO, OSError, r"Input/output"),
    ],
)
def test_a_disk_that_fills_up_is_named(tmp_path, number, error, message):
    info = info_of("YX", (4, 5), "u1")
    with pytest.raises(error, match=message), create_result(tmp_path / "a.npy", info):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("suffix", [*WITH_AXES, ".npy", ".nrrd", ".png"])
def test_an_existing_result_is_kept_unless_asked(tmp_path, suffix):
    path = tmp_path / f"l{suffix}"
    plane = LABELS[0, 0]
    write_labels(path, plane, **CLASSES)
    with pytest.raises(OutputExistsError, match=rf"found that .*l{re.escape(suffix)} exists; .*--overwrite"):
        write_labels(path, plane, **CLASSES)
    write_labels(path, plane[::-1], overwrite=True, **CLASSES)
    if suffix != ".png":
        np.testing.assert_array_equal(whole(path), plane[::-1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_folders_of_other_things_are_never_replaced(tmp_path):
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr" / "thesis.txt").write_text("dear")
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(
        OutputExistsError, match=r"expected a Zarr folder to overwrite, found that .* is another folder"
    ):
        write_labels(tmp_path / "a.ome.zarr", LABELS[0, 0], overwrite=True, **CLASSES)
    with pytest.raises(OutputExistsError, match=r"expected a file to overwrite, found that .*a\.tif is a folder"):
        write_labels(tmp_path / "a.tif", LABELS[0, 0], overwrite=True, **CLASSES)
    assert (tmp_path / "a.ome.zarr" / "thesis.txt").read_text() == "dear"


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ResourceError, match=r"expected the folder .*nowhere for l\.tif, found none; make it first"):
        write_labels(tmp_path / "nowhere" / "l.tif", LABELS[0, 0], **CLASSES)


@pytest.mark.parametrize("suffix", [*WITH_AXES, ".npy", ".nrrd", ".png"])
@pytest.mark.parametrize("old", [False, True])
def test_nothing_is_left_after_an_error(tmp_path, suffix, old):
    path = tmp_path / f"l{suffix}"
    if old:
        write_labels(path, LABELS[0, 0], **CLASSES)
    before = sorted(tmp_path.rglob("*"))
    info = info_of("YX", (40, 30), "u1")

    def stop_in_the_middle():
        with create_result(path, info, overwrite=True) as writer:
            writer.write((slice(0, 20), slice(0, 30)), np.ones((20, 30), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    assert sorted(tmp_path.rglob("*")) == before


def test_pixels_that_nobody_wrote_are_noticed(tmp_path):
    info = info_of("YX", (40, 30), "u1")
    message = r"expected all 1200 pixels of the result to be written, found 600"
    with pytest.raises(ValueError, match=message), create_result(tmp_path / "l.npy", info) as writer:
        writer.write((slice(0, 20), slice(0, 30)), np.ones((20, 30)).astype(int))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("region", "block", "message"),
    [
        ((slice(0, 4), slice(0, 6)), np.zeros((4, 6), int), r"expected a region inside the result \(4, 5\)"),
        ((slice(-1, 4), slice(0, 5)), np.zeros((1, 5), int), r"expected a region inside the result \(4, 5\)"),
        ((slice(0, 4),), np.zeros(4, int), r"expected a region inside the result \(4, 5\)"),
        ((slice(0, 4, 2), slice(0, 5)), np.zeros((2, 5), int), r"expected a region inside the result \(4, 5\)"),
        (
            (slice(0, 4), slice(0, 5)),
            np.zeros((5, 4), int),
            r"expected a block of \(4, 5\) for the region .*found \(5, 4\)",
        ),
        ((slice(0, 4), slice(0, 5)), np.full((4, 5), 256), r"expected values that fit uint8, found a block of int64"),
        ((slice(0, 4), slice(0, 5)), np.full((4, 5), -1), r"expected values that fit uint8, found a block of int64"),
        ((slice(0, 4), slice(0, 5)), np.zeros((4, 5)), r"expected values that fit uint8, found a block of float64"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, region, block, message):
    with create_result(tmp_path / "l.npy", info_of("YX", (4, 5), "u1")) as writer:
        with pytest.raises(ValueError, match=message):
            writer.write(region, block)
        writer.write((slice(None), slice(None)), np.zeros((4, 5), bool))


def test_complex_blocks_are_refused(tmp_path):
    with create_result(tmp_path / "u.npy", info_of("YX", (4, 5), "f4")) as writer:
        with pytest.raises(ValueError, match=r"expected values that fit float32, found a block of complex128"):
            writer.write((slice(0, 4), slice(0, 5)), np.zeros((4, 5), complex))
        writer.write((slice(0, 4), slice(0, 5)), np.zeros((4, 5)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": "XY"}, r"axes as a subset of TCZYX in this order with Y and X, found 'XY'"),
        ({"shape": (4,)}, r"a positive length for each of the axes YX, found shape \(4,\)"),
        ({"shape": (4, 0)}, r"a positive length for each of the axes YX, found shape \(4, 0\)"),
        ({"names": ("a",)}, r"a name and a colour for each class, found 2 classes, 1 names and 2 colours"),
        ({"colours": ("red", "#00ff00")}, r"expected colours as #rrggbb, found \['red'\]"),
        ({"axes": "CYX", "shape": (3, 4, 5), "dtype": "f4"}, r"expected a class axis of length 2, found 3"),
        ({"axes": "CYX", "shape": (2, 4, 5)}, r"expected labels without a class axis, found axes CYX of uint8"),
    ],
)
def test_what_stands_beside_the_pixels_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        info_of(**{"axes": "YX", "shape": (4, 5), "dtype": "u1", **changes})


def test_conveniences_refuse_doubtful_arrays(tmp_path):
    with pytest.raises(ValueError, match=r"expected axes for an array of shape \(3, 40, 30\), found none; name them"):
        write_labels(tmp_path / "l.tif", LABELS[0], **CLASSES)
    with pytest.raises(ValueError, match=r"expected axes for an array of shape \(2, 3, 40, 30\), found none"):
        write_probabilities(tmp_path / "p.tif", PROBABILITIES[0], **CLASSES)
    with pytest.raises(ValueError, match=r"expected labels 0 and 1, 7, found \[2\]"):
        write_labels(tmp_path / "l.tif", np.full((4, 5), 2), **CLASSES)


def test_a_large_result_takes_little_memory(tmp_path):
    script = (
        "import resource, sys, numpy as np\nfrom forestbridge.image import ResultInfo, create_result\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "info = ResultInfo('CYX', (2, 6000, 6000), 'f4', {}, None, (1, 2), ('a', 'b'), ('#ff0000', '#00ff00'))\n"
        "block = np.ones((2, 500, 6000), np.float32); before = peak()\n"
        "with create_result(sys.argv[1], info) as writer:\n"
        "    for y in range(0, 6000, 500): writer.write((slice(0, 2), slice(y, y + 500), slice(0, 6000)), block)\n"
        "print((peak() - before) // 1024)"
    )
    for name in ("p.tif", "p.ome.zarr"):
        run = [sys.executable, "-c", script, str(tmp_path / name)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 150  # MiB; the result has 275
