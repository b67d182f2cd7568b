"""Outlines of objects: filled again they are the label image, pixel by pixel, also after a way through ImageJ ROIs and GeoJSON."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import forestbridge as fb
from command_line import call, done
from forestbridge.labels.geojson import read_geojson
from forestbridge.labels.imagej_roi import read_rois
from forestbridge.labels.shapes import Shape, shape_pixels
from forestbridge.objects.outlines import outlines


def blobs(shape: tuple[int, ...], sigma: float, *, seed: int = 0) -> NDArray[np.uint16]:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return ndimage.label(smooth > np.quantile(smooth, 0.6))[0].astype(np.uint16)


def nested() -> NDArray[np.uint8]:
    """Return rings in rings of one number and another, with corners that touch."""
    labels = np.zeros((15, 16), np.uint8)
    for n, value in enumerate((1, 0, 1, 2, 0, 1)):
        labels[n : 13 - n, n : 14 - n] = value
    labels[13, 14] = labels[14, 13] = 1
    labels[2, 3] = labels[3, 4] = 0
    return labels


PLANES = {
    "noise": np.random.default_rng(0).integers(0, 2, (40, 50)),
    "touching": np.random.default_rng(1).integers(0, 4, (30, 30)),
    "blobs": blobs((90, 80), 2),
    "nested": nested(),
    "full": np.full((4, 5), 3),
    "column": np.ones((6, 1), int),
}


def filled(shapes: list[tuple[Shape, int]], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return the label image of shapes, none of which covers a pixel of another."""
    result = np.zeros(size, np.int64)
    for shape, value in shapes:
        at = tuple(shape_pixels(shape, *size).T)
        assert not result[at].any()
        result[at] = value
    return result


@pytest.mark.parametrize("name", PLANES)
def test_filled_again(name: str) -> None:
    labels = PLANES[name]
    shapes = []
    for outline in outlines(labels):
        for polygon in outline.polygons:
            shapes.append((Shape("area", tuple(r.astype(float) for r in polygon), "a", None, ""), outline.id))
            areas = [float((r[:, 0] * np.roll(r[:, 1], -1) - np.roll(r[:, 0], -1) * r[:, 1]).sum()) for r in polygon]
            assert areas[0] > 0 and all(area < 0 for area in areas[1:])
            for ring in polygon:
                assert len(np.unique(ring, axis=0)) == len(ring) >= 4, "a ring that touches itself"
                assert (np.count_nonzero(np.roll(ring, -1, axis=0) - ring, axis=1) == 1).all()
    np.testing.assert_array_equal(filled(shapes, labels.shape), labels)


def test_polygons_are_parts_that_share_a_side() -> None:
    labels = (PLANES["noise"] > 0).astype(np.uint8)
    [outline] = outlines(labels)
    assert len(outline.polygons) == ndimage.label(labels)[1]
    holes = ndimage.label(np.pad(labels == 0, 1, constant_values=True), np.ones((3, 3)))[1] - 1
    assert sum(len(polygon) - 1 for polygon in outline.polygons) >= holes  # holes that touch at a corner are apart, too


def test_no_object_has_no_outline() -> None:
    assert list(outlines(np.zeros((3, 4), np.uint8))) == []


@pytest.mark.parametrize("name", PLANES)
def test_there_and_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = PLANES[name].astype(np.uint16)
    np.save("labels.npy", labels)
    done("measure", "labels.npy", "--rois", "o.zip", "--geojson", "o.geojson", "--class", "cell", "-o", "o.csv")
    found = read_rois(Path("o.zip"), shape=(1, 1, *labels.shape))
    numbers = [int(n.removesuffix(".roi")) for n in zipfile.ZipFile("o.zip").namelist()]
    np.testing.assert_array_equal(filled(list(zip(found, numbers, strict=True)), labels.shape), labels)
    assert {shape.label for shape in found} == {1}
    features = json.loads(Path("o.geojson").read_text())["features"]
    shapes = read_geojson(Path("o.geojson"))
    numbers = [int(f["properties"]["name"]) for f in features for _ in range(_parts(f["geometry"]))]
    np.testing.assert_array_equal(filled(list(zip(shapes, numbers, strict=True)), labels.shape), labels)
    scribbles = fb.read_scribbles("o.geojson", shape={"Y": labels.shape[0], "X": labels.shape[1]})
    assert scribbles.names == {1: "cell"}
    np.testing.assert_array_equal(scribbles.at_plane() > 0, labels > 0)
    table = fb.measure(labels)
    for feature, area in zip(features, table["area_px"], strict=True):
        assert feature["properties"]["measurements"]["area_px"] == area


