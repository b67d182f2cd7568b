"""GeoJSON and ROI files that are damaged, hostile, or do not fit: what is said about each of them."""

import json
import struct
import zipfile

import numpy as np
import pytest
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi, roiwrite

from forestbridge.errors import LabelError
from forestbridge.labels import read_scribbles

FLAT = np.zeros((20, 30), np.uint8)
FLAT[2, 3:9], FLAT[10:12, 20:25] = 1, 2


def square(x=2, y=3, size=4, **more):
    return {
        "type": "Polygon",
        "coordinates": [[[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]],
        **more,
    }


def feature(geometry, name="a", **properties):
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}, **properties}}


def write_geojson(tmp_path, *features):
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return tmp_path / "a.geojson"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            feature(square(), classification={"color": [1, 2, 3]}),
            r"expected a classification with a name, found \{'color': \[1, 2, 3\]\}",
        ),
        (feature(square(), classification=7), r"feature 0: expected a classification with a name, found 7"),
        (feature(square(plane={"z": "x"})), r"expected a plane with whole numbers z and t, found \{'z': 'x'\}"),
        (
            feature(square(plane={"z": 1, "t": 0})),
            r"expected a plane inside the image of 1 frames and 1 planes, found t=0 z=1",
        ),
        (
            feature(square(100)),
            r"expected it inside the image of 30 × 20 pixels \(x × y\), found it at x=100..104 y=3..7; check that",
        ),
        (
            feature(square(float("nan"))),
            r"expected finite coordinates, found NaN, infinite or none; draw it again or delete it",
        ),
        (
            feature({"type": "Polygon", "coordinates": [[]]}),
            r"expected finite coordinates, found NaN, infinite or none",
        ),
        (feature({"type": "Polygon"}), r"expected a Polygon with coordinates \[x, y\], found \{'type': 'Polygon'\}"),
        (
            feature({"type": "LineString", "coordinates": [["a", 1]]}),
            r"expected a LineString with coordinates \[x, y\]",
        ),
        (
            feature({"type": "Circle", "coordinates": []}),
            r"expected a Point, LineString, Polygon, .* found 'Circle'; delete",
        ),
        (feature(None), r"expected a Point, LineString, Polygon, .* found None"),
        ("text", r"a.geojson, feature 0: expected a GeoJSON feature, found 'text'; export the annotations again"),
        (
            feature(square(), classification=None),
            r"expected annotations with a class, found none \(1 without a class\); give each",
        ),
    ],
)
def test_geojson_features_that_cannot_be_used(tmp_path, item, message):
    with pytest.raises(LabelError, match=message):
        read_scribbles(write_geojson(tmp_path, item), shape=(20, 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a.geojson: expected GeoJSON, found a file that is damaged or something else"),
        ("[" * 100_000, r"expected GeoJSON, found a file that is damaged or something else"),
        ("\xff\xfe", r"expected GeoJSON, found a file that is damaged"),
        (
            '{"type": "Topology"}',
            r"expected a GeoJSON FeatureCollection, found \{'type': 'Topology'\}; in QuPath use File",
        ),
        ("7", r"expected a GeoJSON FeatureCollection, found 7"),
        ("[]", r"expected annotations with a class, found none; give each annotation a class in QuPath"),
    ],
)
def test_geojson_files_that_are_none(tmp_path, text, message):
    (tmp_path / "a.geojson").write_text(text, encoding="latin-1")
    with pytest.raises(LabelError, match=message):
        read_scribbles(tmp_path / "a.geojson", shape=(20, 30))


def test_geojson_against_names_image_and_each_other(tmp_path, monkeypatch):
    path = write_geojson(tmp_path, feature(square(), "a"), feature(square(4), "b"))
    with pytest.raises(
        LabelError,
        match=r"a.geojson: expected the image that the annotations belong to, found none given; give the image",
    ):
        read_scribbles(path)
    with pytest.raises(
        LabelError,
        match=r"a.geojson: expected one class for each pixel, found 8 pixels with two, the first at t=0 z=0 y=3 x=4",
    ):
        read_scribbles(path, shape=(20, 30))
    with pytest.raises(
        LabelError, match=r"expected annotations of the classes \['a', 'c'\], found also \['b'\]; .* ignore='b'"
    ):
        read_scribbles(path, shape=(20, 30), names=["a", "c"])
    np.save(tmp_path / "a.npy", FLAT)
    with pytest.raises(LabelError, match=r"expected names for the label values too that are merged with named classes"):
        read_scribbles([tmp_path / "a.npy", path], shape=(20, 30), ignore="b")
    monkeypatch.setattr("forestbridge.labels.geojson.MAX_BYTES", 100)
    with pytest.raises(
        LabelError, match=r"expected annotations of at most 0 MiB, found 0 MiB; export annotations only, no detections"
    ):
        read_scribbles(path, shape=(20, 30))


