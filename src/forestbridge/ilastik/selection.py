"""Which features a project selects: its matrix of features × scales in, a filter bank and the order of its columns out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filter_kernels import FEATURE_NAMES, MAX_SCALE, Filter
from forestbridge.encoders.filters import FilterBank, open_filter_bank
from forestbridge.errors import ProjectError
from forestbridge.image.hdf5_nodes import Node

GROUP = "FeatureSelections"

_NAME = re.compile(r"(?P<feature>.+?) \(σ=(?P<scale>[0-9.eE+-]+)\)")
"""How ilastik names a feature: "Hessian of Gaussian Eigenvalues (σ=1.6) in 2D [1]"."""


@dataclass(frozen=True)
class Selection:
    """Selected features.

    Attributes
    ----------
    features, scales
        The rows and columns of the matrix, in the project's order.
    chosen
        (feature id, scale) pairs in the order of the project's columns.
    in_2d
        One answer per scale: plane by plane or not; None where the project does not say (before ilastik 1.3.2).
    """

    features: tuple[str, ...]
    scales: tuple[float, ...]
    chosen: tuple[tuple[str, float], ...]
    in_2d: tuple[bool, ...] | None

    def describe(self) -> dict[str, Any]:
        """Return what `forestbridge info` prints, as JSON values."""
        rows = {f: [s for feature, s in self.chosen if feature == f] for f in self.features}
        used = {s for _, s in self.chosen}
        flat = None
        if self.in_2d is not None:
            flat = [s for s, in_2d in zip(self.scales, self.in_2d, strict=True) if in_2d and s in used]
        return {"features": {f: scales for f, scales in rows.items() if scales}, "computed_in_2d": flat}


def read_selection(root: Node) -> Selection | None:
    """Return the selected features; None if nothing is selected yet.

    Raises
    ------
    ProjectError
        If the features are not ilastik's six, or matrix, features and scales do not fit together.
    """
    group = root.node(GROUP)
    if group is None or not group.has("SelectionMatrix") or not group.has("Scales") or not group.has("FeatureIds"):
        return None
    if group.has("FeatureListFilename"):
        raise ProjectError(
            f"{root.file}: expected features that ilastik computes, found ones from a file (FeatureListFilename), which ilastik itself "
            "does not read any more; choose features in ilastik and train again"
        )
    features = tuple(group.texts("FeatureIds"))
    scales = tuple(float(s) for s in group.array("Scales", kinds="f", ndim=1, most=1000))
    matrix = group.array("SelectionMatrix", kinds="biu", ndim=2, most=100_000).astype(bool)
    in_2d = None
    if group.has("ComputeIn2d"):
        in_2d = tuple(bool(flag) for flag in group.array("ComputeIn2d", kinds="biu", ndim=1, most=1000))
    if unknown := set(features) - set(FEATURE_NAMES):
        raise ProjectError(
            f"{root.file}: expected the features {', '.join(FEATURE_NAMES)}, found {', '.join(sorted(unknown))}; use a project of "
            "ilastik's Pixel Classification"
        )
    lengths = (matrix.shape == (len(features), len(scales)), in_2d is None or not in_2d or len(in_2d) == len(scales))
    if len(set(features)) < len(features) or len(set(scales)) < len(scales) or not all(lengths):
        raise ProjectError(
            f"{root.file}: expected a matrix with a row for each of {len(features)} different features and a column for each of "
            f"{len(scales)} different scales, found {matrix.shape}; open the project in ilastik and choose the features again"
        )
    if bad := [s for s in scales if not 0 < s <= MAX_SCALE]:
        raise ProjectError(
            f"{root.file}: expected scales above 0 and up to {MAX_SCALE:g} pixels, found {bad}; choose other scales in ilastik"
        )
    chosen = tuple(
        (f, s) for f, row in zip(features, matrix, strict=True) for s, on in zip(scales, row, strict=True) if on
    )
    return Selection(features, scales, chosen, in_2d or None) if chosen else None


def bank_of_selection(selection: Selection, *, channels: int, planes: int) -> FilterBank:
    """Return the filter bank that computes the selected features.

    Parameters
    ----------
    channels
        Of the project's images.
    planes
        Length of their z axis. In an image of one plane every filter works in 2D, whatever the project says.
    """
    in_2d = selection.in_2d or (planes == 1,) * len(selection.scales)
    flat = {s: planes == 1 or flag for s, flag in zip(selection.scales, in_2d, strict=True)}
    wanted: dict[str, list[float]] = {}
    for feature, scale in selection.chosen:
        wanted.setdefault(feature, []).append(scale)
    return open_filter_bank(selection=wanted, channels=channels, compute_in_2d=flat)


def columns_of_selection(selection: Selection, bank: FilterBank) -> NDArray[np.int32]:
    """Return (F,): for each column of the project's forests, the feature of the bank.

    The project orders its columns by feature and scale as it lists them, the bank by ilastik's order of features and by ascending
    scale; within a pair both go by input channel, then eigenvalue.
    """
    ndim, channels = len(bank.spec.axes), bank.spec.channels
    first: dict[tuple[str, float], tuple[int, Filter]] = {}
    start = 0
    for f in bank.filters:
        first[f.feature, f.scale] = start, f
        start += channels * f.n_outputs(ndim)
    columns = [
        np.arange(begin, begin + channels * f.n_outputs(ndim))
        for begin, f in (first[pair] for pair in selection.chosen)
    ]
    return np.concatenate(columns).astype(np.int32)


def check_feature_names(names: Sequence[str], selection: Selection, bank: FilterBank, file: str) -> None:
    """Refuse a forest that was trained on other features than the project selects now.

    Parameters
    ----------
    names
        One for each column of the forest, as stored with it; empty in old projects.

    Raises
    ------
    ProjectError
        If a name tells of another feature or scale. Names of another form say nothing, and are left alone.
    """
    ndim, channels = len(bank.spec.axes), bank.spec.channels
    outputs = {(f.feature, f.scale): channels * f.n_outputs(ndim) for f in bank.filters}
    expected = [pair for pair in selection.chosen for _ in range(outputs[pair])]
    found = [_NAME.match(name) for name in names]
    if len(found) != len(expected) or not all(found):
        return
    for (feature, scale), match, name in zip(expected, found, names, strict=True):
        if match and (match["feature"] != FEATURE_NAMES[feature] or float(match["scale"]) != scale):
            raise ProjectError(
                f"{file}: expected a forest over the features that are selected now ({FEATURE_NAMES[feature]}, σ={scale}), found one "
                f"trained on {name!r}; open the project in ilastik, train (Live Update), and save it, or train here: "
                "forestbridge train PROJECT.ilp -o NAME.forest"
            )
