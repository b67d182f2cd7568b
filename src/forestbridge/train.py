"""Scribbles and features in, a forest out: collect the labelled pixels, fit, and say how well it went.

The matrix is float32 and holds the labelled pixels only. Trees are grown by scikit-learn, or, several times faster, by
scikit-learn-intelex where it is installed.
"""

import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import Encoder
from forestbridge.encoders.features import as_source, features_at
from forestbridge.errors import MissingExtraError
from forestbridge.forest import PixelForest, with_training
from forestbridge.image import Image
from forestbridge.intelex import complete_trees
from forestbridge.labels import Scribbles, as_scribbles, check_scribbles, match_to_image, share_names
from forestbridge.qc.drift import facts_statistics, image_statistics, merged_statistics
from forestbridge.sklearn_forest import TreeArrays, forest_from_sklearn
from forestbridge.spec import EncoderSpec, require_same_spec
from forestbridge.stores import FeatureStore

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

log = logging.getLogger(__name__)

Engine = Literal["auto", "sklearn", "sklearnex"]
"""Who grows the trees: scikit-learn, or scikit-learn-intelex (the extra "intelex"); "auto" takes the latter where it is installed."""

ENGINES: tuple[Engine, ...] = ("auto", "sklearn", "sklearnex")


class Preset(NamedTuple):
    """Settings of a forest, named as scikit-learn names them."""

    n_trees: int
    max_depth: int | None
    min_samples_split: int
    min_samples_leaf: int
    max_features: int | None
    class_weight: str | None
    subsample: bool
    balance_maps: bool


PRESETS = {
    # Depth 10 is what the TorchScript form of a package can hold, so that every program can run the forest.
    "default": Preset(100, 10, 2, 1, None, "balanced", True, True),
    # FeatureForest 0.1.2, _segmentation_widget.py
    "featureforest": Preset(450, 9, 15, 3, 25, "balanced", False, False),
    # ilastik's vigra forest
    "ilastik": Preset(100, None, 2, 1, None, None, False, False),
}
"""Forest settings by name; `max_depth` None is unlimited. `max_features` None is the square root of the number of features, in a
combination of encoders of the smallest part's: with more, most splits see the best features of a small part, and trees grow alike."""

SUBSAMPLE_TREE = 1000
SUBSAMPLE_RAREST = 50
SUBSAMPLE_LEAST = 0.1
"""With `subsample`, a tree draws 0.1 of the pixels, but no fewer than 1000, nor than make 50 of the rarest class. Scribbled pixels
resemble their neighbours: what a tree does not draw costs less than 0.005 of accuracy (`docs/benchmarks.md`), 600 did cost more."""

BINS = 64
"""scikit-learn-intelex sorts the values of a feature into so many bins, and looks for thresholds between them. With its own 256 most
bins of a small node are empty, and looking through them costs more than it brings: accuracy on phantoms is no lower with 64."""

TOP_FEATURES = 10