def roi(kind=ROI_TYPE.RECT, **more):
    made = ImagejRoi()
    made.roitype, made.left, made.top, made.right, made.bottom = kind, 2, 3, 6, 8
    for key, value in ({"group": 1} | more).items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("made", "shape", "message"),
    [
        (
            roi(group=0, name=""),
            (20, 30),
            r"a.zip, ROI 'x': expected a ROI with a group number, or named after its class, found the name ''",
        ),
        (
            roi(group=0, name="0012-0034"),
            (20, 30),
            r"found the name '0012-0034'; set its group \(Edit > Selection > Properties…\)",
        ),
        (
            roi(options=ROI_OPTIONS.SPLINE_FIT),
            (20, 30),
            r"expected straight segments, found a spline; use Edit > Selection > Interpolate",
        ),
        (
            roi(ROI_TYPE.ANGLE, integer_coordinates=np.zeros((3, 2), int), n_coordinates=3),
            (20, 30),
            r"found type ANGLE, subtype UNDEFINED; delete it",
        ),
        (
            roi(subtype=ROI_SUBTYPE.TEXT),
            (20, 30),
            r"expected an area, a line or points, found type RECT, subtype TEXT; delete it",
        ),
        (
            roi(rounded_rect_arc_size=9),
            (20, 30),
            r"found type RECT, subtype UNDEFINED, rounded corners; delete it, or draw it as an area",
        ),
        (
            roi(),
            (5, 20, 30),
            r"expected a plane for each annotation of a stack, found none \(on all slices\); set its position",
        ),
        (
            roi(position=6),
            (5, 20, 30),
            r"expected a plane inside the image of 1 frames and 5 planes, found t=0 z=5; check that it belongs",
        ),
        (
            roi(position=6),
            (2, 5, 20, 30),
            r"expected a position with z and frame, since the image has 2 frames of 5 planes, found slice number 6",
        ),
    ],
)
def test_rois_that_cannot_be_used(tmp_path, made, shape, message):
    roiwrite(tmp_path / "a.zip", [made], name=["x"])
    with pytest.raises(LabelError, match=message):
        read_scribbles(tmp_path / "a.zip", shape=shape)


def test_rois_with_and_without_a_group(tmp_path):
    roiwrite(tmp_path / "a.zip", [roi(), roi(group=0, name="edge")], name=["x", "y"])
    with pytest.raises(
        LabelError,
        match=r"expected ROIs that all have a group, or all have the name of a class, found both \(names \['edge'\]\)",
    ):
        read_scribbles(tmp_path / "a.zip", shape=(20, 30))


def test_zips_that_are_no_rois(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"

    def refused(message):
        with pytest.raises(LabelError, match=message):
            read_scribbles(path, shape=(20, 30))

    path.write_bytes(b"PK no zip")
    refused(r"a.zip: expected a zip of ImageJ ROIs, found a damaged file \(File is not a zip file\)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("objects.geojson", "{}")
    refused(r"expected a zip of ImageJ ROIs \(.roi\), found \['objects.geojson'\] in it; save it with the ROI Manager")
    with zipfile.ZipFile(path, "w"):
        pass
    refused(r"found nothing in it")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(2**25))  # 32 kB that unpack to 32 MiB
    refused(
        r"expected at most 250000 ROIs of together 268435456 bytes and 16777216 bytes each, found 1 of together 33554432"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.roi", roi().tobytes())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(r"expected ROIs without a password, found 'a.roi' encrypted; save it without")
    (tmp_path / "a.roi").write_bytes(roi().tobytes())
    monkeypatch.setattr("forestbridge.labels.imagej_roi.MAX_ROI_BYTES", 64)
    with pytest.raises(LabelError, match=r"a.roi: expected a ROI of at most 64 bytes, found \d+; simplify its outline"):
        read_scribbles(tmp_path / "a.roi", shape=(20, 30))


def test_damaged_rois_are_refused_or_read_but_never_crash(tmp_path, caplog):
    """A thousand ROIs with bytes changed at random."""
    rng = np.random.default_rng(0)
    line = ImagejRoi.frompoints(np.array([[3, 4], [9, 8], [12, 15]]), name="edge-1")
    originals = [line.tobytes(), roi().tobytes()]
    refused = 0
    for trial in range(1000):
        content = bytearray(originals[trial % 2])
        for place in rng.integers(4, len(content), rng.integers(1, 5)):
            content[place] = rng.integers(256)
        (tmp_path / "a.roi").write_bytes(content[: len(content) - (trial % 7 == 0) * int(rng.integers(1, 60))])
        try:
            read_scribbles(tmp_path / "a.roi", shape=(20, 30))
        except LabelError:
            refused += 1
    assert 100 < refused < 1000
    (tmp_path / "a.roi").write_bytes(originals[0][:40])
    with pytest.raises(
        LabelError, match=r"a.roi, ROI 'a': expected an ImageJ ROI, found one that is damaged \(.*too short"
    ):
        read_scribbles(tmp_path / "a.roi", shape=(20, 30))
    bomb = bytearray(roi(ROI_TYPE.POLYGON, integer_coordinates=np.zeros((0, 2), int)).tobytes())
    bomb[16:22] = struct.pack(">Hi", 0, 2**31 - 1)  # two thousand million vertices
    (tmp_path / "a.roi").write_bytes(bomb)
    with pytest.raises(LabelError, match=r"found one that is damaged"):
        read_scribbles(tmp_path / "a.roi", shape=(20, 30))


def test_an_annotation_of_too_many_pixels(monkeypatch, tmp_path):
    monkeypatch.setattr("forestbridge.labels.shapes.MAX_PIXELS", 10)
    path = write_geojson(tmp_path, feature(square()))
    with pytest.raises(LabelError, match=r"feature 0: expected at most 10 labelled pixels, found 16"):
        read_scribbles(path, shape=(20, 30))
