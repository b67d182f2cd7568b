"""Label files that are missing, cut off, damaged or of another kind: what is said about each of them."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

from forestbridge.errors import LabelError
from forestbridge.labels import read_scribbles

FLAT = np.zeros((20, 30), np.uint8)
FLAT[2, 3:9], FLAT[10:12, 20:25] = 1, 2


def test_no_file():
    with pytest.raises(ValueError, match=r"expected at least one label file, found none"):
        read_scribbles([])


def test_paths_that_are_no_label_files(tmp_path):
    with pytest.raises(LabelError, match=r"missing.tif: expected a label file, found nothing there; check the path"):
        read_scribbles(tmp_path / "missing.tif")
    with pytest.raises(
        LabelError, match=r"expected a label file or an OME-Zarr folder, found another folder; give the file itself"
    ):
        read_scribbles(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(
        LabelError,
        match=r"expected labels as .tif, .tiff, .png, .npy, .zarr, .geojson, .* found .jpg; save them as TIFF",
    ):
        read_scribbles(tmp_path / "a.jpg")
    (tmp_path / "a.zarr").write_bytes(b"x")
    with pytest.raises(LabelError, match=r"a.zarr: expected an OME-Zarr folder, found a file; unpack it first"):
        read_scribbles(tmp_path / "a.zarr")
    for name in ("a.tif", "a.png", "a.npy", "a.geojson", "a.roi", "a.zip"):
        (tmp_path / name).touch()
        with pytest.raises(LabelError, match=rf"{name}: expected a label file, found an empty one"):
            read_scribbles(tmp_path / name, shape=(20, 30))


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "a\0.tif"])
def test_paths_that_cannot_be_read(tmp_path, name):
    """Also what a file says that may not be read, which a test that runs as root cannot make."""
    with pytest.raises(LabelError, match=r"expected a label file that can be read, found none \(.*\); check the path"):
        read_scribbles(tmp_path / name)


@pytest.mark.parametrize("name", ["a b#c%20.tif", "ü" * 100 + ".tif"])
def test_paths_that_can_be_read(tmp_path, name):
    tifffile.imwrite(tmp_path / name, FLAT)
    assert read_scribbles(tmp_path / name).source == name


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
@pytest.mark.parametrize("part", [0.99, 0.8, 0.5, 0.2, 0.02])
def test_cut_tiff(tmp_path, kind, compression, part):
    rng = np.random.default_rng(0)
    stack = rng.integers(1, 3, (8, 64, 64), np.uint8)
    options = {
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
        "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    }
    default = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", stack, compression=compression, **options.get(kind, default))
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: int(part * len(content))])
    try:
        read_scribbles(tmp_path / "cut.tif")
    except LabelError as error:
        assert "cut.tif" in str(error)  # noqa: PT017 (the one case below gives no error)
        assert "copy or export it again" in str(error)  # noqa: PT017
    else:
        # the end of an OME-TIFF may be its description only: all planes are there, their axes are not
        assert kind == "ome" and part == 0.99


def test_tiff_with_several_images_and_colours(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(FLAT, metadata=None)
        writer.write(FLAT[:8, :8], metadata=None)
    with pytest.raises(
        LabelError, match=r"expected the number of one image, found 2 images .*; save the labels in a file of their own"
    ):
        read_scribbles(tmp_path / "two.tif")
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([FLAT] * 3, axis=-1), photometric="rgb")
    with pytest.raises(
        LabelError, match=r"rgb.tif: expected one integer per pixel, found colours \(RGB\) of the shape \(20, 30, 3\)"
    ):
        read_scribbles(tmp_path / "rgb.tif")


def test_pngs_that_are_no_labels(tmp_path):
    Pillow.fromarray(np.stack([FLAT] * 3, axis=-1)).save(tmp_path / "rgb.png")
    with pytest.raises(
        LabelError,
        match=r"rgb.png: expected one integer per pixel, found colours \(RGB\); paint class numbers .* palette",
    ):
        read_scribbles(tmp_path / "rgb.png")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for part in (0.9, 0.5, 0.1, 0.01):
        (tmp_path / "cut.png").write_bytes(content[: int(part * len(content))])
        with pytest.raises(LabelError, match=r"cut.png: expected a whole PNG, found one that ends early or is damaged"):
            read_scribbles(tmp_path / "cut.png")


def test_npys_that_are_no_labels(tmp_path):
    np.save(tmp_path / "a.npy", FLAT)
    content = (tmp_path / "a.npy").read_bytes()
    for part in (0.99, 0.5, 0.05):
        (tmp_path / "cut.npy").write_bytes(content[: int(part * len(content))])
        with pytest.raises(LabelError, match=r"cut.npy: expected"):
            read_scribbles(tmp_path / "cut.npy")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(LabelError, match=r"o.npy: expected an array of numbers, found object"):
        read_scribbles(tmp_path / "o.npy")


def test_zarrs_that_are_no_labels(tmp_path):
    root = zarr.open_group(tmp_path / "a.ome.zarr", mode="w")
    with pytest.raises(
        LabelError, match=r"a.ome.zarr: expected an OME-Zarr image, found a Zarr folder without `multiscales`"
    ):
        read_scribbles(tmp_path / "a.ome.zarr")
    labels = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": ["a", "b"]}})
    message = r"expected an image with one label image, found \['a', 'b'\]; give the path of the label itself, such as"
    with pytest.raises(LabelError, match=message):
        read_scribbles(tmp_path / "a.ome.zarr")
    multiscale = {
        "axes": [{"name": a, "type": "space"} for a in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": []}],
    }
    bad = {"version": "0.5", "multiscales": [multiscale], "image-label": {"colors": [{"rgba": [1, 2, 3]}]}}
    labels.create_group("a", attributes={"ome": bad}).create_array("0", data=FLAT)
    with pytest.raises(
        LabelError, match=r"a: expected 'colors' and 'properties' of OME-Zarr in image-label, found others"
    ):
        read_scribbles(tmp_path / "a.ome.zarr" / "labels" / "a")
    (tmp_path / "a.ome.zarr" / "zarr.json").write_text("{")
    with pytest.raises(
        LabelError, match=r"a.ome.zarr: expected an OME-Zarr label image, found Zarr metadata that cannot be read"
    ):
        read_scribbles(tmp_path / "a.ome.zarr")
