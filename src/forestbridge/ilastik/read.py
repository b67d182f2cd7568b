"""An ilastik project (.ilp) in, a `Project` out.

The file is HDF5 and is read as such: nothing in it is unpickled, no link is followed out of it.
"""

from pathlib import Path

import numpy as np

from forestbridge.errors import ProjectError
from forestbridge.ilastik.export_settings import read_export_settings
from forestbridge.ilastik.labels import LanePoints, read_labels
from forestbridge.ilastik.lanes import PROJECT, read_lanes
from forestbridge.ilastik.project import Project
from forestbridge.ilastik.selection import read_selection
from forestbridge.ilastik.versions import parse_version
from forestbridge.ilastik.vigra_forest import VigraForest, read_forests
from forestbridge.image.hdf5_nodes import Node, open_hdf5
from forestbridge.image.source import shown
from forestbridge.labels import DEFAULT_COLOURS
from forestbridge.labels.check import MAX_CLASSES

GROUP = "PixelClassification"
FORESTS = f"{GROUP}/ClassifierForests"

SUFFIX = ".ilp"

CLASSIFIER = "parallelVigraRfLazyflowClassifier"
"""ilastik's own random forest, as the text beside it names it; a text without it means another classifier."""


def is_project(path: str | Path) -> bool:
    """Whether a path is named like an ilastik project."""
    return Path(path).suffix.lower() == SUFFIX


def read_project(path: str | Path) -> Project:
    """Read an ilastik project of pixel classification.

    Parameters
    ----------
    path
        NAME.ilp of ilastik 0.6 to 1.4, of any workflow with one stage of pixel classification.

    Raises
    ------
    ProjectError
        If it is missing, damaged, hostile, of another workflow, or of ilastik 0.5.
    """
    path = Path(path)
    with open_hdf5(path, PROJECT) as root:
        version, workflow = _version(root), root.text("workflowName", "")
        group = _group(root, workflow)
        lanes = read_lanes(root)
        labels = read_labels(group, lanes, version=parse_version(version), workflow=workflow)
        forest = _forest(root)
        names = _names(root, group, labels)
        selection = read_selection(root)
        return Project(
            path=path,
            version=version,
            workflow=workflow,
            saved=root.text("time", ""),
            lanes=lanes,
            selection=selection,
            names=names,
            colours=_colours(group, len(names)),
            labels=labels,
            forest=forest,
            feature_names=tuple(root.texts(f"{FORESTS}/feature_names")) if forest else (),
            export=read_export_settings(root),
        )


def _version(root: Node) -> str:
    dataset = root.dataset("ilastikVersion")
    if dataset is not None and dataset.dtype.kind == "f":
        raise ProjectError(
            f"{root.file}: expected a project of ilastik 0.6 or newer, found one of {root.scalar('ilastikVersion'):g}; open it in "
            "ilastik and save it again"
        )
    if dataset is None:
        raise ProjectError(
            f"{root.file}: expected an ilastik project, found an HDF5 file without ilastikVersion; give a file NAME.ilp that ilastik saved"
        )
    return root.text("ilastikVersion")


def _group(root: Node, workflow: str) -> Node:
    """Return the group of the pixel classification; refuse workflows with none, or several."""
    if root.members(f"{GROUP}0") or "utocontext" in workflow:
        raise ProjectError(
            f"{root.file}: expected a project with one stage of pixel classification, found autocontext ({workflow}): its second stage "
            "classifies the probabilities of the first one, which a forest over filters cannot; train a Pixel Classification project on "
            "the same labels (ilastik imports them)"
        )
    group = root.node(GROUP)
    if group is None:
        raise ProjectError(
            f"{root.file}: expected a project of Pixel Classification, found the workflow {workflow!r}; give a project with a pixel "
            "classifier"
        )
    return group


def _forest(root: Node) -> VigraForest | None:
    group = root.node(FORESTS)
    if group is None or not group.members():
        return None
    kind = group.text("pickled_type", CLASSIFIER)  # looked at as a text, never unpickled
    if CLASSIFIER not in kind:
        raise ProjectError(
            f"{root.file}: expected ilastik's own random forest, found another classifier ({shown(kind[:80])}), which is a pickle and can "
            "run code; choose Parallel Random Forest in ilastik (Advanced, Classifier) and train again"
        )
    forest = read_forests(group)
    if group.has("known_labels"):
        known = tuple(int(v) for v in group.array("known_labels", kinds="iu", ndim=1, most=2**16))
        if known != forest.labels:
            raise ProjectError(
                f"{root.file}: expected the classes {list(known)[:20]} in the forests, as known_labels says, found "
                f"{list(forest.labels)[:20]}; train in ilastik again"
            )
    return forest


def _names(root: Node, group: Node, labels: dict[int, LanePoints]) -> tuple[str, ...]:
    """Return the class names; "Label 1", ... for projects that do not keep any."""
    names = group.texts("LabelNames")
    largest = max((int(lane.values.max()) for lane in labels.values()), default=0)
    if not names and largest <= MAX_CLASSES:
        names = [f"Label {k}" for k in range(1, largest + 1)]
    if largest > len(names) or len(names) > MAX_CLASSES:
        raise ProjectError(
            f"{root.file}: expected labels of the classes 1 to {min(len(names), MAX_CLASSES)}, found {max(largest, len(names))}; remove "
            "these labels in ilastik and save the project"
        )
    doubles = {name for name in names if names.count(name) > 1}
    return tuple(
        f"{name} {k}" if name in doubles or not name.strip() else name for k, name in enumerate(names, start=1)
    )


def _colours(group: Node, n: int) -> tuple[str, ...]:
    colours = [DEFAULT_COLOURS[k % len(DEFAULT_COLOURS)] for k in range(n)]
    if group.has("LabelColors"):
        found = group.array("LabelColors", kinds="iu", ndim=2, most=2**16) if n else np.zeros((0, 3), np.int64)
        for k, rgb in enumerate(found[:n]):
            if len(rgb) == 3 and (rgb >= 0).all() and (rgb <= 255).all():
                colours[k] = "#{:02x}{:02x}{:02x}".format(*(int(v) for v in rgb))
    return tuple(colours)
