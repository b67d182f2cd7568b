"""Models that FeatureForest saved (NAME.bin, a pickle) to a `PixelForest`, without running anything of them.

The pickle is read by `forestbridge.unpickle` in another process, which returns the trees as plain arrays; they are checked here.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import open_encoder
from forestbridge.encoders.networks import DEEP_NAMES, split_name
from forestbridge.errors import ForestError, SpecMismatchError, TrustError
from forestbridge.forest import PixelForest, check_structure
from forestbridge.image.source import shown
from forestbridge.sklearn_forest import TreeArrays, forest_of_trees
from forestbridge.spec import EncoderSpec
from forestbridge.stores.featureforest import encoder_slug, featureforest_spec

MOST_BYTES = 2**32
"""A larger file is refused; a model of 450 trees of depth 9 has a few MB."""

SECONDS = 300
"""The other process may take so long; 450 trees take about one second."""

OTHER_WEIGHTS = {"micro_sam_lm": ("1.1", "vit_b_lm.pt"), "micro_sam_em": ("1", "vit_b_em_organelles.pt")}
"""Version that FeatureForest loads where it is not the one published for forestbridge, and the name of its file."""

FIELDS = {
    "left_child",
    "right_child",
    "feature",
    "threshold",
    "impurity",
    "n_node_samples",
    "weighted_n_node_samples",
    "missing_go_to_left",  # since scikit-learn 1.3; only for NaN, which forestbridge refuses
}
"""What scikit-learn has kept in a node up to 1.9; with another field, a node may decide otherwise."""


def import_featureforest(
    path: str | Path,
    *,
    trust: str | None = None,
    spec: EncoderSpec | None = None,
    names: Sequence[str] | None = None,
    encoder: str | None = None,
    weights: str | Path | None = None,
    channels: int = 1,
) -> PixelForest:
    """Read a model of FeatureForest.

    Parameters
    ----------
    path
        NAME.bin, as FeatureForest's *Save Model* writes it, of any version of scikit-learn since 0.20.
    trust
        "sha256:<hash of the file>", as `TrustError` prints it.
    spec
        Of the store that the forest was trained on, for models of FeatureForest's first versions, which do not name it.
    names
        One for each class; "class k" by default.
    encoder
        Name of the model's encoder, ours or FeatureForest's: the forest then predicts images, whose features forestbridge computes in
        FeatureForest's way. Without it the forest predicts feature stores that FeatureForest wrote.
    weights
        With `encoder`: the weights that FeatureForest had, where they are not the published ones; needed for microSAM.
    channels
        With `encoder`: of the images, 1, or 3 for colour images; always 1 for Cellpose.

    Returns
    -------
    forest
        FeatureForest keeps a class as its label minus 1: the labels are those that were painted.

    Raises
    ------
    TrustError
        If `trust` is not the hash of the file.
    ForestError
        If the file is missing, holds something else, or its trees are none; if it does not name its encoder and `spec` is None.
    SpecMismatchError
        If `spec` is one of other features, or `encoder` another encoder.
    ValueError, WeightsError, ResourceError, MissingExtraError
        With `encoder`, as `forestbridge.open_encoder`; or weights are given without it.
    """
    if encoder is None and (weights is not None or channels != 1):
        raise ValueError(
            "expected weights and channels with an encoder only, found none; name the model's encoder (--encoder), or leave them out"
        )
    path = Path(path)
    if not path.is_file():
        raise ForestError(f"expected a model of FeatureForest, found nothing at {shown(path)}; check the path")
    if path.stat().st_size > MOST_BYTES:
        raise ForestError(f"{shown(path)}: expected at most {MOST_BYTES} bytes, found {path.stat().st_size}")
    data = path.read_bytes()
    _require_trust(path, data, trust)
    description, arrays = _read_elsewhere(path, data)
    n_features, trees, labels = _checked(path, description, arrays)
    found = _spec_of(path, description["settings"], n_features, spec)
    if encoder is not None:
        found = _our_spec(path, found, encoder, weights, channels)
    versions = {"scikit-learn": str(description["sklearn"] or "unknown"), "imported": "FeatureForest"}
    forest = forest_of_trees(trees, labels, found, names=names, versions=versions)
    check_structure(forest, path)
    return forest


def is_pickle(path: Path) -> bool:
    """Return whether a file is named like a model of FeatureForest, or another pickle."""
    return path.suffix.lower() in (".bin", ".pkl", ".pickle")


def _require_trust(path: Path, data: bytes, trust: str | None) -> None:
    wanted = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if trust is None:
        raise TrustError(
            f"expected a forest that is plain data, found {shown(path)}, a Python pickle of {len(data)} bytes: pickles can run code. "
            "forestbridge takes the trees out of it in a process of its own, where only scikit-learn's forests and numpy's arrays are "
            f"read and nothing is run. If you trust who gave it to you, say so with: --trust {wanted}"
        )
    if trust != wanted:
        raise TrustError(
            f"{shown(path)}: expected the file with the hash that was trusted, {trust}, found {wanted}; it is another file: ask where it "
            "came from before you trust it"
        )


def _read_elsewhere(path: Path, data: bytes) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """Have the pickle read in a process of its own."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    script = Path(__file__).with_name("unpickle.py")
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-B", script], input=data, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ForestError(
            f"{shown(path)}: expected a model of FeatureForest, found one that takes more than {SECONDS} s to read"
        ) from error
    if ended.returncode != 0:
        reason = (
            ended.stderr.decode("utf-8", "replace").strip() or f"something that ended its reading ({ended.returncode})"
        )
        raise ForestError(
            f"{shown(path)}: expected a model of FeatureForest (a random forest of scikit-learn), found {shown(reason)}; nothing of it was "
            "run. Save the model again with FeatureForest"
        )
    try:
        tensors = load(ended.stdout)
        description = json.loads(tensors["description"].tobytes())
        return description, [tensors[str(n)] for n in range(len(tensors) - 1)]
    except (SafetensorError, KeyError, ValueError) as error:
        raise ForestError(f"{shown(path)}: expected the arrays of a forest, found others ({error!r})") from error


