"""scikit-learn and scikit-learn-intelex: as accurate, as reproducible, and their trees mean the same in our engine."""

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.segmentation import expand_labels
from sklearn.ensemble import RandomForestClassifier

from forestbridge import engine
from forestbridge.encoders.features import features
from forestbridge.errors import ForestError, MissingExtraError
from forestbridge.forest import PixelForest, load_forest
from forestbridge.graphs import export_fused_onnx
from forestbridge.graphs.deviation import onnx_runner
from forestbridge.phantom import Phantom, phantom
from forestbridge.predict import predict
from forestbridge.sklearn_forest import forest_from_sklearn, tree_arrays
from forestbridge.train import PRESETS, train
from small_line import CELLS, same_trees, small_encoder

ENCODER = small_encoder()


def require_intelex() -> None:
    """Skip without scikit-learn-intelex, and fail where the checks of every change run."""
    if find_spec("sklearnex") is None:
        message = "scikit-learn-intelex is not installed: pip install 'forestbridge[intelex]'"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)


@pytest.fixture(params=["sklearn", "sklearnex"])
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "sklearnex":
        require_intelex()
    return request.param


def test_each_engine_finds_the_phantom_again(name: str, tmp_path: Path) -> None:
    pairs = [(CELLS.image, CELLS.scribbles)]
    forest = train(pairs, encoder=ENCODER, names=CELLS.names, engine=name)  # pyright: ignore[reportArgumentType]
    assert (predict(CELLS.image, forest, kind="labels") == CELLS.truth).mean() > 0.9
    assert forest.training["engine"] == name
    assert ("scikit-learn-intelex" in forest.versions) == (name == "sklearnex")
    assert forest.training["oob_accuracy"] > 0.9
    assert forest.training["oob_pixels"] > 0.95 * np.count_nonzero(CELLS.scribbles)
    assert sum(share for _, share in forest.training["importance"]) == pytest.approx(1, abs=1e-4)  # all six features
    forest.save(tmp_path / "a.forest")
    assert same_trees(load_forest(tmp_path / "a.forest"), forest)
    again = train(pairs, encoder=ENCODER, engine=name)  # pyright: ignore[reportArgumentType]
    assert same_trees(forest, again)
    assert not same_trees(forest, train(pairs, encoder=ENCODER, seed=1, engine=name))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_engines_are_as_accurate_as_each_other(preset: str) -> None:
    require_intelex()
    picture = phantom((200, 220), classes=4, seed=2)
    encoder = small_encoder()
    accuracy = {}
    for name in ("sklearn", "sklearnex"):
        found = [
            train([(picture.image, picture.scribbles)], encoder=encoder, preset=preset, seed=s, n_trees=60, engine=name)  # pyright: ignore[reportArgumentType]
            for s in range(3)
        ]
        accuracy[name] = np.mean([agreement(forest, picture) for forest in found])
    assert accuracy["sklearnex"] > accuracy["sklearn"] - 0.005


def agreement(forest: PixelForest, picture: Phantom) -> float:
    return float((predict(picture.image, forest, kind="labels") == picture.truth).mean())


def thick(picture: Phantom) -> Phantom:
    """Return a phantom that was painted with a broader brush."""
    grown = expand_labels(picture.scribbles, 2)
    return replace(picture, scribbles=np.where(grown == picture.truth, grown, 0).astype(np.uint8))


