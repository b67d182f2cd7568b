"""`PixelForest`: a random forest as plain arrays, with the spec of its features. Saved as safetensors, never as pickle.

`docs/formats.md` describes the file key by key.
"""

import json
from collections.abc import Mapping
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
    check_structure(forest, path)
    return forest


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header, which may look like anything, and then the header.
    suspicious = start[:1] == b"\x80" or start[:2] == b"PK" or path.suffix in {".pkl", ".pickle", ".joblib", ".bin"}
    if suspicious and start[8:] != b"{":
        raise ForestError(
            f"expected a forest saved by forestbridge, found {path}, which looks like a pickle or an archive; pickles can run code and "
            "are not loaded. Convert it where you trust it: forest_from_sklearn(rf).save('NAME.forest'); "
            f"a model of FeatureForest: ff-package convert {path} -o NAME.forest"
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


def check_structure(forest: PixelForest, path: Path) -> None:
    """Refuse arrays that are not trees: an engine would read beyond them or never end.

    Raises
    ------
    ForestError
        Naming the file.
    """

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


def with_training(forest: PixelForest, training: Mapping[str, Any], versions: Mapping[str, str]) -> PixelForest:
    """Return the forest with the summary of its training and the versions that made it."""
    return replace(forest, training=training, versions={**forest.versions, **versions})