def _checked(
    path: Path, description: dict[str, Any], blobs: Sequence[NDArray[np.uint8]]
) -> tuple[int, list[TreeArrays], list[int]]:
    """Return the number of features, the trees and the painted labels; refuse what is no forest."""

    def require(good: bool, expected: str, found: Any) -> None:
        if not good:
            raise ForestError(
                f"{shown(path)}: expected {expected}, found {found}; the file is damaged, or "
                "of a version of scikit-learn that forestbridge does not know yet"
            )

    n_features = description["n_features"]
    require(type(n_features) is int and 0 < n_features < 2**20, "a number of features", n_features)
    require(description["n_outputs"] == 1, "a forest of one output", description["n_outputs"])
    classes = _array(description["classes"], blobs[0])
    good = classes.ndim == 1 and classes.dtype.kind in "iu" and 0 < len(classes) <= 256
    require(
        good and bool((np.diff(classes.astype(np.int64)) > 0).all()),
        "classes as whole numbers in ascending order",
        classes.dtype,
    )
    require(int(classes[0]) >= 0 and int(classes[-1]) < 2**16, "classes from 0", int(classes[0]))
    trees = []
    for n, tree in enumerate(description["trees"]):
        nodes, values = (_array(tree[name], blobs[1 + 2 * n + i]) for i, name in enumerate(("nodes", "values")))
        fields = set(nodes.dtype.names or ())
        required = {"left_child", "right_child", "feature", "threshold"}
        require(
            nodes.ndim == 1 and required <= fields <= FIELDS, f"nodes with the fields {sorted(FIELDS)}", sorted(fields)
        )
        shape = (len(nodes), 1, len(classes))
        require(values.shape == shape and values.dtype.kind == "f", f"values of the shape {shape}", values.shape)
        left, right, feature = (nodes[name].astype(np.int64) for name in ("left_child", "right_child", "feature"))
        arrays = TreeArrays(
            left, right, feature, nodes["threshold"].astype(np.float64), values[:, 0].astype(np.float64)
        )
        require(_is_tree(arrays, n_features), f"a tree over {n_features} features as tree {n}", "nodes that are none")
        trees.append(arrays)
    return n_features, trees, [int(c) + 1 for c in classes]


