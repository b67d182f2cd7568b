"""Training sets with dense masks: pixels drawn from them train a forest that finds the objects again."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import forestbridge as fb
from command_line import CELLS, call, done
from forestbridge.errors import LabelError
from forestbridge.objects import evaluate, scribbles_of_masks
from forestbridge.phantom import phantom

OBJECTS = ndimage.label(CELLS.truth == 2)[0].astype(np.uint16)


def test_pixels_are_drawn_from_the_masks() -> None:
    found = scribbles_of_masks(OBJECTS, max_pixels=300)
    assert found.counts == {1: 300, 2: 300}
    assert (found.names, found.axes, found.shape) == ({1: "background", 2: "object"}, "YX", (1, 1, 96, 112))
    t, z, y, x = found.points.T
    assert not t.any() and not z.any()
    np.testing.assert_array_equal(found.values, np.where(OBJECTS[y, x] > 0, 2, 1))
    assert len(np.unique(found.points, axis=0)) == 600
    np.testing.assert_array_equal(found.points, found.points[np.lexsort(found.points.T[::-1])])
    same, other = scribbles_of_masks(OBJECTS, max_pixels=300), scribbles_of_masks(OBJECTS, max_pixels=300, seed=1)
    np.testing.assert_array_equal(found.points, same.points)
    assert (found.points != other.points).any()
    everything = scribbles_of_masks(OBJECTS, max_pixels=10**6)
    assert everything.counts == {1: int((OBJECTS == 0).sum()), 2: int((OBJECTS > 0).sum())}


def test_every_pixel_of_a_stack_has_the_same_chance() -> None:
    stack = np.zeros((20, 30, 40), np.uint8)
    stack[:, :15] = np.arange(1, 21)[:, None, None]
    per_plane = np.zeros(20)
    for seed in range(10):
        per_plane += np.bincount(scribbles_of_masks(stack, max_pixels=2000, seed=seed).points[:, 1], minlength=20)
    assert per_plane == pytest.approx(10 * 4000 / 20, rel=0.1)


def test_borders_are_a_class_of_their_own() -> None:
    labels = np.zeros((12, 20), np.uint8)
    labels[2:10, 2:10], labels[2:10, 10:18] = 1, 2
    found = scribbles_of_masks(labels, masks="border", max_pixels=10**6)
    assert found.names == {1: "background", 2: "object", 3: "border"}
    inside = np.zeros(labels.shape, bool)
    inside[3:9, 3:9] = inside[3:9, 11:17] = True
    np.testing.assert_array_equal(found.at_plane(), np.where(inside, 2, np.where(labels > 0, 3, 1)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a training set of two pictures, and a third image without masks."""
    tmp_path = tmp_path / "set"
    tmp_path.mkdir()
    for seed, name in ((0, "a"), (5, "b"), (6, "c")):
        sample = phantom((96, 112), classes=2, seed=seed)
        tifffile.imwrite(tmp_path / f"{name}.tif", sample.image)
        if name != "c":
            tifffile.imwrite(tmp_path / f"{name}_masks.tif", ndimage.label(sample.truth == 2)[0].astype(np.uint16))
    return tmp_path


def test_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pairs = fb.read_training_set(folder, max_pixels=200)
    assert [(p.image.name, p.scribbles.source) for p in pairs] == [("a.tif", "a_masks.tif"), ("b.tif", "b_masks.tif")]
    assert any("images without masks are left out: c" in record.getMessage() for record in caplog.records)
    assert not np.array_equal(pairs[0].scribbles.points, pairs[1].scribbles.points)


def test_command_trains_what_finds_the_objects(folder: Path, tmp_path: Path) -> None:
    arguments = ["train", folder, "-o", tmp_path / "m.forest", "--n-trees", "10", "--max-pixels", "400", "--json"]
    forest = done(*arguments).json()
    assert forest["training"]["pixels"] == {"1": 800, "2": 800}
    assert [c["name"] for c in forest["classes"]] == ["background", "object"]
    done("predict", folder / "c.tif", "--forest", tmp_path / "m.forest", "-o", tmp_path / "c.tif", "--kind", "labels")
    truth = phantom((96, 112), classes=2, seed=6).truth
    assert evaluate(tmp_path / "c.tif", truth, kind="classes").mean_iou > 0.9
    named = done(*arguments, "--overwrite", "--names", "nothing", "cell", "--dry-run").json()
    assert named["scribbles"][0]["classes"][1]["name"] == "cell"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["set", "--labels", "set/a_masks.tif"], 2, "expected folders of images and masks alone"),
        (["set", "set/a.tif"], 2, "expected folders of images and masks alone"),
        (
            ["set", "--masks-suffix", "_seg"],
            3,
            "expected images NAME.tif with masks NAME_seg.tif in set, found no masks",
        ),
        (["set/a.tif", "--labels", "set/a_masks.tif", "--max-pixels", "9"], 2, "expected --max-pixels with folders of"),
    ],
)
def test_command_refuses(
    folder: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    ended = call("train", *arguments, "-o", "x.forest")
    assert ended.code == code and message in ended.err, ended.err
    assert not Path("x.forest").exists()


def test_refused(folder: Path) -> None:
    (folder / "b.tif").unlink()
    with pytest.raises(LabelError, match=r"expected an image for each of the masks in .*, found none for b_masks\.tif"):
        fb.read_training_set(folder)
    with pytest.raises(LabelError, match=r"expected a folder of images with masks, found none at"):
        fb.read_training_set(folder / "nowhere")
    with pytest.raises(ValueError, match=r"expected masks as one of foreground, border, found 'both'"):
        scribbles_of_masks(OBJECTS, masks="both")  # pyright: ignore[reportArgumentType]