def train(
    pairs: Sequence[tuple[FeatureStore | Image | NDArray, Scribbles | NDArray]],
    *,
    encoder: Encoder | None = None,
    preset: str = "default",
    seed: int = 0,
    n_trees: int | None = None,
    max_depth: int | None = None,
    names: Sequence[str] | Mapping[int, str] | None = None,
    engine: Engine = "auto",
) -> PixelForest:
    """Train a forest.

    Parameters
    ----------
    pairs
        For each image: a feature store, or the image itself with `encoder`; and its scribbles (or a label array (Y, X) or
        (Z, Y, X); 0 is unlabelled).
    encoder
        For images without a store.
    preset
        One of `PRESETS`.
    seed
        Of all random draws; equal input, settings and seed give an equal forest.
    n_trees, max_depth
        Replace the preset's; `max_depth` 0 is unlimited.
    names
        One for each class that is painted in any of the images, in ascending order of the values, or a mapping from values;
        they replace the names of the scribbles.
    engine
        One of `ENGINES`. They draw other random numbers, so that their forests differ; the summary says which one it was.

    Returns
    -------
    forest
        With its summary in ``forest.training``: pixels per class, out-of-bag accuracy and confusion matrix, the ten most
        important features, warnings, parameters, and what the images are like (`forestbridge.qc.drift`).

    Raises
    ------
    LabelError
        If the labels cannot train: one class only, another shape than the image, features that are not there yet.
    SpecMismatchError
        If the stores were made with different encoders.
    ValueError
        If the preset or engine is not known, or an image comes without an encoder.
    MissingExtraError
        If scikit-learn-intelex is asked for and not installed.
    """
    if preset not in PRESETS:
        raise ValueError(f"expected one of the presets {', '.join(PRESETS)}, found {preset!r}")
    chosen_engine = _choose_engine(engine)
    if not pairs:
        raise ValueError("expected at least one pair of image or store and scribbles, found none")
    settings = PRESETS[preset]
    if n_trees is not None:
        settings = settings._replace(n_trees=n_trees)
    if max_depth is not None:
        settings = settings._replace(max_depth=max_depth or None)
    if settings.n_trees < 1 or (settings.max_depth or 1) < 1:
        raise ValueError(
            f"expected at least 1 tree and a depth of at least 0, found {settings.n_trees} and {settings.max_depth}"
        )
    sources = [as_source(source) for source, _ in pairs]
    scribbles = [s if isinstance(s, Scribbles) else as_scribbles(s) for _, s in pairs]
    scribbles = share_names([_matched(s, source) for s, source in zip(scribbles, sources, strict=True)], names=names)
    notes = check_scribbles(scribbles)
    classes = tuple(sorted({c for s in scribbles for c in s.classes}))
    spec = _common_spec(sources, encoder)
    columns = balanced_columns(spec, maps=settings.balance_maps)
    rows, values = _collect(sources, scribbles, encoder)
    if len(columns) > spec.n_features:
        rows = np.take(rows, columns, axis=1)  # in C order: scikit-learn-intelex takes ten times as long for others
    if (rows == rows[0]).all():
        where = ", ".join(dict.fromkeys(s.source for s in scribbles))
        notes.append(
            f"{where}: all labelled pixels have the same features, so that no class can be told from another: the image has no "
            "contrast there; check that it is the right one"
        )
    smallest = min(part.n_features for part in spec.parts or (spec,))
    tried = min(settings.max_features or int(smallest**0.5), spec.n_features)
    forest = _fit(rows, values, settings, tried, seed=seed, engine=chosen_engine)
    summary = {
        "preset": preset,
        "engine": chosen_engine,
        "seed": seed,
        "parameters": settings._asdict(),
        "pixels": {str(c): int(np.count_nonzero(values == c)) for c in classes},
        "sources": [s.source for s in scribbles],
        "warnings": notes,
        "images": merged_statistics([_statistics(source) for source in sources]),
        **_evaluate(forest, values, spec, columns),
    }
    for note in notes:
        log.warning(note)
    class_names, colours = scribbles[0].names, scribbles[0].colours  # shared: those of all classes
    result = forest_from_sklearn(
        forest,
        None,
        [class_names[c] for c in classes],
        colours=[colours[c] for c in classes],
        trees=_trees_of_intelex(forest, rows, values, settings) if chosen_engine == "sklearnex" else None,
    )
    result = replace(
        result,
        feature=np.where(result.feature >= 0, columns[result.feature], -1).astype(np.int32),
        n_features=spec.n_features,
        spec=spec,
    )
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if chosen_engine == "sklearnex":
        versions["scikit-learn-intelex"] = version("scikit-learn-intelex")
    return with_training(result, summary, versions)


def _statistics(source: Image | FeatureStore) -> Mapping[str, Any]:
    """Return what an image is like, for those to come to be compared with; stores that were made before they kept it have the facts."""
    if isinstance(source, Image):
        return image_statistics(source)
    kept = getattr(source, "image_statistics", None)
    return kept or facts_statistics(source.image, source.image.dtype, source.image.channel_names)


def _choose_engine(engine: Engine) -> Literal["sklearn", "sklearnex"]:
    if engine not in ENGINES:
        raise ValueError(f"expected one of the engines {', '.join(ENGINES)}, found {engine!r}")
    installed = find_spec("sklearnex") is not None
    if engine == "sklearnex" and not installed:
        raise MissingExtraError("training with scikit-learn-intelex", "intelex")
    return "sklearnex" if installed and engine != "sklearn" else "sklearn"


def _matched(scribbles: Scribbles, source: Image | FeatureStore) -> Scribbles:
    """Return the scribbles in the frame of an image, or of the image of a store."""
    if isinstance(source, Image):
        return match_to_image(scribbles, source)
    facts = source.image
    return match_to_image(scribbles, {a: n for a, n in facts.sizes.items() if a in facts.axes}, name=facts.source)


def _common_spec(sources: Sequence[FeatureStore | Image], encoder: Encoder | None) -> EncoderSpec:
    """Return the spec of all stores, and of the encoder where there are images."""
    spec = None
    for source in sources:
        if not isinstance(source, Image):
            found, name = source.spec, f"store {source.path}"
        elif encoder is None:
            raise ValueError(
                "expected an encoder for images without a store, found none; give train(..., encoder=open_encoder('filters'))"
            )
        else:
            found, name = encoder.spec, f"the encoder for {source.source}"
        spec = spec or found
        remedy = "extract all of them with the same encoder"
        require_same_spec(spec, found, expected_by="the first image", found_in=name, remedy=remedy)
    assert spec is not None
    return spec


