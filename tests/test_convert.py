"""Label images into other dtypes and formats, and the values of single pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import call
from forestbridge.image.result_facts import read_result_facts
from forestbridge.objects.labelled import open_labelled
from small_encoders import local_encoder

RNG = np.random.default_rng(0)


def pixels_of(path: Path) -> np.ndarray:
    image = open_labelled(path)
    return np.stack([image.plane(t, z)[0] for t, z in image.planes()])


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr", ".h5", ".npy", ".png"])
def test_classes_keep_values_names_and_sizes(suffix: str, tmp_path: Path) -> None:
    labels = RNG.choice([1, 7], (20, 30)).astype(np.uint8)
    names, colours = ("background", "nucleus"), ("#102030", "#ff0000")
    source = fb.write_labels(
        tmp_path / "a.tif", labels, classes=(1, 7), names=names, colours=colours, pixel_size={"y": 0.5, "x": 0.25}
    )
    out = fb.convert_labels(source, tmp_path / f"b{suffix}", dtype=None if suffix == ".png" else "uint16")
    assert np.array_equal(pixels_of(out)[0], labels)
    if suffix not in (".npy", ".png"):
        assert open_labelled(out).dtype == np.uint16
        size = open_labelled(out).pixel_size
        assert (size["y"], size["x"]) == pytest.approx((0.5, 0.25))
        assert read_result_facts(out).names == {1: "background", 7: "nucleus"}
        assert read_result_facts(out).colours == {1: "#102030", 7: "#ff0000"}


@pytest.mark.parametrize(("largest", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65536, "uint32")])
def test_smallest_dtype(largest: int, dtype: str, tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 9, 9), np.int64)
    labels[1, 2, 3, 4] = largest
    out = fb.convert_labels(labels, tmp_path / "b.ome.tif")
    assert tifffile.imread(out).dtype == dtype
    assert np.array_equal(tifffile.imread(out), labels)


def test_imagej_has_floats_for_32_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 70_000], [1, 2]])
    out = fb.convert_labels(labels, tmp_path / "b.tif")
    assert tifffile.imread(out).dtype == np.float32
    assert np.array_equal(pixels_of(fb.convert_labels(out, tmp_path / "c.ome.tif"))[0], labels)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 300, np.uint16))
    ended = call("convert", str(tmp_path / "a.tif"), "-o", str(tmp_path / "b.tif"), "--dtype", "uint8")
    assert ended.code != 0
    assert "expected labels up to 255 for uint8, found 300; choose uint16 (--dtype)" in ended.err
    assert not (tmp_path / "b.tif").exists()
    tifffile.imwrite(tmp_path / "p.tif", np.full((4, 4), 0.5, np.float32))
    assert (
        "expected whole numbers as labels"
        in call("convert", str(tmp_path / "p.tif"), "-o", str(tmp_path / "b.tif")).err
    )
    with pytest.raises(ValueError, match="expected one of uint8, uint16, uint32, found 'int8'"):
        fb.convert_labels(np.zeros((4, 4), np.uint8), tmp_path / "b.tif", dtype="int8")  # type: ignore[arg-type]


def test_folders_and_dry_runs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", np.eye(5, dtype=np.uint16))
    planned = call("convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--suffix", ".npy", "--dry-run")
    assert planned.out.count("would write") == 2
    assert not (tmp_path / "out").exists()
    ended = call("convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--suffix", ".npy", "--json")
    assert [Path(p).name for p in json.loads(ended.out)["outputs"]] == ["a.npy", "b.npy"]
    assert np.load(tmp_path / "out" / "a.npy").dtype == np.uint8


def at(path: Path, *place: int) -> dict:
    ended = call("info", str(path), "--at", *map(str, place), "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_value_of_a_pixel(tmp_path: Path) -> None:
    image = RNG.integers(0, 60_000, (2, 3, 5, 6)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX"})
    assert at(tmp_path / "a.tif", 1, 4, 5) == {"Z": 1, "Y": 4, "X": 5, "values": image[1, :, 4, 5].tolist()}
    labels = np.array([[1, 2], [2, 1]], np.uint8)
    fb.write_labels(tmp_path / "l.tif", labels, classes=(1, 2), names=("sky", "sea"), colours=("#000000", "#ffffff"))
    assert at(tmp_path / "l.tif", 0, 1) == {"Y": 0, "X": 1, "values": [2], "class": "sea"}
    encoder = local_encoder(2)
    fb.extract(image[0, 0], encoder, tmp_path / "a.features.ome.zarr")
    found = at(tmp_path / "a.features.ome.zarr", 2, 3)["values"]
    assert list(found) == ["local 0", "local 1"]
    assert found["local 0"] == image[0, 0, 2, 3]


@pytest.mark.parametrize("place", [(5, 0), (0, 6), (1,), (0, 0, 0)])
def test_no_such_pixel(place: tuple[int, ...], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6), np.uint8))
    ended = call("info", str(tmp_path / "a.tif"), "--at", *map(str, place))
    assert ended.code != 0
    assert f"expected --at Y X inside Y=5 X=6, found {' '.join(map(str, place))}; count from 0" in ended.err
