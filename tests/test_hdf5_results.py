"""Results as HDF5 and OME-Zarr 0.4: what ilastik reads, read back whole."""

import json

import h5py
import numpy as np
import pytest
import zarr

import forestbridge as fb
from command_line import call
from forestbridge.image import ResultInfo, create_result
from forestbridge.image.writers import FORMATS, result_format
from small_line import CELLS, STACK, small_forest

INFO = {"classes": (1, 7), "names": ("background", "Zellkern ü"), "colours": ("#ff0000", "#00ff80")}
SIZE = {"z": 3.0, "y": 0.5, "x": 0.25}
PROBABILITIES = np.random.default_rng(0).random((2, 2, 3, 40, 30)).astype(np.float32)  # TCZYX


def info_of(axes, shape, dtype):
    return ResultInfo(axes, shape, np.dtype(dtype), SIZE, 2.0, **INFO, provenance={"forest": "a.forest"})


@pytest.mark.parametrize("axes", ["TCZYX", "CZYX", "TCYX", "CYX"])
@pytest.mark.parametrize(("name", "format"), [("p.h5", None), ("p.hdf5", "hdf5"), ("p.ome.zarr", "ome-zarr-0.4")])
def test_probabilities_come_back(tmp_path, axes, name, format):
    array = PROBABILITIES[tuple(slice(None) if a in axes else 0 for a in "TCZYX")]
    with create_result(tmp_path / name, info_of(axes, array.shape, "f4"), format=format) as writer:
        y = axes.index("Y")
        for start in (0, 13, 26):  # blocks across chunks
            region = [slice(0, n) for n in array.shape]
            region[y] = slice(start, min(start + 13, 40))
            writer.write(tuple(region), array[tuple(region)])
        writer.write(
            tuple(slice(39, 40) if i == y else slice(0, n) for i, n in enumerate(array.shape)),
            array[tuple(slice(39, 40) if i == y else slice(None) for i in range(len(axes)))],
        )
    image = fb.read_image(tmp_path / name)
    sizes = dict(zip(axes, array.shape, strict=True))
    assert image.sizes == {**dict.fromkeys("TCZYX", 1), **sizes}
    known = {a: v for a, v in SIZE.items() if a.upper() in image.axes and (a.upper() in axes or "zarr" in name)}
    assert image.pixel_size == known or set(image.pixel_size) == set(SIZE)
    for t, z in image.planes():
        expected = array[tuple({"T": t, "Z": z}.get(a, slice(None)) for a in axes)]
        np.testing.assert_array_equal(image.plane(t, z), expected)


def test_hdf5_is_what_ilastik_writes(tmp_path):
    array = PROBABILITIES[0]
    with create_result(tmp_path / "p.h5", info_of("CZYX", array.shape, "f4")) as writer:
        writer.write(tuple(slice(0, n) for n in array.shape), array)
    with h5py.File(tmp_path / "p.h5", "r") as file:
        dataset = file["exported_data"]
        np.testing.assert_array_equal(dataset, array.transpose(1, 2, 3, 0))  # zyxc
        assert (dataset.compression, dataset.chunks) == ("gzip", (1, 40, 30, 1))
        assert [(a["key"], a["typeFlags"]) for a in json.loads(dataset.attrs["axistags"])["axes"]] == [
            *(("z", 2), ("y", 2), ("x", 2), ("c", 1))
        ]
        assert list(dataset.attrs["DIMENSION_LABELS"]) == list("zyxc") and dataset.attrs["drange"].tolist() == [0, 1]
        np.testing.assert_allclose(dataset.attrs["element_size_um"], [3, 0.5, 0.25])
        facts = json.loads(dataset.attrs["forestbridge"])
    assert facts == {"class 1": "background #ff0000", "class 7": "Zellkern ü #00ff80", "forest": "a.forest"}


def test_labels_have_a_channel_of_length_one(tmp_path):
    labels = np.random.default_rng(0).integers(0, 8, (40, 30)).astype(np.uint8)
    with create_result(tmp_path / "l.h5", info_of("YX", (40, 30), "u1")) as writer:
        writer.write((slice(0, 40), slice(0, 30)), labels)
    with h5py.File(tmp_path / "l.h5", "r") as file:
        np.testing.assert_array_equal(file["exported_data"][..., 0], labels)
        assert "drange" not in file["exported_data"].attrs
    image = fb.read_image(tmp_path / "l.h5")
    assert image.dtype == np.uint8 and image.n_channels == 1