def _collect(
    sources: Sequence[FeatureStore | Image], scribbles: Sequence[Scribbles], encoder: Encoder | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the (N, F) features of all labelled pixels, and their (N,) label values."""
    rows = []
    for source, labels in zip(sources, scribbles, strict=True):
        if not isinstance(source, Image):
            rows.append(source.at(labels.points))
        elif encoder is not None:  # `_common_spec` has seen to that
            rows.append(features_at(source, encoder, labels.points))
    return np.concatenate(rows), np.concatenate([labels.values for labels in scribbles])


def balanced_columns(spec: EncoderSpec, *, maps: bool = True) -> NDArray[np.intp]:
    """Return the features as the trees are offered them: about as many of each part of a combination, and of each map of a part.

    A split looks at a random choice of features. Of 1536 features of a network and 49 filters it would hardly ever see a filter, and
    of a network the many channels of its coarsest map, whose cells reach over strokes and beyond. So the features of smaller maps and
    parts stand there several times; what it brings is measured in `docs/encoder_benchmarks.md`.

    Parameters
    ----------
    maps
        Balance the maps of a part too.

    Returns
    -------
    columns
        (N,) feature numbers, each at least once; 0, 1, 2, ... where there is nothing to balance.
    """
    parts, start = [], 0
    for part in spec.parts or (spec,):
        sizes = [len(m.channels) for m in part.maps] if maps else [part.n_features]
        starts = start + np.cumsum([0, *sizes[:-1]])
        parts.append(_level([np.arange(first, first + n) for first, n in zip(starts, sizes, strict=True)]))
        start += part.n_features
    return _level(parts)


def _level(groups: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Return the groups one after the other, smaller ones as often as comes closest to the largest."""
    most = max(len(group) for group in groups)
    return np.concatenate([np.tile(group, round(most / len(group))) for group in groups])


def _fit(
    rows: NDArray[np.float32],
    values: NDArray[np.int64],
    settings: Preset,
    max_features: int,
    *,
    seed: int,
    engine: Literal["sklearn", "sklearnex"],
) -> "RandomForestClassifier":
    """Grow a forest on the (N, F) features and (N,) label values of the labelled pixels; a split tries `max_features`."""
    RandomForestClassifier = import_module(f"{engine}.ensemble").RandomForestClassifier
    share = None
    if settings.subsample:
        rarest = np.unique(values, return_counts=True)[1].min()
        share = min(1.0, max(SUBSAMPLE_LEAST, SUBSAMPLE_TREE / len(values), SUBSAMPLE_RAREST / rarest))
    forest = RandomForestClassifier(
        n_estimators=settings.n_trees,
        max_depth=settings.max_depth,
        min_samples_split=settings.min_samples_split,
        min_samples_leaf=settings.min_samples_leaf,
        max_features=max_features,
        class_weight=settings.class_weight,
        max_samples=share,
        oob_score=True,
        random_state=seed,
        n_jobs=-1,
        **({"max_bins": BINS} if engine == "sklearnex" else {}),
    )
    with warnings.catch_warnings():
        # few trees leave some pixels without a judge; `_evaluate` counts those that have one
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores", category=UserWarning)
        return forest.fit(rows, values)


def _trees_of_intelex(
    forest: Any, rows: NDArray[np.float32], values: NDArray[np.int64], settings: Preset
) -> list[TreeArrays]:
    """Return the trees of scikit-learn-intelex with what they leave open."""
    classes, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    weights = len(values) / (len(classes) * counts) if settings.class_weight == "balanced" else np.ones(len(classes))
    return complete_trees(forest, rows, index, weights)


def _importances(forest: "RandomForestClassifier") -> NDArray[np.float64]:
    """Return (F,) `feature_importances_`, whose threads cost more than they save."""
    trees = [tree.tree_ for tree in forest.estimators_]
    found = [tree.compute_feature_importances() for tree in trees if tree.node_count > 1]
    mean = np.mean(found, axis=0) if found else np.zeros(trees[0].n_features)
    return mean / (mean.sum() or 1)


def _evaluate(
    forest: "RandomForestClassifier", values: NDArray[np.int64], spec: EncoderSpec, columns: NDArray[np.intp]
) -> dict[str, Any]:
    """Return out-of-bag accuracy and confusion matrix, and the most important features.

    A pixel is judged by the trees that did not draw it; a pixel that every tree drew is left out.
    """
    votes = forest.oob_decision_function_  # (N, K), a row of zeros where there was no such tree
    judged = votes.sum(axis=1) > 0
    predicted = forest.classes_[votes.argmax(axis=1)]
    confusion = [
        [int(np.count_nonzero(judged & (values == truth) & (predicted == guess))) for guess in forest.classes_]
        for truth in forest.classes_
    ]
    right = int(np.trace(np.asarray(confusion)))
    importances = np.bincount(columns, weights=_importances(forest), minlength=spec.n_features)
    order = np.argsort(-importances, kind="stable")[:TOP_FEATURES]
    return {
        "oob_accuracy": right / max(1, int(judged.sum())),
        "oob_confusion": confusion,
        "oob_pixels": int(judged.sum()),
        "importance": [[spec.feature_names[f], round(float(importances[f]), 6)] for f in order],
    }