def _parts(geometry: dict) -> int:
    return len(geometry["coordinates"]) if geometry["type"] == "MultiPolygon" else 1


def test_classes_are_groups_and_colours(tmp_path: Path) -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[2:6, 2:6], labels[3:8, 10:18] = 1, 2
    shares = np.stack([np.full((10, 20), 0.25), np.full((10, 20), 0.75)]).astype(np.float32)
    shares[:, :, 10:] = shares[::-1, :, 10:]
    np.save(tmp_path / "labels.npy", labels)
    names = {"axes": "CYX", "Channel": {"Name": ["nucleus", "vein"]}}
    tifffile.imwrite(tmp_path / "p.ome.tif", shares, metadata=names, photometric="minisblack")
    arguments = ["measure", tmp_path / "labels.npy", "-p", tmp_path / "p.ome.tif", "--rois", tmp_path / "o.zip"]
    done(*arguments, "--geojson", tmp_path / "o.geojson", "--detections")
    rois = roifile.roiread(tmp_path / "o.zip")
    assert isinstance(rois, list)
    assert [(r.name, r.group) for r in rois] == [("1", 2), ("2", 1)]
    assert [(r.left, r.top, r.right, r.bottom) for r in rois] == [(2, 2, 6, 6), (10, 3, 18, 8)]
    features = json.loads((tmp_path / "o.geojson").read_text())["features"]
    assert [f["properties"]["classification"] for f in features] == [
        {"name": "vein", "color": [230, 159, 0]},
        {"name": "nucleus", "color": [0, 114, 178]},
    ]
    assert {f["properties"]["objectType"] for f in features} == {"detection"}


@pytest.mark.parametrize(
    "axes, name, position",
    [("ZYX", "1_z1", (2, 0, 0)), ("TYX", "1_1_1", (2, 0, 0)), ("TZYX", "1_1_1_z2", (0, 3, 2))],
)
def test_series_and_stacks(axes: str, name: str, position: tuple[int, int, int], tmp_path: Path) -> None:
    shape = {"T": 2, "Z": 3, "Y": 12, "X": 14}
    labels = np.zeros([shape[a] for a in axes], np.uint8)
    labels[..., 2:5, 3:7] = 1
    tifffile.imwrite(tmp_path / "l.tif", labels, imagej=True, metadata={"axes": axes})
    done("measure", tmp_path / "l.tif", "--rois", tmp_path / "o.zip", "--geojson", tmp_path / "o.geojson")
    rois = roifile.roiread(tmp_path / "o.zip")
    assert isinstance(rois, list)
    planes = labels.size // (12 * 14)
    assert len({r.name for r in rois}) == planes
    [roi] = [r for r in rois if r.name == name]
    assert (roi.position, roi.z_position, roi.t_position) == position
    for file, options in (("o.zip", {}), ("o.geojson", {})):
        sizes = {a: shape[a] for a in axes}
        scribbles = fb.read_scribbles(tmp_path / file, shape=sizes, **options)
        assert scribbles.counts == {1: int(labels.sum())}
        assert len(scribbles.plane_counts) == planes


def test_beyond_sixteen_bits(tmp_path: Path) -> None:
    labels = np.zeros((3, 40_000), np.uint8)
    labels[1, 39_990:39_995], labels[0, 2:4] = 1, 2
    np.save(tmp_path / "l.npy", labels)
    done("measure", tmp_path / "l.npy", "--rois", tmp_path / "o.zip", "--class", "cell")
    found = read_rois(tmp_path / "o.zip", shape=(1, 1, *labels.shape))
    np.testing.assert_array_equal(filled(list(zip(found, (1, 2), strict=True)), labels.shape), labels)


def test_same_objects_same_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", PLANES["blobs"])
    for name in ("a", "b"):
        done(
            "measure", tmp_path / "l.npy", "--rois", tmp_path / f"{name}.zip", "--geojson", tmp_path / f"{name}.geojson"
        )
    for suffix in (".zip", ".geojson"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_refused_image_leaves_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.stack([PLANES["full"], -PLANES["full"]]))
    ended = call("measure", tmp_path / "l.npy", "--axes", "TYX", "--rois", tmp_path / "o.zip", "-o", tmp_path / "o.csv")
    assert ended.code == 3 and "expected labels from 0" in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["l.npy"]