@pytest.mark.parametrize("classes", [2, 4])
def test_subsampling_keeps_the_accuracy(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that draws a tenth of correlated pixels is as good as one that draws as many as there are."""
    encoder = small_encoder()
    pictures = [thick(phantom((256, 256), classes=classes, seed=s)) for s in (3, 4)]
    assert np.count_nonzero(pictures[0].scribbles) > 2000  # of which a tree draws 1000
    results = {}
    for subsample in (True, False):
        monkeypatch.setitem(PRESETS, "default", PRESETS["default"]._replace(subsample=subsample))
        found = [
            agreement(train([(a.image, a.scribbles)], encoder=encoder, seed=s, engine="sklearn"), b)
            for s in range(3)
            for a, b in (pictures, pictures[::-1])  # judged on the picture that was not painted
        ]
        results[subsample] = np.mean(found)
    assert results[True] > results[False] - 0.005


def drawn_forest(rows: NDArray, values: NDArray) -> RandomForestClassifier:
    from sklearnex.ensemble import RandomForestClassifier as Intel  # pyright: ignore[reportMissingImports]

    return Intel(n_estimators=10, max_depth=4, random_state=0).fit(rows, values)


def test_leaf_fractions_come_from_the_labelled_pixels() -> None:
    """scikit-learn-intelex keeps the majority of a leaf only; ours has what arrives there."""
    require_intelex()
    rng = np.random.default_rng(0)
    planes = features(CELLS.image, ENCODER)
    painted = CELLS.scribbles > 0
    rows, values = planes[:, painted].T, CELLS.scribbles[painted].astype(np.int64)
    values[rng.random(len(values)) < 0.3] = 1  # mixed leaves
    labels = np.zeros_like(CELLS.scribbles)
    labels[painted] = values
    forest = train([(CELLS.image, labels)], encoder=ENCODER, max_depth=3, n_trees=10, engine="sklearnex")
    assert ((forest.leaves > 0) & (forest.leaves < 1)).mean() > 0.5
    weight = {c: len(values) / (3 * np.count_nonzero(values == c)) for c in (1, 2, 3)}
    end = [*forest.roots[1:], len(forest.feature)]
    for root, stop in zip(forest.roots, end, strict=True):
        node = np.full(len(rows), root)
        while (split := forest.feature[node] >= 0).any():
            goes_left = rows[np.arange(len(rows)), forest.feature[node]] <= forest.threshold[node]
            node = np.where(split, forest.left[node] + ~goes_left, node)
        for leaf in np.unique(node):
            assert root <= leaf < stop
            sums = np.array([weight[c] * np.count_nonzero(values[node == leaf] == c) for c in (1, 2, 3)])
            np.testing.assert_allclose(forest.leaves[forest.left[leaf]], sums / sums.sum(), atol=1e-6)
    np.testing.assert_allclose(engine.predict(forest, planes).sum(axis=0), 1, atol=1e-6)


def test_a_forest_of_intelex_is_not_wrapped_as_it_is() -> None:
    require_intelex()
    rng = np.random.default_rng(0)
    rf = drawn_forest(rng.normal(size=(300, 4)).astype(np.float32), rng.integers(3, size=300))
    message = r"found a forest of scikit-learn-intelex, whose trees keep the most frequent class only.*fit it with scikit-learn"
    with pytest.raises(ForestError, match=message):
        forest_from_sklearn(rf)


def test_thresholds_lie_between_training_values() -> None:
    """Its histograms put one in five on a value of the image, where every other rounding decides otherwise."""
    require_intelex()
    planes = features(CELLS.image, ENCODER)
    rows = planes[:, CELLS.scribbles > 0]
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=30, engine="sklearnex")
    for f in forest.used_features:
        thresholds = forest.threshold[forest.feature == f]
        gap = np.diff(np.unique(rows[f]))
        wide = gap > 1e-5 * np.abs(rows[f]).max()  # neighbouring floats have nothing between them
        middle = (np.unique(rows[f])[:-1] + gap / 2)[wide]
        nearest = np.abs(thresholds[:, None] - middle).min(axis=1)
        assert (nearest <= 1e-6 * np.abs(thresholds)).mean() > 0.95


def test_packages_of_each_engine_reproduce_it(name: str, tmp_path: Path) -> None:
    """Graphs round otherwise than the engine; no pixel may lie so near a threshold that it matters."""
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=50, engine=name)  # pyright: ignore[reportArgumentType]
    raw = CELLS.image[None].astype(np.float32)
    deviation = export_fused_onnx(forest, tmp_path / "weights.onnx", image=raw)
    assert deviation.label_flips == 0
    assert deviation.max_abs <= 1.5 / 50  # at most one tree, somewhere
    found = onnx_runner(tmp_path / "weights.onnx")(raw[None])[0]
    assert (np.abs(found - predict(CELLS.image, forest)) > 1e-3).mean() <= 1e-4


def test_other_trees_in_place_of_its_own() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4)).astype(np.float32)
    rf = RandomForestClassifier(3, max_depth=2, random_state=0).fit(rows, rng.integers(2, size=300))
    trees = [tree_arrays(t) for t in rf.estimators_]
    trees = [t._replace(value=np.tile([3.0, 1.0], (len(t.feature), 1))) for t in trees]
    forest = forest_from_sklearn(rf, trees=trees)
    np.testing.assert_array_equal(engine.predict(forest, rows.T), np.tile([[0.75], [0.25]], 300))


def test_auto_takes_intelex_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(CELLS.image, CELLS.scribbles)]
    if find_spec("sklearnex") is not None:
        assert train(pairs, encoder=ENCODER, n_trees=3).training["engine"] == "sklearnex"
    monkeypatch.setattr(sys.modules["forestbridge.train"], "find_spec", lambda _: None)
    assert train(pairs, encoder=ENCODER, n_trees=3).training["engine"] == "sklearn"
    message = r"training with scikit-learn-intelex needs the extra 'intelex', which is not installed; install it with"
    with pytest.raises(MissingExtraError, match=message):
        train(pairs, encoder=ENCODER, engine="sklearnex")
    with pytest.raises(ValueError, match=r"expected one of the engines auto, sklearn, sklearnex, found 'lightgbm'"):
        train(pairs, encoder=ENCODER, engine="lightgbm")  # pyright: ignore[reportArgumentType]
