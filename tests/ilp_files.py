"""ilastik projects for tests, written with h5py in ilastik's layout and by nothing of ours; and a plain walk through vigra's trees."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "GaussianSmoothing",
    "LaplacianOfGaussian",
    "GaussianGradientMagnitude",
    "DifferenceOfGaussians",
    "StructureTensorEigenvalues",
    "HessianOfGaussianEigenvalues",
)
SCALES = (0.7, 1.0, 1.6)
SELECTION = {"GaussianSmoothing": [0.7, 1.6], "HessianOfGaussianEigenvalues": [1.0]}
"""Four features per channel in 2D, five in 3D."""

FLAGS = {"t": 8, "c": 1, "z": 2, "y": 2, "x": 2}

Tree = tuple[Any, ...]
"""A split (column, threshold, left, right), or a leaf (fractions,)."""


def tags(axes: str) -> str:
    """Return axistags as vigra writes them."""
    keys = [{"key": a, "typeFlags": FLAGS[a], "resolution": 0, "description": ""} for a in axes]
    return json.dumps({"axes": keys}, indent=2)


def random_tree(rng: np.random.Generator, depth: int, columns: int, classes: int) -> Tree:
    """Return a tree; thresholds are doubles that no float32 equals, or just such ones."""
    if depth == 0 or rng.random() < 0.1:
        fractions = rng.dirichlet(np.ones(classes))
        return (fractions,)
    threshold = float(rng.normal(100, 60))
    if rng.random() < 0.5:
        threshold = float(np.float32(threshold))
    left, right = (random_tree(rng, depth - 1, columns, classes) for _ in range(2))
    return (int(rng.integers(columns)), threshold, left, right)


def encode_tree(tree: Tree, columns: int, classes: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return topology and parameters as vigra lays them out: depth first, the right child before the left one."""
    topology, parameters = [columns, classes], []

    def add(node: Tree) -> int:
        place = len(topology)
        if len(node) == 1:
            topology.extend([0x40000000, len(parameters)])
            parameters.extend([1.0, *node[0]])
            return place
        topology.extend([0, len(parameters), 0, 0, node[0]])
        parameters.extend([1.0, node[1]])
        topology[place + 3] = add(node[3])
        topology[place + 2] = add(node[2])
        return place

    add(tree)
    return np.array(topology, np.int32), np.array(parameters, np.float64)


def walk(tree: Tree, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the fractions of the leaf that a row reaches: left iff the float32 is below the double."""
    while len(tree) > 1:
        tree = tree[2] if float(row[tree[0]]) < tree[1] else tree[3]
    return np.asarray(tree[0])


def write_forest_group(group: h5py.Group, trees: Sequence[Tree], columns: int, labels: Sequence[int]) -> None:
    """Write a vigra forest."""
    group.attrs["vigra_random_forest_version"] = np.array([0.1])
    for key, value in {"tree_count_": len(trees), "predict_weighted_": 0, "mtry_": 0}.items():
        group[f"_options/{key}"] = np.array([float(value)])
    for key, value in {"column_count_": columns, "class_count_": len(labels), "problem_type_": 1}.items():
        group[f"_ext_param/{key}"] = np.array([float(value)])
    group["_ext_param/labels"] = np.array(labels, np.uint32)
    digits = len(str(len(trees) - 1))
    for n, tree in enumerate(trees):
        topology, parameters = encode_tree(tree, columns, len(labels))
        group[f"Tree_{n:0{digits}}/topology"] = topology
        group[f"Tree_{n:0{digits}}/parameters"] = parameters


def write_ilp(
    path: Path,
    image: NDArray,
    *,
    axes: str = "yxc",
    blocks: Sequence[tuple[Sequence[int], NDArray]] = (),
    label_axes: str | None = None,
    forests: Sequence[Sequence[Tree]] = (),
    columns: int = 4,
    known: Sequence[int] = (1, 2),
    names: Sequence[str] | None = ("background", "cell"),
    colours: Sequence[Sequence[int]] = ((255, 0, 0), (0, 255, 0)),
    version: str = "1.4.0",
    workflow: str = "Pixel Classification",
    scales: Sequence[float] = SCALES,
    features: Sequence[str] = FEATURES,
    selection: Mapping[str, Sequence[float]] = SELECTION,
    in_2d: Sequence[bool] | None = (True, True, True),
    feature_names: Sequence[str] | None = None,
    file: str | None = None,
    label_tags: bool = True,
    old_lanes: bool = False,
) -> Path:
    """Write a project of one image.

    Parameters
    ----------
    image
        With the axes `axes`.
    blocks
        First pixel and labels of each block, in `label_axes`; by default the axes of the image with c at the end.
    forests
        The trees of each worker forest.
    file
        The image's file, in place of embedding it.
    label_tags
        Whether blocks have axistags.
    old_lanes
        Whether the entry stands in the lane itself, as before prediction masks.
    """
    with h5py.File(path, "w") as f:
        f["ilastikVersion"], f["workflowName"], f["time"] = version.encode(), workflow.encode(), b"Mon Jan 25 2021"
        info = f.create_group("Input Data/infos/lane0000" + ("" if old_lanes else "/Raw Data"))
        if not old_lanes:
            f["Input Data/Role Names"] = [b"Raw Data", b"Prediction Mask"]
            f.create_group("Input Data/infos/lane0000/Prediction Mask")
        if file is None:
            f["Input Data/local_data/an-id"] = image
            f["Input Data/local_data/an-id"].attrs["axistags"] = tags(axes)
            entry = {"location": b"ProjectInternal", "datasetId": b"an-id", "filePath": b"elsewhere"}
            if not old_lanes:
                entry["inner_path"] = b"/Input Data/local_data/an-id"
        else:
            entry = {"location": b"FileSystem", "filePath": file.encode()}
        for key, value in {**entry, "nickname": b"cells", "axistags": tags(axes).encode()}.items():
            info[key] = value
        info["shape"] = list(image.shape)
        info["allowLabels"] = True
        f["FeatureSelections/FeatureIds"] = [x.encode() for x in features]
        f["FeatureSelections/Scales"] = np.array(scales, float)
        f["FeatureSelections/SelectionMatrix"] = np.array(
            [[s in selection.get(x, ()) for s in scales] for x in features]
        )
        if in_2d is not None:
            f["FeatureSelections/ComputeIn2d"] = np.array(in_2d, bool)
        group = f.create_group("PixelClassification")
        if names is not None:
            group["LabelNames"] = [x.encode() for x in names]
            group["LabelColors"] = np.array(colours, np.int64)
        label_axes = label_axes or axes.replace("c", "") + "c"
        for n, (start, block) in enumerate(blocks):
            name = f"LabelSets/labels000/block{n:04d}"
            group[name] = block
            place = ",".join(f"{a}:{a + length}" for a, length in zip(start, block.shape, strict=True))
            group[name].attrs["blockSlice"] = f"[{place}]".encode()
            if label_tags:
                group[name].attrs["axistags"] = tags(label_axes)
        for n, trees in enumerate(forests):
            made = group.create_group(f"ClassifierForests/Forest{n:04d}")
            write_forest_group(made, trees, columns, known)
        if forests:
            group["ClassifierForests/known_labels"] = np.array(known, np.uint32)
            group["ClassifierForests/pickled_type"] = (
                b"clazyflow.classifiers.parallelVigraRfLazyflowClassifier\nParallelVigraRfLazyflowClassifier\np0\n."
            )
            if feature_names is not None:
                group["ClassifierForests/feature_names"] = [x.encode() for x in feature_names]
    return path
