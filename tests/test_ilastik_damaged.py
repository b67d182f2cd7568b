"""Damaged and hostile ilastik projects: refused with what is wrong, and nothing in them is run, followed or believed."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import forestbridge as fb
from command_line import call
from forestbridge.errors import ProjectError
from ilp_files import encode_tree, random_tree, write_ilp

IMAGE = np.random.default_rng(0).integers(0, 200, (40, 50, 1)).astype(np.uint8)
BLOCK = np.array([[[1], [2]]], np.uint8)
TREES = [random_tree(np.random.default_rng(1), 4, 4, 2) for _ in range(3)]
FOREST = "PixelClassification/ClassifierForests/Forest0000"
TREE = f"{FOREST}/Tree_1"
SMALL = (2, 10.0, (np.array([1.0, 0.0]),), (np.array([0.0, 1.0]),))
"""One split: topology [4, 2, 0, 0, 9, 7, 2, LEAF, 2, LEAF, 5]."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_ilp(tmp_path / "a.ilp", IMAGE, blocks=[((3, 4, 0), BLOCK)], forests=[TREES])


def replace(file: h5py.File, name: str, value: object) -> None:
    """Replace a dataset."""
    del file[name]
    file[name] = value


def replace_tree(file: h5py.File, **changes: tuple[int, float]) -> None:
    """Replace a tree by the small one with some values changed: topology=(place, value), parameters=(place, value)."""
    topology, parameters = encode_tree(SMALL, 4, 2)
    for name, array in (("topology", topology), ("parameters", parameters)):
        if name in changes:
            place, value = changes[name]
            array[place] = value
        replace(file, f"{TREE}/{name}", array)