def test_ome_zarr_04_has_five_axes(tmp_path):
    array = PROBABILITIES[0, :, 0]
    with create_result(tmp_path / "p.ome.zarr", info_of("CYX", array.shape, "f4"), format="ome-zarr-0.4") as writer:
        writer.write(tuple(slice(0, n) for n in array.shape), array)
    assert (tmp_path / "p.ome.zarr" / ".zattrs").is_file() and not (tmp_path / "p.ome.zarr" / "zarr.json").exists()
    group = zarr.open_group(tmp_path / "p.ome.zarr", mode="r")
    [scale] = group.attrs["multiscales"]
    assert scale["version"] == "0.4" and scale["name"] == "probabilities"
    assert [(a["name"], a["type"]) for a in scale["axes"]] == [
        *(("t", "time"), ("c", "channel"), ("z", "space"), ("y", "space"), ("x", "space"))
    ]
    assert scale["datasets"] == [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 1.0, 3.0, 0.5, 0.25]}]}
    ]
    assert [c["label"] for c in group.attrs["omero"]["channels"]] == ["background", "Zellkern ü"]
    header = json.loads((tmp_path / "p.ome.zarr" / "0" / ".zarray").read_text())
    assert header["dimension_separator"] == "/" and header["zarr_format"] == 2 and header["shape"] == [1, 2, 1, 40, 30]


def test_the_specification_accepts_ome_zarr_04(tmp_path):
    """ome-zarr-models' own rules for 0.4, on the attributes as they are on the disk."""
    from ome_zarr_models.v04.image import ImageAttrs

    fb.predict(STACK.image, small_forest("stack"), out=tmp_path / "p.ome.zarr", format="ome-zarr-0.4")
    document = json.loads((tmp_path / "p.ome.zarr" / ".zattrs").read_text())
    model = ImageAttrs.model_validate(document)
    assert model.multiscales[0].ndim == 5


@pytest.mark.parametrize(("name", "format"), [("p.h5", None), ("p.ome.zarr", "ome-zarr-0.4")])
def test_nothing_is_left_of_a_result_that_failed(tmp_path, name, format):
    def write(rows: int) -> None:
        with create_result(tmp_path / name, info_of("CYX", (2, 40, 30), "f4"), format=format) as writer:
            writer.write((slice(0, 2), slice(0, 40), slice(0, 30)), np.zeros((2, rows, 30)))

    with pytest.raises(ValueError, match=r"expected a block of \(2, 40, 30\) for the region"):
        write(20)
    assert not list(tmp_path.iterdir())
    write(40)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a.ome.tif", None, "ome-tiff"),
        ("a.tif", None, "imagej-tiff"),
        ("a.h5", None, "hdf5"),
        ("a.ome.zarr", None, "ome-zarr-0.5"),
        ("a.ome.zarr", "ome-zarr-0.4", "ome-zarr-0.4"),
        ("A.HDF5", "hdf5", "hdf5"),
    ],
)
def test_formats(name, format, expected):
    assert result_format(name, format) == expected


def test_formats_that_contradict_the_name():
    with pytest.raises(ValueError, match=r"expected one of the formats ome-tiff, imagej-tiff, .*, found 'hdf6'"):
        result_format("a.h5", "hdf6")
    for format, suffixes in FORMATS.items():
        if ".png" not in suffixes:
            with pytest.raises(
                ValueError, match=rf"expected a result named with .* for the format {format}, found a.png; give"
            ):
                result_format("a.png", format)


def test_command_line(tmp_path):
    np.save(tmp_path / "a.npy", CELLS.image)
    small_forest().save(tmp_path / "a.forest")
    expected = fb.predict(CELLS.image, small_forest())
    for name, words in (("p.h5", ()), ("p.ome.zarr", ("--format", "ome-zarr-0.4")), ("q.h5", ("--format", "hdf5"))):
        ended = call("predict", tmp_path / "a.npy", "--forest", tmp_path / "a.forest", "-o", tmp_path / name, *words)
        assert ended.code == 0, ended.err
        np.testing.assert_array_equal(fb.read_image(tmp_path / name).plane(), expected)
    ended = call(
        "predict", tmp_path / "a.npy", "--forest", tmp_path / "a.forest", "-o", tmp_path / "r.tif", "--format", "hdf5"
    )
    assert ended.code == 2 and "expected a result named with .h5 or .hdf5 for the format hdf5" in ended.err
    ended = call(
        "predict", tmp_path / "p.h5", "--forest", tmp_path / "a.forest", "-o", tmp_path / "p.h5", "--overwrite"
    )
    assert ended.code == 2 and "expected outputs apart from the inputs" in ended.err
