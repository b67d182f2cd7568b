"""Annotations: GeoJSON as QuPath exports it, and ROIs as ImageJ saves them, drawn into pixels."""

import json
import logging

import numpy as np
import pytest
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi, roiwrite
from skimage.measure import points_in_poly

from forestbridge.image import Image
from forestbridge.labels import read_scribbles
from forestbridge.labels.shapes import Shape, shape_pixels

SIZE = (40, 60)


def shape_of(kind, *rings, **more):
    return Shape(kind, tuple(np.array(r, np.float64) for r in rings), "a", None, "annotation", **more)


def mask_of(shape, size=SIZE):
    mask = np.zeros(size, bool)
    y, x = shape_pixels(shape, *size).T
    mask[y, x] = True
    return mask


def centres(size=SIZE):
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    return x, y


@pytest.mark.parametrize("seed", range(8))
def test_an_area_covers_the_pixels_whose_centres_lie_inside(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(4, 25, 12)  # star-shaped, so that no edges cross; partly outside the image
    outline = np.stack([30 + radius * np.cos(angles), 20 + radius * np.sin(angles)], axis=1)
    x, y = centres()
    expected = points_in_poly(np.stack([x.ravel(), y.ravel()], axis=1), outline).reshape(SIZE)
    np.testing.assert_array_equal(mask_of(shape_of("area", outline)), expected)


def test_whole_pixels_and_their_borders():
    square = [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]  # closed, as in GeoJSON
    expected = np.zeros(SIZE, bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(mask_of(shape_of("area", square)), expected)
    left, right = [[2.5, 1], [4.5, 1], [4.5, 3], [2.5, 3]], [[4.5, 1], [7.5, 1], [7.5, 3], [4.5, 3]]
    a, b = mask_of(shape_of("area", left)), mask_of(shape_of("area", right))
    assert not (a & b).any()  # an edge through pixel centres: each pixel belongs to one side
    assert (a | b).sum() == 2 * 5


def test_inner_rings_are_holes():
    ring = mask_of(shape_of("area", [[0, 0], [10, 0], [10, 10], [0, 10]], [[3, 3], [3, 7], [7, 7], [7, 3]]))
    assert ring.sum() == 100 - 16
    assert not ring[3:7, 3:7].any()


def test_ellipse():
    x, y = centres()
    expected = ((x - 20) / 10) ** 2 + ((y - 15) / 6.5) ** 2 < 1
    np.testing.assert_array_equal(mask_of(shape_of("ellipse", [[10, 8.5], [30, 21.5]])), expected)
    assert mask_of(shape_of("ellipse", [[3, 3], [4, 4]])).sum() == 1


def test_line_one_pixel_wide():
    line = mask_of(shape_of("line", [[1.5, 2.5], [6.5, 2.5], [9.5, 5.5]]))
    expected = np.zeros(SIZE, bool)
    expected[2, 1:7] = True
    expected[[3, 4, 5], [7, 8, 9]] = True
    np.testing.assert_array_equal(line, expected)
    assert mask_of(shape_of("line", [[4.2, 4.9]])).sum() == 1


def test_wide_line_covers_what_is_near():
    a, b = np.array([8.0, 9.0]), np.array([40.0, 25.0])
    x, y = centres()
    along = np.clip(((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / ((b - a) ** 2).sum(), 0, 1)
    distance = np.hypot(x - a[0] - along * (b - a)[0], y - a[1] - along * (b - a)[1])
    np.testing.assert_array_equal(mask_of(shape_of("line", [a, b], width=5.0)), distance < 2.5)


def test_very_long_lines_take_no_memory():
    far = mask_of(shape_of("line", [[-1e12, 10.5], [1e12, 10.5]]))
    assert far[10].all() and far.sum() == SIZE[1]
    assert mask_of(shape_of("area", [[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])).all()
    assert mask_of(shape_of("ellipse", [[-1e9, -1e9], [1e9, 1e9]])).all()


def feature(geometry, name, *, colour=(200, 0, 0), **properties):
    """One object as QuPath 0.5 exports it."""
    classification = {"classification": {"name": name, "color": list(colour)}} if name else {}
    return {
        "type": "Feature",
        "id": "e3b0c442-98fc-4c14-9afb-4c8996fb9242",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **classification, **properties},
    }


def polygon(x, y, width, height, **more):
    ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {"type": "Polygon", "coordinates": [ring], **more}


def write_geojson(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def test_qupath_geojson(tmp_path):
    path = write_geojson(
        tmp_path / "a.geojson",
        feature(polygon(2, 3, 4, 5), "Tumor", isLocked=True, measurements={"Area": 20.0}),
        feature({"type": "LineString", "coordinates": [[20.5, 10.5], [25.5, 10.5]]}, "Stroma", colour=(150, 200, 150)),
        feature({"type": "MultiPoint", "coordinates": [[30.2, 5.9], [31.0, 6.0]]}, "Tumor"),
        feature({"type": "Point", "coordinates": [40.5, 7.5]}, "Stroma"),
        feature(
            {
                "type": "MultiPolygon",
                "coordinates": [polygon(50, 1, 2, 2)["coordinates"], polygon(55, 1, 2, 2)["coordinates"]],
            },
            "Stroma",
        ),
        feature(
            {"type": "MultiLineString", "coordinates": [[[1.5, 20.5], [3.5, 20.5]], [[1.5, 22.5], [3.5, 22.5]]]},
            "Tumor",
        ),
        feature(polygon(10, 25, 8, 6, isEllipse=True), "Immune cells"),
        feature(
            {
                "type": "GeometryCollection",
                "geometries": [polygon(50, 30, 3, 3), {"type": "Point", "coordinates": [58, 38]}],
            },
            "Tumor",
        ),
    )
    s = read_scribbles(path, shape=SIZE)
    assert s.names == {1: "Immune cells", 2: "Stroma", 3: "Tumor"}  # alphabetical
    assert s.colours[2] == "#96c896" and s.colours[3] == "#c80000"
    expected = np.zeros(SIZE, np.uint8)
    expected[3:8, 2:6] = 3
    expected[10, 20:26] = 2
    expected[[5, 6], [30, 31]] = 3
    expected[7, 40] = 2
    expected[1:3, [50, 51, 55, 56]] = 2
    expected[[20, 22], 1:4] = 3
    x, y = centres()
    expected[((x - 14) / 4) ** 2 + ((y - 28) / 3) ** 2 < 1] = 1
    expected[30:33, 50:53] = 3
    expected[38, 58] = 3
    np.testing.assert_array_equal(s.at_plane(), expected)


def test_names_fix_the_values(tmp_path):
    path = write_geojson(
        tmp_path / "a.geojson", feature(polygon(2, 3, 4, 5), "Tumor"), feature(polygon(20, 3, 4, 5), "Stroma")
    )
    assert read_scribbles(path, shape=SIZE, names=["Tumor", "Necrosis", "Stroma"]).counts == {1: 20, 3: 20}
    s = read_scribbles(path, shape=SIZE, names={5: "Tumor", 9: "Stroma"}, colours={5: "#010203"})
    assert (s.counts, s.names) == ({5: 20, 9: 20}, {5: "Tumor", 9: "Stroma"})
    assert s.colours == {5: "#010203", 9: "#c80000"}
    assert read_scribbles(path, shape=SIZE, ignore="Stroma").names == {1: "Tumor"}


def test_several_geojson_files_share_their_values(tmp_path):
    a = write_geojson(tmp_path / "a.geojson", feature(polygon(2, 3, 4, 5), "b"))
    b = write_geojson(tmp_path / "b.geojson", feature(polygon(20, 3, 4, 5), "a"))
    s = read_scribbles([a, b], shape=SIZE)
    assert s.names == {1: "a", 2: "b"}
    assert s.at_plane()[3, 2] == 2


def test_older_and_other_forms_of_geojson(tmp_path):
    """QuPath 0.2 packs colours and names the type in the id; derived classes have several names; a bare list."""
    old = {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": polygon(2, 3, 4, 5),
        "properties": {
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": False,
            "measurements": [],
        },
    }
    derived = feature(
        polygon(20, 3, 4, 5), None, classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3, 128]}
    )
    text = feature(polygon(30, 3, 4, 5), None, classification="Stroma")
    (tmp_path / "list.json").write_text(json.dumps([old, derived, text]))
    s = read_scribbles(tmp_path / "list.json", shape=SIZE)
    assert s.names == {1: "Stroma", 2: "Tumor", 3: "Tumor: Positive"}
    assert (s.colours[2], s.colours[3]) == ("#c80000", "#010203")
    (tmp_path / "one.geojson").write_text(json.dumps(old))
    assert read_scribbles(tmp_path / "one.geojson", shape=SIZE).counts == {1: 20}


def test_objects_that_are_no_annotations_are_left_out_and_counted(tmp_path, caplog):
    child = feature(polygon(3, 4, 2, 2), "Tumor")
    path = write_geojson(
        tmp_path / "a.geojson",
        feature(polygon(0, 0, 60, 40), "Region*", childObjects=[child]),
        feature(polygon(20, 3, 4, 5), None),
        {
            **feature(polygon(30, 3, 4, 5), "Stroma"),
            "properties": {"objectType": "detection", "classification": {"name": "Stroma"}},
        },
    )
    with caplog.at_level(logging.INFO):
        s = read_scribbles(path, shape=SIZE)
    assert s.counts == {1: 4}
    assert "1 without a class, 1 of the class Region*, 1 that are no annotations" in caplog.text


def test_planes_of_geojson(tmp_path):
    path = write_geojson(
        tmp_path / "a.geojson",
        feature(polygon(2, 3, 4, 5, plane={"c": -1, "z": 3, "t": 1}), "a"),
        feature(polygon(20, 3, 4, 5), "b"),
    )
    image = Image(np.zeros((2, 5, *SIZE)), "TZYX", {})
    assert read_scribbles(path, shape=image).planes == [(0, 0), (1, 3)]  # QuPath leaves out its first plane
    assert read_scribbles(path, shape=image, plane=(0, 4)).planes == [(0, 4), (1, 3)]
    assert read_scribbles(path, shape=(5, *SIZE), plane=2, ignore="a").planes == [(0, 2)]


def test_stroke_width_and_merge(tmp_path):
    path = write_geojson(
        tmp_path / "a.geojson",
        feature({"type": "LineString", "coordinates": [[20.5, 10.5], [25.5, 10.5]]}, "a"),
        feature(polygon(19, 10, 8, 1), "b"),
    )
    assert read_scribbles(path, shape=SIZE, merge="first").counts == {1: 6, 2: 2}
    assert read_scribbles(path, shape=SIZE, merge="last").counts == {2: 8}
    assert read_scribbles(path, shape=SIZE, merge="first", stroke_width=3).counts[1] > 18


def roi(kind, points=None, *, box=None, **more):
    """A ROI as ImageJ saves it: integer coordinates relative to the bounding box, or the box alone."""
    if points is not None:
        made = ImagejRoi.frompoints(np.array(points))
        made.options = ROI_OPTIONS.SUB_PIXEL_RESOLUTION if np.array(points).dtype.kind == "f" else ROI_OPTIONS.NONE
    else:
        made = ImagejRoi()
        made.left, made.top, made.right, made.bottom = box
    made.roitype, made.name = kind, more.pop("name", "")
    for key, value in more.items():
        setattr(made, key, value)
    return made


def read_roi(tmp_path, *rois, shape=SIZE, **more):
    path = tmp_path / "rois.zip"
    path.unlink(missing_ok=True)
    roiwrite(path, list(rois), name=[f"{i:04d}-{r.name or 'x'}" for i, r in enumerate(rois)])
    return read_scribbles(path, shape=shape, **more)


def test_roi_types(tmp_path):
    s = read_roi(
        tmp_path,
        roi(ROI_TYPE.RECT, box=(2, 3, 6, 8), group=1),
        roi(ROI_TYPE.OVAL, box=(10, 25, 18, 31), group=2),
        roi(ROI_TYPE.POLYGON, [[20, 1], [24, 1], [24, 4], [20, 4]], group=1),
        roi(ROI_TYPE.FREEHAND, [[30, 1], [34, 1], [34, 4], [30, 4]], group=2),
        roi(ROI_TYPE.TRACED, [[40, 1], [44, 1], [44, 4], [40, 4]], group=1),
        roi(ROI_TYPE.POLYLINE, [[20, 10], [25, 10], [25, 13]], group=2),
        roi(ROI_TYPE.FREELINE, [[30, 10], [31, 11], [32, 12]], group=1),
        roi(ROI_TYPE.LINE, box=(40, 10, 46, 11), x1=40, y1=10, x2=45, y2=10, group=2),
        roi(ROI_TYPE.POINT, [[50, 10], [52, 12]], group=1),
        roi(ROI_TYPE.POINT, [[50.4, 20.6]], group=1),
    )
    expected = np.zeros(SIZE, np.uint8)
    expected[3:8, 2:6] = 1
    x, y = centres()
    expected[((x - 14) / 4) ** 2 + ((y - 28) / 3) ** 2 < 1] = 2
    expected[1:4, 20:24], expected[1:4, 30:34], expected[1:4, 40:44] = 1, 2, 1
    expected[10, 20:26], expected[10:14, 25] = 2, 2
    expected[[10, 11, 12], [30, 31, 32]] = 1
    expected[10, 40:46] = 2
    expected[[10, 12, 21], [50, 52, 50]] = 1
    np.testing.assert_array_equal(s.at_plane(), expected)
    assert s.names == {1: "class 1", 2: "class 2"}


def test_a_composite_roi_has_a_hole(tmp_path):
    def path_of(ring):
        moves = [v for i, (x, y) in enumerate(ring) for v in (0.0 if i == 0 else 1.0, x, y)]
        return [*moves, 4.0]

    outer, inner = [(2, 2), (12, 2), (12, 12), (2, 12)], [(5, 5), (9, 5), (9, 9), (5, 9)]
    path = np.array(path_of(outer) + path_of(inner), np.float32)
    made = roi(ROI_TYPE.RECT, box=(2, 2, 12, 12), shape_roi_size=len(path), multi_coordinates=path, group=1)
    assert read_roi(tmp_path, made).counts == {1: 100 - 16}


def test_single_roi_file_with_stroke(tmp_path):
    made = roi(
        ROI_TYPE.FREELINE,
        [[20, 10], [30, 10]],
        name="nucleus",
        float_stroke_width=3.0,
        stroke_color=b"\xff\x10\x20\x30",
    )
    made.tofile(tmp_path / "a.roi")
    s = read_scribbles(tmp_path / "a.roi", shape=SIZE)
    assert (s.names, s.colours) == ({1: "nucleus"}, {1: "#102030"})
    assert s.at_plane()[9:12, 20:31].all() and s.counts[1] < 45
    assert read_scribbles(tmp_path / "a.roi", shape=SIZE, stroke_width=1).counts == {1: 11}


def test_class_of_a_roi_from_its_name(tmp_path):
    rois = [
        roi(ROI_TYPE.RECT, box=(10 * i, 3, 10 * i + 2, 5), name=n)
        for i, n in enumerate(["nucleus", "nucleus-1", "edge 2", "T2"])
    ]
    assert read_roi(tmp_path, *rois).names == {1: "T2", 2: "edge", 3: "nucleus"}
    s = read_roi(tmp_path, *rois, names=["nucleus", "edge 2", "T2"])
    assert (s.names, s.counts) == ({1: "nucleus", 2: "edge 2", 3: "T2"}, {1: 8, 2: 4, 3: 4})
    mixed = [*rois, roi(ROI_TYPE.RECT, box=(50, 3, 52, 5), group=1)]
    assert read_roi(tmp_path, *mixed, names={1: "nucleus", 2: "edge", 4: "T2"}).counts == {1: 12, 2: 4, 4: 4}
    groups = [roi(ROI_TYPE.RECT, box=(10 * g, 3, 10 * g + 2, 5), group=g) for g in (2, 4)]
    assert read_roi(tmp_path, *groups, names=["a", "b"]).names == {2: "a", 4: "b"}


def test_positions_of_rois(tmp_path):
    def square(**position):
        return roi(ROI_TYPE.RECT, box=(2, 3, 6, 8), group=1, **position)

    image = Image(np.zeros((2, 5, *SIZE)), "TZYX", {})
    assert read_roi(tmp_path, square(z_position=3, t_position=2, c_position=1), shape=image).planes == [(1, 2)]
    assert read_roi(tmp_path, square(position=4), shape=(5, *SIZE)).planes == [(0, 3)]
    assert read_roi(tmp_path, square(position=4), shape={"T": 5, "Y": 40, "X": 60}).planes == [(3, 0)]
    assert read_roi(tmp_path, square(position=3)).planes == [(0, 0)]  # a channel of a 2D image
    assert read_roi(tmp_path, square(), shape=(5, *SIZE), plane=2).planes == [(0, 2)]


def test_points_on_several_slices(tmp_path):
    made = roi(ROI_TYPE.POINT, [[10, 10], [20, 10], [30, 10]], group=1)
    made.counters, made.counter_positions = np.zeros(3, np.uint8), np.array([1, 4, 4], np.uint32)
    s = read_roi(tmp_path, made, shape=(5, *SIZE))
    assert s.points.tolist() == [[0, 0, 10, 10], [0, 3, 10, 20], [0, 3, 10, 30]]


def test_sub_pixel_areas(tmp_path):
    made = roi(
        ROI_TYPE.RECT,
        box=(2, 3, 7, 9),
        group=1,
        options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
        xd=2.6,
        yd=3.4,
        widthd=4.0,
        heightd=5.0,
    )
    expected = np.zeros(SIZE, np.uint8)
    expected[3:8, 3:7] = 1
    np.testing.assert_array_equal(read_roi(tmp_path, made).at_plane(), expected)
    ellipse = roi(
        ROI_TYPE.FREEHAND,
        [[10.0, 10.0], [14.0, 10.0], [14.0, 13.0], [10.0, 13.0]],
        group=1,
        subtype=ROI_SUBTYPE.ELLIPSE,
    )
    assert read_roi(tmp_path, ellipse).counts == {1: 12}


def test_label_images_and_annotations_together(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[30:32, 30:32] = 1
    np.save(tmp_path / "a.npy", labels)
    path = write_geojson(tmp_path / "a.geojson", feature(polygon(2, 3, 4, 5), "nucleus"))
    s = read_scribbles([tmp_path / "a.npy", path], shape=SIZE, names=["background", "nucleus"])
    assert s.counts == {1: 4, 2: 20}
    assert s.names == {1: "background", 2: "nucleus"}
