"""`PixelForest`: a random forest as plain arrays, with the spec of its features. Saved as safetensors, never as pickle.

`docs/formats.md` describes the file key by key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ForestError
from forestbridge.files import new_file
from forestbridge.spec import EncoderSpec

FOREST_FORMAT = 1
"""Raised when a tensor or key is removed or changes its meaning; readers refuse a number they do not know."""

TENSORS = {"feature": "I32", "threshold": "F32", "left": "I32", "roots": "I32", "leaves": "F32"}
"""The tensors of a forest file with their safetensors dtypes."""

MAX_FILE_BYTES = 2**32
"""A larger file is refused before it is read; a forest of 1000 trees with 10,000 leaves each and 10 classes has 0.6 GB."""


@dataclass(frozen=True, eq=False)
class PixelForest:
    """A random forest over the features of one encoder.

    The nodes of all trees stand in one numbering; the two children of a split stand side by side, after their parent.

    Attributes
    ----------
    feature
        (N,) int32: the feature that a split looks at; -1 for a leaf.
    threshold
        (N,) float32: a pixel goes left iff its feature ≤ threshold; 0 for a leaf.
    left
        (N,) int32: a split's left child (its right child is left + 1); for a leaf its row in `leaves`.
    roots
        (T,) int32: the root of each tree, ascending from 0; a tree's nodes reach up to the next root.
    leaves
        (L, K) float32: class fractions, each row sums to 1. A pixel's probabilities are the mean over the trees.
    n_features
        Number of features a pixel has.
    classes
        (K,) the label values as painted, ascending.
    names
        K class names for people.
    colours
        K colours as "#rrggbb".
    spec
        Encoder of the features; None for a forest over features that were not made by forestbridge.
    training
        Summary of the training, JSON values: pixels per class, out-of-bag accuracy, confusion matrix, parameters.
    versions
        Versions of the programs that made it.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    roots: NDArray[np.int32]
    leaves: NDArray[np.float32]
    n_features: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]
    spec: EncoderSpec | None
    training: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.roots)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def used_features(self) -> NDArray[np.int32]:
        """(U,) the features that some split looks at, ascending."""
        return np.unique(self.feature[self.feature >= 0])

    def depth(self) -> int:
        """Return the largest number of splits on a way from a root to a leaf."""
        depth, nodes = 0, self.roots
        while len(nodes := nodes[self.feature[nodes] >= 0]):
            depth += 1
            nodes = np.concatenate([self.left[nodes], self.left[nodes] + 1])
        return depth

    def describe(self) -> dict[str, Any]:
        """Return what `forestbridge info` prints, as JSON values."""
        return {
            "kind": "forest",
            "encoder": None if self.spec is None else {"name": self.spec.name, "fingerprint": self.spec.fingerprint()},
            "features": self.n_features,
            "trees": self.n_trees,
            "nodes": len(self.feature),
            "depth": self.depth(),
            "classes": [
                {"value": value, "name": name, "colour": colour}
                for value, name, colour in zip(self.classes, self.names, self.colours, strict=True)
            ],
            "training": dict(self.training),
            "versions": dict(self.versions),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the forest to a file; the same forest gives the same bytes.

        Raises
        ------
        OutputExistsError, ResourceError
            If the path exists, or its folder cannot be written.
        """
        from safetensors.numpy import save_file

        header = {
            "format": FOREST_FORMAT,
            "spec": None if self.spec is None else json.loads(self.spec.to_json()),
            "n_features": self.n_features,
            "classes": list(self.classes),
            "names": list(self.names),
            "colours": list(self.colours),
            "votes": "mean",
            "training": dict(self.training),
            "versions": dict(self.versions),
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
        with new_file(path, overwrite=overwrite) as temporary:
            save_file({name: getattr(self, name) for name in TENSORS}, temporary, metadata={"forestbridge": text})
        return Path(path)


def load_forest(path: str | Path) -> PixelForest:
    """Read a forest file and check its structure.

    Raises
    ------
    ForestError
        If the file is missing, no forest file, damaged, of an unknown format number, or its trees are not trees.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ForestError(
            f"expected a forest file, found {'a folder' if path.is_dir() else 'nothing'} at {path}; check the path"
        )
    _refuse_pickle(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ForestError(f"expected a forest of at most {MAX_FILE_BYTES} bytes, found {path.stat().st_size} in {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("forestbridge")
            if text is None:
                raise ForestError(
                    f"expected a forest with a forestbridge header, found the safetensors file {path} without one"
                )
            found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            if found != TENSORS:
                raise ForestError(
                    f"{path}: expected the tensors {TENSORS}, found {found}; the file is damaged or not a forest"
                )
            arrays = {name: file.get_tensor(name) for name in TENSORS}
    except SafetensorError as error:
        raise ForestError(
            f"expected a safetensors file, found {path}, which cannot be read ({error}); copy it again"
        ) from error
    forest = _forest_from_header(text, arrays, path)
    _check_structure(forest, path)
    return forest


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" or start[:2] == b"PK" or path.suffix in {".pkl", ".pickle", ".joblib", ".bin"}:
        raise ForestError(
            f"expected a forest saved by forestbridge, found {path}, which looks like a pickle or an archive; pickles can run code and "
            "are not loaded. Convert it where you trust it: forest_from_sklearn(rf).save('NAME.forest')"
        )


def _forest_from_header(text: str, arrays: dict[str, NDArray], path: Path) -> PixelForest:
    try:
        header = json.loads(text)
        if header.get("format") != FOREST_FORMAT or header.get("votes") != "mean":
            raise ForestError(
                f"{path}: expected forest format {FOREST_FORMAT} with votes 'mean', found {header.get('format')!r} with "
                f"{header.get('votes')!r}; update forestbridge to read it"
            )
        return PixelForest(
            **arrays,
            n_features=int(header["n_features"]),
            classes=tuple(int(c) for c in header["classes"]),
            names=tuple(str(n) for n in header["names"]),
            colours=tuple(str(c) for c in header["colours"]),
            spec=None if header["spec"] is None else EncoderSpec.from_json(json.dumps(header["spec"])),
            training=dict(header["training"]),
            versions={str(k): str(v) for k, v in header["versions"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ForestError(
            f"{path}: expected a complete forest header, found one that cannot be used ({error!r}); copy it again"
        ) from error


def _check_structure(forest: PixelForest, path: Path) -> None:
    """Refuse arrays that are not trees: an engine would read beyond them or never end."""

    def require(good: bool, expected: str) -> None:
        if not good:
            raise ForestError(
                f"{path}: expected {expected}, found another structure; the file is damaged or was made to do harm"
            )

    feature, left, roots, leaves = forest.feature, forest.left, forest.roots, forest.leaves
    n = len(feature)
    require(
        all(a.ndim == 1 for a in (feature, forest.threshold, left, roots)) and leaves.ndim == 2,
        "vectors of nodes and a matrix of leaves",
    )
    require(n == len(forest.threshold) == len(left) and n > 0, "feature, threshold and left of the same length")
    require(
        len(roots) > 0 and roots[0] == 0 and bool((np.diff(roots) > 0).all()) and roots[-1] < n,
        "roots ascending from 0, below the number of nodes",
    )
    k = forest.n_classes
    require(
        k > 0 and leaves.shape[1] == k == len(forest.names) == len(forest.colours),
        "as many names, colours and leaf columns as classes",
    )
    require(
        list(forest.classes) == sorted(set(forest.classes)) and forest.classes[0] >= 0,
        "classes ascending and not negative",
    )
    require(
        bool(((feature >= -1) & (feature < forest.n_features)).all()), f"features from -1 to {forest.n_features - 1}"
    )
    require(forest.spec is None or forest.spec.n_features == forest.n_features, "as many features as the spec has")
    require(bool(np.isfinite(forest.threshold).all() and np.isfinite(leaves).all()), "finite thresholds and leaves")
    require(
        bool((leaves >= 0).all() and np.allclose(leaves.sum(axis=1), 1, atol=1e-5)),
        "leaf rows of fractions that sum to 1",
    )
    split = feature >= 0
    index = np.arange(n)
    end = np.append(roots[1:], n)[
        np.searchsorted(roots, index, side="right") - 1
    ]  # first node after the tree of each node
    require(
        bool(((left[split] > index[split]) & (left[split] + 1 < end[split])).all()),
        "children after their parent, inside its tree",
    )
    children = np.concatenate([left[split], left[split] + 1])
    require(len(np.unique(children)) == len(children) == n - len(roots), "every node but the roots to have one parent")
    require(not np.isin(roots, children).any(), "roots without a parent")
    require(bool(((left[~split] >= 0) & (left[~split] < len(leaves))).all()), "leaf rows inside the leaf matrix")


def forest_from_sklearn(
    rf: Any,
    spec: EncoderSpec | None = None,
    names: Sequence[str] | None = None,
    *,
    colours: Sequence[str] | None = None,
) -> PixelForest:
    """Wrap a fitted scikit-learn forest.

    Parameters
    ----------
    rf
        A fitted ``RandomForestClassifier`` or ``ExtraTreesClassifier`` of one output. Integer classes are kept as label values;
        other classes become 1..K and give the names.
    spec
        Encoder of its features, if forestbridge made them.
    names, colours
        One per class; by default "class <value>" and a fixed cycle of colours.

    Raises
    ------
    ForestError
        If it is not such a forest, is not fitted, or its number of features is not the spec's.
    ValueError
        If the number of names or colours is not the number of classes.
    """
    from sklearn import __version__ as sklearn_version

    from forestbridge.labels import DEFAULT_COLOURS

    trees = getattr(rf, "estimators_", None)
    if (
        not trees
        or not all(hasattr(t, "tree_") and hasattr(t, "classes_") for t in trees)
        or getattr(rf, "n_outputs_", 0) != 1
    ):
        raise ForestError(
            f"expected a fitted RandomForestClassifier or ExtraTreesClassifier of one output, found {type(rf).__name__}; fit it first"
        )
    if spec is not None and spec.n_features != rf.n_features_in_:
        raise ForestError(
            f"expected a forest over the {spec.n_features} features of {spec}, found one over {rf.n_features_in_}"
        )
    integer = np.issubdtype(np.asarray(rf.classes_).dtype, np.integer) and min(rf.classes_) >= 0
    classes = tuple(int(c) for c in rf.classes_) if integer else tuple(range(1, len(rf.classes_) + 1))
    if names is None:
        names = [f"class {c}" for c in classes] if integer else [str(c) for c in rf.classes_]
    if colours is None:
        colours = [DEFAULT_COLOURS[i % len(DEFAULT_COLOURS)] for i in range(len(classes))]
    if len(names) != len(classes) or len(colours) != len(classes):
        raise ValueError(
            f"expected {len(classes)} names and colours, one for each of the classes {classes}, found {list(names)} and {list(colours)}"
        )
    parts, node, leaf = [], 0, 0
    for tree in trees:
        parts.append(_renumber(tree.tree_, first_node=node, first_leaf=leaf))
        node, leaf = node + len(parts[-1][0]), leaf + len(parts[-1][3])
    feature, threshold, left, leaves = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return PixelForest(
        feature=feature,
        threshold=threshold,
        left=left,
        roots=np.cumsum([0] + [len(p[0]) for p in parts[:-1]], dtype=np.int32),
        leaves=leaves,
        n_features=int(rf.n_features_in_),
        classes=classes,
        names=tuple(names),
        colours=tuple(colours),
        spec=spec,
        training={},
        versions={"scikit-learn": sklearn_version},
    )


def _renumber(
    tree: Any, *, first_node: int, first_leaf: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Return feature, threshold, left and leaves of one scikit-learn tree, level by level, so that siblings stand side by side."""
    levels = [np.zeros(1, np.intp)]
    while len(parents := levels[-1][tree.children_left[levels[-1]] >= 0]):
        levels.append(
            np.stack([tree.children_left[parents], tree.children_right[parents]], axis=1).ravel()
        )  # (2·P,) left, right, ...
    old = np.concatenate(levels)
    new = np.empty(tree.node_count, np.int32)
    new[old] = np.arange(len(old)) + first_node
    split = tree.children_left[old] >= 0
    left = np.empty(len(old), np.int32)
    left[split] = new[tree.children_left[old[split]]]
    left[~split] = np.arange(np.count_nonzero(~split)) + first_leaf
    value = tree.value[old[~split], 0, :]  # (leaves, K) fractions, or counts before scikit-learn 1.3
    return (
        np.where(split, tree.feature[old], -1).astype(np.int32),
        np.where(split, floor_float32(tree.threshold[old]), np.float32(0)),
        left,
        (value / value.sum(axis=1, keepdims=True)).astype(np.float32),
    )


def floor_float32(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 ≤ each threshold: for float32 x, x ≤ threshold holds for both or for neither."""
    rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def with_training(forest: PixelForest, training: Mapping[str, Any], versions: Mapping[str, str]) -> PixelForest:
    """Return the forest with the summary of its training and the versions that made it."""
    return replace(forest, training=training, versions={**forest.versions, **versions})