class Payload:
    """A pickle that would leave a trace if it were loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


DAMAGE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "cycle": (lambda f: replace_tree(f, topology=(4, 2)), r"expected each node to be reached once"),
    "shared node": (lambda f: replace_tree(f, topology=(4, 7)), r"expected each node to be reached once"),
    "child outside": (lambda f: replace_tree(f, topology=(5, 4000)), r"expected nodes inside the tree"),
    "child negative": (lambda f: replace_tree(f, topology=(5, -7)), r"expected nodes inside the tree"),
    "child in the header": (lambda f: replace_tree(f, topology=(5, 0)), r"expected nodes inside the tree"),
    "split at the end": (lambda f: replace_tree(f, topology=(9, 0)), r"expected nodes inside the tree"),
    "column": (
        lambda f: replace_tree(f, topology=(6, 4)),
        r"Tree_1: expected columns from 0 to 3, found another structure",
    ),
    "column negative": (lambda f: replace_tree(f, topology=(6, -1)), r"expected columns from 0 to 3"),
    "hyperplane": (lambda f: replace_tree(f, topology=(2, 1)), r"expected splits on one feature each, no hyperplane"),
    "hypersphere": (lambda f: replace_tree(f, topology=(2, 2)), r"no hypersphere"),
    "unknown node": (lambda f: replace_tree(f, topology=(2, 42)), r"expected splits and leaves"),
    "threshold outside": (lambda f: replace_tree(f, topology=(3, 99)), r"expected thresholds inside the parameters"),
    "leaf outside": (lambda f: replace_tree(f, topology=(8, 6)), r"expected leaves inside the parameters"),
    "NaN threshold": (
        lambda f: replace_tree(f, parameters=(1, np.nan)),
        r"expected thresholds in the range of float32",
    ),
    "huge threshold": (
        lambda f: replace_tree(f, parameters=(1, 1e300)),
        r"expected thresholds in the range of float32",
    ),
    "fractions": (lambda f: replace_tree(f, parameters=(3, 0.9)), r"expected leaves of fractions that sum to 1"),
    "NaN fraction": (lambda f: replace_tree(f, parameters=(3, np.nan)), r"expected leaves of fractions"),
    "other features": (lambda f: replace_tree(f, topology=(0, 9)), r"expected a tree over 4 features and 2 classes"),
    "no root": (lambda f: replace(f, f"{TREE}/topology", np.array([4, 2], np.int32)), r"expected a tree with a root"),
    "topology of texts": (
        lambda f: replace(f, f"{TREE}/topology", [b"a"]),
        r"expected at most .* numbers .*, found object",
    ),
    "tree missing": (lambda f: f.__delitem__(TREE), r"expected 3 trees in .*Forest0000, found 2"),
    "labels missing": (
        lambda f: f.__delitem__(f"{FOREST}/_ext_param/labels"),
        r"expected numbers of 1 dimension\(s\) at",
    ),
    "labels disordered": (
        lambda f: replace(f, f"{FOREST}/_ext_param/labels", np.array([2, 1])),
        r"expected 2 ascending",
    ),
    "weighted votes": (
        lambda f: replace(f, f"{FOREST}/_options/predict_weighted_", [1.0]),
        r"expected trees that count alike",
    ),
    "version": (
        lambda f: f[FOREST].attrs.__setitem__("vigra_random_forest_version", 0.2),
        r"version 0.1, found 0.2; update",
    ),
    "known labels": (
        lambda f: replace(f, "PixelClassification/ClassifierForests/known_labels", [1, 3]),
        r"classes \[1, 3\]",
    ),
    "huge known label": (
        lambda f: (
            (
                replace(f, "PixelClassification/ClassifierForests/known_labels", [1, 4_000_000_000]),
                replace(f, f"{FOREST}/_ext_param/labels", [1, 4_000_000_000]),
            )
        ),
        r"expected a forest of the classes 1 to 2, found one of \[4000000000\] too",
    ),
    "huge label": (
        lambda f: replace_block(f, BLOCK.astype(np.uint32) * 3_000_000_000),
        r"expected labels of the classes 1 to 2, found 3000000000",
    ),
    "label outside": (
        lambda f: set_place(f, "[3:4,49:51,0:1]"),
        r"expected labels inside the image \(X=50\), found one at x=50",
    ),
    "place of another size": (
        lambda f: set_place(f, "[3:5,4:6,0:1]"),
        r"expected the place of a block of \(1, 2, 1\) pixels",
    ),
    "place as code": (lambda f: set_place(f, "[__import__('os'):1]"), r"found \"\[__import__"),
    "no place": (lambda f: f[BLOCK_NAME].attrs.__delitem__("blockSlice"), r"expected the place of a block .* found ''"),
    "axes of a block": (
        lambda f: (replace_block(f, BLOCK[0, 0]), set_place(f, "[3:4]")),
        r"expected labels with the axes of the image \(yxc\), found a block of 1 dimensions",
    ),
    "matrix": (
        lambda f: replace(f, "FeatureSelections/SelectionMatrix", np.ones((2, 2), bool)),
        r"expected a matrix with a row",
    ),
    "unknown feature": (
        lambda f: replace(f, "FeatureSelections/FeatureIds", [b"Gabor"] * 6),
        r"expected the features .*, found Gabor; use a project",
    ),
    "scale": (
        lambda f: replace(f, "FeatureSelections/Scales", np.array([-1.0, 1, 1.6])),
        r"expected scales above 0 .* found \[-1.0\]",
    ),
    "features from a file": (
        lambda f: f.__setitem__("FeatureSelections/FeatureListFilename", [b"/etc/passwd"]),
        r"found ones from a file \(FeatureListFilename\)",
    ),
    "shape": (lambda f: replace(f, "Input Data/infos/lane0000/Raw Data/axistags", b'{"axes": []}'), None),
    "image gone": (
        lambda f: f.__delitem__("Input Data/local_data/an-id"),
        r"expected the image of .* at .*an-id, found nothing there",
    ),
    "name is a group": (
        lambda f: (f.__delitem__("workflowName"), f.create_group("workflowName")),
        r"expected a dataset at /workflowName, found a group",
    ),
    "forest is a dataset": (
        lambda f: (f.__delitem__(FOREST), f.__setitem__(FOREST, [1])),
        r"expected a group at .*Forest0000, found dataset",
    ),
    "autocontext": (
        lambda f: f.create_group("PixelClassification01"),
        r"found autocontext \(Pixel Classification\)",
    ),
    "autocontext by name": (lambda f: replace(f, "workflowName", b"AutocontextTwoStage"), r"found autocontext"),
    "another workflow": (
        lambda f: (f.__delitem__("PixelClassification"), replace(f, "workflowName", b"Carving")),
        r"expected a project of Pixel Classification, found the workflow 'Carving'",
    ),
    "ilastik 0.5": (
        lambda f: replace(f, "ilastikVersion", 0.5),
        r"expected a project of ilastik 0.6 or newer, found one of 0.5",
    ),
    "no version": (lambda f: f.__delitem__("ilastikVersion"), r"found an HDF5 file without ilastikVersion"),
}
BLOCK_NAME = "PixelClassification/LabelSets/labels000/block0000"


def replace_block(file: h5py.File, block: np.ndarray) -> None:
    attributes = dict(file[BLOCK_NAME].attrs)
    replace(file, BLOCK_NAME, block)
    file[BLOCK_NAME].attrs.update(attributes)


def set_place(file: h5py.File, text: str) -> None:
    file[BLOCK_NAME].attrs["blockSlice"] = text


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(project, name):
    damage, message = DAMAGE[name]
    with h5py.File(project, "r+") as file:
        damage(file)
    if message is None:  # what the dataset itself says counts
        assert fb.read_project(project).pixel_forest().n_trees == 3
        return
    with pytest.raises(ProjectError, match=message):
        fb.read_project(project).pixel_forest()


def test_the_undamaged_project_is_good(project):
    assert fb.read_project(project).pixel_forest().n_trees == 3
    with h5py.File(project, "r+") as file:
        replace_tree(file)
    assert fb.read_project(project).pixel_forest().n_trees == 3


@pytest.mark.parametrize(
    "name",
    [
        "ilastikVersion",
        "PixelClassification",
        "PixelClassification/LabelNames",
        BLOCK_NAME,
        "FeatureSelections/Scales",
        "Input Data/local_data/an-id",
        FOREST,
        f"{TREE}/topology",
    ],
)
@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_are_never_followed(project, tmp_path, name, kind):
    other = write_ilp(tmp_path / "b.ilp", IMAGE, blocks=[((3, 4, 0), BLOCK)], forests=[TREES])
    with h5py.File(project, "r+") as file:
        file.move(name, "aside")
        file[name] = h5py.ExternalLink(str(other), name) if kind == "external" else h5py.SoftLink("/aside")
    with pytest.raises(
        ProjectError, match=r"expected what the file holds itself at .*, found a link to another place or file"
    ):
        fb.read_project(project).pixel_forest()


@pytest.mark.parametrize("name", ["PixelClassification/LabelSets/labels000/block0000", "Input Data/local_data/an-id"])
def test_values_in_other_files_are_never_read(project, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x01" * 10_000)
    with h5py.File(project, "r+") as file:
        shape, attributes = file[name].shape, dict(file[name].attrs)
        del file[name]
        made = file.create_dataset(name, shape, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        made.attrs.update(attributes)
    with pytest.raises(ProjectError, match=r"found a dataset whose values lie in another file"):
        fb.read_project(project)
    with h5py.File(project, "r+") as file:
        del file[name]
        layout = h5py.VirtualLayout(shape, np.uint8)
        layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape)
        file.create_virtual_dataset(name, layout).attrs.update(attributes)
    with pytest.raises(ProjectError, match=r"found a dataset whose values lie in another file"):
        fb.read_project(project)


def test_pickles_are_never_loaded(project, tmp_path):
    trace = tmp_path / "trace"
    payload = pickle.dumps(Payload(trace), 0)
    with h5py.File(project, "r+") as file:
        group = file["PixelClassification"]
        group["ClassifierFactory"] = np.void(payload)
        group["Bookmarks/0000"] = np.void(payload)
        replace(group, "ClassifierForests/pickled_type", np.void(payload))
    with pytest.raises(
        ProjectError, match=r"found another classifier .*, which is a pickle and can run code; choose Parallel"
    ):
        fb.read_project(project)
    with h5py.File(project, "r+") as file:  # with the right name in it, it is still a text
        replace(
            file,
            "PixelClassification/ClassifierForests/pickled_type",
            np.void(payload + b"parallelVigraRfLazyflowClassifier"),
        )
    assert fb.read_project(project).pixel_forest().n_trees == 3
    assert not trace.exists()
    pickle.loads(payload)
    assert trace.exists()  # it would have left one


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_truncated_projects_are_refused(project, share):
    whole = project.read_bytes()
    project.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        ProjectError, match=r"expected an ilastik project \(.ilp\) \(an HDF5 file\), found a file that cannot be opened"
    ):
        fb.read_project(project)


def test_bytes_changed_anywhere_end_well(project):
    """Whatever byte is damaged: it is read as before, or refused by one of our errors."""
    whole = project.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 200):
        project.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            fb.read_project(project).pixel_forest()
        except ProjectError:
            refused += 1
    assert 5 < refused < 195


def test_projects_that_are_none(tmp_path):
    (tmp_path / "a.ilp").write_bytes(b"no HDF5 at all")
    with pytest.raises(ProjectError, match=r"found a file that cannot be opened as such"):
        fb.read_project(tmp_path / "a.ilp")
    with pytest.raises(ProjectError, match=r"expected an ilastik project \(.ilp\), found nothing at"):
        fb.read_project(tmp_path / "b.ilp")
    (tmp_path / "c.ilp").mkdir()
    with pytest.raises(ProjectError, match=r"found a folder at"):
        fb.read_project(tmp_path / "c.ilp")


def test_what_is_missing_is_told_when_it_is_needed(tmp_path):
    path = write_ilp(tmp_path / "a.ilp", IMAGE)
    project = fb.read_project(path)
    with pytest.raises(
        ProjectError, match=r"expected a trained forest, found none: .* forestbridge train .*a.ilp -o NAME.forest"
    ):
        project.pixel_forest()
    with pytest.raises(ProjectError, match=r"expected labels to train on, found none"):
        project.training_pairs()
    with h5py.File(path, "r+") as file:
        replace(file, "FeatureSelections/SelectionMatrix", np.zeros((6, 3), bool))
    with pytest.raises(ProjectError, match=r"expected selected features, found none"):
        _ = fb.read_project(path).encoder


def test_a_selection_that_changed_since_training_is_refused(tmp_path):
    path = write_ilp(tmp_path / "a.ilp", IMAGE, forests=[TREES], selection={"GaussianSmoothing": [0.7]})
    with pytest.raises(
        ProjectError, match=r"expected a forest over the 1 features that the project selects, found one over 4"
    ):
        fb.read_project(path).pixel_forest()


def test_the_command_line_ends_with_3_and_no_traceback(project):
    with h5py.File(project, "r+") as file:
        replace_tree(file, topology=(4, 2))
    for words in (["info", project], ["train", project, "-o", project.parent / "x.forest"]):
        ended = call(*words)
        assert ended.code == 3 and ended.out == ""
        assert re.match(r"forestbridge: .*Tree_1: expected each node to be reached once", ended.err), ended.err
        assert "Traceback" not in ended.err
    assert not (project.parent / "x.forest").exists()
