"""Objects: the same as scipy's and scikit-image's functions give, numbered through planes and frames, written with their facts."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_of_skimage
from skimage.morphology import ball, disk, erosion
from skimage.segmentation import expand_labels

import forestbridge as fb
from command_line import call, done
from forestbridge.errors import ImageError, LabelError
from forestbridge.image import ResultInfo, create_result
from forestbridge.image.result_facts import read_result_facts
from forestbridge.objects.components import label_components

RNG = np.random.default_rng(0)
BLOBS = (ndimage.gaussian_filter(RNG.random((12, 70, 80)), 2.5) > 0.5).astype(np.uint8)


def two_discs(distance: int = 35) -> NDArray[np.uint8]:
    """Draw two discs of radius 20 that overlap."""
    y, x = np.mgrid[:60, :120]
    return (((y - 30) ** 2 + (x - 30) ** 2 < 400) | ((y - 30) ** 2 + (x - 30 - distance) ** 2 < 400)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 50), (7, 30, 31), (1, 1), (1, 9), (9, 1), (3, 1, 5)])
@pytest.mark.parametrize("fraction", [0.2, 0.55, 0.9])
def test_components_are_those_of_scipy_and_skimage(shape: tuple[int, ...], fraction: float) -> None:
    rng = np.random.default_rng(1)
    mask = (rng.random(shape) < fraction).astype(np.uint8)
    classes = (mask * rng.integers(1, 4, shape)).astype(np.uint8)
    for connectivity in range(1, len(shape) + 1):
        found, class_of = label_components(mask, connectivity)
        expected, n = ndimage.label(mask, ndimage.generate_binary_structure(len(shape), connectivity))  # type: ignore[misc]
        np.testing.assert_array_equal(found, expected)
        assert len(class_of) == n + 1
        found, class_of = label_components(classes, connectivity)
        np.testing.assert_array_equal(found, label_of_skimage(classes, connectivity=connectivity))
        np.testing.assert_array_equal(class_of[found], classes)


def test_erode_label_expand_is_that_of_the_lesson() -> None:
    for mask, footprint in ((BLOBS, ball(4)), (BLOBS[5], disk(4))):
        expected = expand_labels(label_of_skimage(erosion(mask.astype(bool), footprint)), distance=6)
        found = fb.instances(mask, method="erode", erode=4, expand=6)
        np.testing.assert_array_equal(found.labels, expected)
        assert len(found.objects) == expected.max() > 1


def test_growing_stops_at_another_class() -> None:
    classes = np.zeros((30, 60), np.uint8)
    classes[5:25, 5:30], classes[5:25, 30:40] = 1, 2
    found = fb.instances(classes, method="erode", erode=3, expand=8)
    labels = np.asarray(found.labels)
    assert [entry.value for entry in found.objects] == [1, 2]
    assert set(labels[classes == 1]) == {1} and set(labels[classes == 2]) == {2}
    assert (labels[classes == 0] > 0).any()


@pytest.mark.parametrize("method", ["components", "erode", "distance"])
@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (np.ones((40, 50), np.uint8), 1),
        (np.zeros((40, 50), np.uint8), 0),
        (np.ones((1, 1), np.uint8), 1),
        (np.zeros((1, 1), np.uint8), 0),
        (np.pad(np.ones((25, 25), np.uint8), 3), 1),
        (np.ones((5, 30, 30), np.uint8), 1),
    ],
    ids=["full", "empty", "one pixel", "no pixel", "one object", "full volume"],
)
def test_edges(method: str, labels: NDArray, count: int) -> None:
    found = fb.instances(labels, method=method)  # type: ignore[arg-type]
    assert (len(found.objects), int(np.max(found.labels))) == (count, count)
    assert np.asarray(found.labels).shape == labels.shape


def test_seventy_thousand_objects() -> None:
    labels = np.zeros((1060, 1060), np.uint8)
    labels[::4, ::4] = labels[1::4, ::4] = 1
    found = fb.instances(labels)
    assert (len(found.objects), np.max(found.labels), np.asarray(found.labels).dtype) == (70225, 70225, np.uint32)


def test_watersheds_part_what_touches() -> None:
    discs = two_discs()
    assert len(fb.instances(discs).objects) == 1
    parted = fb.instances(discs, method="distance")
    assert len(parted.objects) == 2
    assert (np.asarray(parted.labels) > 0).sum() == discs.sum()
    assert len(fb.instances(discs, method="distance", h=30).objects) == 1
    assert len(fb.instances(discs, method="distance", min_distance=60).objects) == 1
    assert len(fb.instances(np.stack([discs] * 9), method="distance").objects) == 2
    specks = np.diag(np.ones(30, np.uint8))[:, ::-1].copy()
    specks[0, 0] = 1
    assert len(fb.instances(specks, method="distance", h=5).objects) == 2  # none is too low to be an object


def test_watershed_of_the_probability() -> None:
    cell = np.clip(ndimage.gaussian_filter(two_discs(30) * 1.0, 5) * 1.2, 0, 1)
    cell[:, 44:47] *= 0.8
    probabilities = np.stack([1 - cell, cell]).astype(np.float32)
    assert len(fb.instances(probabilities).objects) == 1
    found = fb.instances(probabilities, method="probability", h=0.1)
    assert [(entry.value, entry.name) for entry in found.objects] == [(2, "class 2")] * 2
    np.testing.assert_array_equal(np.asarray(found.labels) > 0, cell > 0.5)
    assert len(fb.instances(probabilities, method="probability", h=0.6).objects) == 1


def test_background_without_a_table_of_classes() -> None:
    labels = np.ones((20, 40), np.uint8)
    labels[4:12, 4:12], labels[4:12, 12:20] = 3, 7
    values = {chosen: [e.value for e in fb.instances(labels, background=chosen).objects] for chosen in (None, 0, "3")}
    assert values == {None: [3, 7], 0: [1, 3, 7], "3": [1, 7]}
    labels[0, 0] = 0
    assert [e.value for e in fb.instances(labels).objects] == [1, 3, 7]


def test_planes_and_volumes() -> None:
    whole = fb.instances(BLOBS)
    planes = fb.instances(BLOBS, plane_by_plane=True)
    per_plane = [label_of_skimage(plane).max() for plane in BLOBS]
    assert len(planes.objects) == sum(per_plane) > len(whole.objects)
    np.testing.assert_array_equal(
        np.asarray(planes.labels)[1], np.where(BLOBS[1], label_of_skimage(BLOBS[1]) + per_plane[0], 0)
    )
    frames = fb.instances(BLOBS, axes="TYX")
    np.testing.assert_array_equal(frames.labels, planes.labels)


def frames_of(*boxes: list[tuple[int, int]]) -> NDArray[np.uint8]:
    """Draw frames with boxes from one column to another, 10 pixels high."""
    frames = np.zeros((len(boxes), 14, 60), np.uint8)
    for frame, spans in zip(frames, boxes, strict=True):
        for start, stop in spans:
            frame[2:12, start:stop] = 1
    return frames


def test_ids_go_on_through_frames() -> None:
    movie = frames_of([(2, 12), (30, 50)], [(4, 14), (30, 50)], [(6, 16), (30, 37), (39, 50)], [(8, 18), (29, 51)], [])
    found = fb.instances(movie, axes="TYX", track=True)
    ids = [[sorted(set(frame[5][frame[5] > 0]))] for frame in np.asarray(found.labels)]
    assert ids == [[[1, 2]], [[1, 2]], [[1, 2, 3]], [[1, 2]], [[]]]  # the smaller part is new, and ends in the merger
    labels = np.asarray(found.labels)
    assert (labels[2, 5, 32], labels[2, 5, 45], labels[3, 5, 32], len(found.objects)) == (3, 2, 2, 3)
    assert len(fb.instances(movie, axes="TYX").objects) == 9


def test_an_id_stays_in_its_class() -> None:
    movie = frames_of([(2, 12)], [(2, 12)])
    movie[1] *= 2
    found = fb.instances(movie, axes="TYX", track=True)
    assert [(entry.id, entry.value) for entry in found.objects] == [(1, 1), (2, 2)]


def test_stack_through_planes() -> None:
    cylinder = np.stack([np.pad(np.ones((6, 6), np.uint8), 4)] * 5)
    assert len(fb.instances(cylinder, plane_by_plane=True, track=True).objects) == 1
    both = np.stack([cylinder, cylinder])
    with pytest.raises(ValueError, match="found both with --plane-by-plane"):
        fb.instances(both, axes="TZYX", plane_by_plane=True, track=True)


def test_classes_by_value_and_name(tmp_path: Path) -> None:
    classes = np.ones((20, 40), np.uint8)
    classes[4:12, 4:12], classes[4:12, 12:20], classes[15:18, 30:35] = 3, 7, 3
    table = {"classes": (1, 3, 7), "names": ("background", "cell", "nucleus"), "colours": ("#000000",) * 3}
    fb.write_labels(tmp_path / "l.ome.tif", classes, **table)
    every = fb.instances(tmp_path / "l.ome.tif")
    assert [(e.id, e.value, e.name) for e in every.objects] == [(1, 3, "cell"), (2, 7, "nucleus"), (3, 3, "cell")]
    for wanted in ("cell", "3", 3):
        assert len(fb.instances(tmp_path / "l.ome.tif", classes=[wanted]).objects) == 2
    assert [e.name for e in fb.instances(tmp_path / "l.ome.tif", background="cell").objects] == [
        "background",
        "nucleus",
    ]
    with pytest.raises(
        LabelError, match=r"expected one of the classes 1 \(background\), 3 \(cell\), 7 .*found 'cells'"
    ):
        fb.instances(tmp_path / "l.ome.tif", classes=["cells"])
    with pytest.raises(ValueError, match="none of them the background 1"):
        fb.instances(tmp_path / "l.ome.tif", classes=["background"])


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr", ".h5"])
def test_facts_are_read_back(tmp_path: Path, suffix: str) -> None:
    labels = np.ones((3, 20, 24), np.uint8)
    labels[:, 5:9, 5:9] = 5
    options = {"classes": (1, 5), "names": ("soil, and: more", "Würzelchen"), "colours": ("#112233", "#aabbcc")}
    path = fb.write_labels(tmp_path / f"l{suffix}", labels, axes="ZYX", provenance={"encoder": "filters"}, **options)
    facts = read_result_facts(path)
    assert facts.names == {1: "soil, and: more", 5: "Würzelchen"}
    assert facts.colours == {1: "#112233", 5: "#aabbcc"}
    assert facts.provenance == {"encoder": "filters"}
    assert fb.instances(path).objects == [(1, 5, "Würzelchen")]


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr", ".h5", ".npy", ".nrrd", ".png"])
def test_written_objects(tmp_path: Path, suffix: str) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[::4, ::4] = 1
    labels[:30, :] = 0
    out = tmp_path / f"objects{suffix}"
    found = fb.instances(labels, out=out)
    assert found.labels == out and len(found.objects) == 128
    if suffix != ".png":
        read = fb.read_image(out, axes="YX" if suffix == ".npy" else None)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read.plane()[0], fb.instances(labels).labels)


def test_pixel_size_and_history_stay(tmp_path: Path) -> None:
    size = {"z": 2.0, "y": 0.5, "x": 0.25}
    classes = {"classes": (1,), "names": ("a",), "colours": ("#ffffff",), "provenance": {"encoder": "filters"}}
    info = ResultInfo("TZYX", (2, 3, 20, 20), np.dtype("u1"), size, 3.0, **classes)
    with create_result(tmp_path / "l.ome.tif", info) as writer:
        writer.write(tuple(slice(0, n) for n in info.shape), np.ones(info.shape, np.uint8))
    fb.instances(tmp_path / "l.ome.tif", out=tmp_path / "o.ome.tif")
    image = fb.read_image(tmp_path / "o.ome.tif")
    assert (image.axes, dict(image.pixel_size), image.frame_interval) == ("TZYX", size, 3.0)
    facts = read_result_facts(tmp_path / "o.ome.tif")
    assert facts.provenance == {
        "objects": "2",
        "encoder": "filters",
        "instances": "components connectivity=all",
        "object classes": "a",
    }


def test_dtype_is_the_smallest_or_the_chosen(tmp_path: Path) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[::3, ::3] = 1  # 22 · 22 = 484
    assert np.asarray(fb.instances(labels).labels).dtype == np.uint16
    assert np.asarray(fb.instances(labels, dtype="uint32").labels).dtype == np.uint32
    with pytest.raises(ValueError, match="expected at most 255 objects for uint8, found 484; choose uint16"):
        fb.instances(labels, dtype="uint8", out=tmp_path / "o.tif")
    assert not list(tmp_path.iterdir())


def test_objects_open_in_colours_in_imagej(tmp_path: Path) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[::3, ::3] = 1
    fb.instances(labels, out=tmp_path / "o.tif")
    with tifffile.TiffFile(tmp_path / "o.tif") as tif:
        metadata = tif.imagej_metadata or {}
        assert metadata["max"] == 484.0
        assert np.reshape(metadata["LUTs"], (3, 256))[:, 1:].any(axis=0).all()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.full((4, 4), 0.5, np.float32), ImageError, "name the axes"),
        (np.arange(400, dtype=np.uint16).reshape(20, 20), LabelError, "expected at most 255 classes"),
        (np.full((4, 4), -1, np.int8), LabelError, "expected label values of 0 or more, found -1"),
        (np.ones((2, 3, 4, 4, 4), np.uint8), ImageError, "name the axes"),
    ],
)
def test_what_is_no_segmentation(labels: NDArray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fb.instances(labels)


def test_options_out_of_range() -> None:
    discs = two_discs()
    with pytest.raises(ValueError, match="expected one of the methods components"):
        fb.instances(discs, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a connectivity from 1 to 2, found 3"):
        fb.instances(discs, connectivity=3)
    with pytest.raises(ValueError, match="expected h above 0, found -1"):
        fb.instances(discs, method="distance", h=-1)
    with pytest.raises(ImageError, match="expected probabilities for the method 'probability'"):
        fb.instances(discs, method="probability")
    with pytest.raises(ValueError, match="expected a time series for --track"):
        fb.instances(discs, track=True)


def test_command(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", two_discs())
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 9), np.uint8))
    ended = done("instances", tmp_path / "a.tif", "-o", tmp_path / "o.tif", "--method", "distance")
    assert ended.out.splitlines() == [str(tmp_path / "o.tif"), "2 objects"]
    dry = done("instances", tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "all", "--dry-run")
    assert "would write" in dry.out and not (tmp_path / "all").exists()
    ended = done("instances", tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "all", "--json")
    first, second = ended.json()["results"]
    assert (first["count"], first["objects"]) == (1, [{"id": 1, "value": 1, "name": "class 1"}])
    assert (second["count"], second["classes"]) == (0, {})
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["a_objects.tif", "b_objects.tif"]
    refused = call("instances", tmp_path / "a.tif", "-o", tmp_path / "o.tif")
    assert refused.code == 2 and "exists" in refused.err
    macro = done("instances", tmp_path / "b.tif", "-o", tmp_path / "o.tif", "--overwrite", "--macro")
    assert "status=ok" in macro.out and "objects=0" in macro.out


def test_vanished_objects_are_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.pad(np.ones((3, 3), np.uint8), 5))
    ended = done("instances", tmp_path / "a.tif", "-o", tmp_path / "o.tif", "--method", "erode")
    assert "0 objects" in ended.out and "1 object vanished" in ended.err


class _Frames:
    """Frames that are drawn when they are read."""

    def __init__(self, n: int) -> None:
        self.shape, self.dtype, self.frame = (n, 200, 200), np.dtype(np.uint8), np.tile(BLOBS[5], (3, 3))[:200, :200]

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.uint8]:
        return np.stack([np.roll(self.frame, t, 1) for t in range(*key[0].indices(self.shape[0]))])[:, key[1], key[2]]


def peak_of_frames(n: int, out: Path) -> int:
    """Return the peak of the memory that numbering takes, in bytes."""
    image = fb.Image(_Frames(n), "TYX", {})
    tracemalloc.start()
    fb.instances(image, out=out, track=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    few, many = peak_of_frames(10, tmp_path / "a.ome.tif"), peak_of_frames(150, tmp_path / "b.ome.tif")
    assert many - few < 10 * 200 * 200 * 4  # of 140 more frames less than ten stay