def _is_tree(tree: TreeArrays, n_features: int) -> bool:
    """Whether every node but the first has one parent before it, and every number is one: walking it ends."""
    n = len(tree.feature)
    index = np.arange(n)
    split = tree.children_left >= 0
    children = np.concatenate([tree.children_left[split], tree.children_right[split]])
    leaves = tree.value[~split]
    return bool(
        n > 0
        and ((tree.children_right >= 0) == split).all()
        and (np.sort(children) == np.arange(1, n)).all()
        and (tree.children_left[split] > index[split]).all()
        and (tree.children_right[split] > index[split]).all()
        and ((tree.feature[split] >= 0) & (tree.feature[split] < n_features)).all()
        and np.isfinite(tree.threshold[split]).all()
        and np.isfinite(leaves).all()
        and (leaves >= 0).all()
        and (leaves.sum(axis=1) > 0).all()
    )


def _array(described: dict[str, Any], blob: NDArray[np.uint8]) -> NDArray:
    """Return an array from its bytes."""
    array = blob.view(np.dtype(described["dtype"]))
    return array.reshape(described["shape"], order="F" if described["fortran"] else "C")


def _spec_of(path: Path, settings: dict[str, Any], n_features: int, spec: EncoderSpec | None) -> EncoderSpec:
    """Return the spec of the features: the one that the model names, or the one given."""
    wanted: dict[str, Any] = {"model_name": str, "patch_size": int, "overlap": int, "no_patching": bool}
    if all(isinstance(settings.get(name), kind) for name, kind in wanted.items()):
        options = {"model": settings["model_name"], **{name: settings[name] for name in list(wanted)[1:]}}
        named = featureforest_spec(n_features, options)
        if spec is None or spec.fingerprint() == named.fingerprint():
            return named
        raise SpecMismatchError(
            f"{shown(path)}: expected the features of {spec}, {dict(spec.options)}, found a forest over "
            f"{n_features} of {options}; leave out the store"
        )
    if spec is None:
        raise ForestError(
            f"{shown(path)}: expected a model that names its encoder and patches, found a forest alone, as FeatureForest's first versions "
            "saved it; give the store that it was trained on: --like STORE.hdf5"
        )
    if spec.n_features != n_features:
        raise SpecMismatchError(
            f"{shown(path)}: expected a forest over the {spec.n_features} features of {spec}, found one over {n_features}; give the store "
            "that it was trained on"
        )
    return spec


def _our_spec(path: Path, found: EncoderSpec, name: str, weights: str | Path | None, channels: int) -> EncoderSpec:
    """Return the spec of our encoder that computes the features of a model as FeatureForest does."""
    ours, maps = split_name(name)
    model, options = encoder_slug(found.options["model"]), found.options
    if ours != model or maps is not None or model not in DEEP_NAMES:
        remedy = f"give --encoder {model}" if model in DEEP_NAMES else "leave it out: forestbridge has no such encoder"
        raise SpecMismatchError(
            f"{shown(path)}: expected the encoder of the model, FeatureForest's {shown(str(options['model']))}, found "
            f"{shown(name)}; {remedy}"
        )
    if ours in OTHER_WEIGHTS and weights is None:
        version, file = OTHER_WEIGHTS[ours]
        raise ValueError(
            f"expected the weights of {options['model']}, since FeatureForest loads version {version} and forestbridge a later one, whose "
            f"features are others, found none; give FeatureForest's file, .featureforest/models/{file} in your home folder: --weights FILE"
        )
    encoder = open_encoder(
        ours,
        interpolation="featureforest",
        tile=options["patch_size"],
        overlap=options["overlap"],
        channels=channels,
        weights=weights,
    )
    if encoder.spec.n_features != found.n_features:
        raise SpecMismatchError(
            f"{shown(path)}: expected a forest over the {encoder.spec.n_features} features of {ours}, found one over {found.n_features}; "
            "leave out the encoder"
        )
    return encoder.spec
