"""The engine decides as scikit-learn does: no label flips, |Δp| ≤ 1e-6 on identical features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from forestbridge import engine
from forestbridge.assemble import labels_of
from forestbridge.errors import SpecMismatchError
from forestbridge.sklearn_forest import forest_from_sklearn
from random_forests import oracle_probabilities, random_forest
from small_line import run_and_measure

TRAIN, TEST = 800, 20_000


def make_features(kind: str, n: int, n_features: int, rng: np.random.Generator) -> np.ndarray:
    """(n, F) float32 features of a kind that is hard for an engine."""
    x = rng.normal(size=(n, n_features))
    match kind:
        case "offset":  # thresholds of raw 16-bit intensities: rounding them up instead of down flips labels
            x = x + 1e4
        case "integers":  # ties with the thresholds' neighbours
            x = np.round(x * 3)
        case "tiny":
            x = x * 1e-20
        case "constant":
            x[:, ::2] = 7.0
    return x.astype(np.float32)


def fit(kind: str, seed: int, n_classes: int, **parameters) -> tuple[RandomForestClassifier, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = make_features(kind, TRAIN, 12, rng)
    score = x[:, 0] - x[:, 0].mean() + rng.normal(size=TRAIN) * 0.5 * (x[:, 0].std() or 1)
    y = np.searchsorted(np.quantile(score, np.linspace(0, 1, n_classes + 1)[1:-1]), score) + 1
    rf = RandomForestClassifier(random_state=seed, n_jobs=-1, **parameters).fit(x, y)
    return rf, make_features(kind, TEST, 12, rng)


CASES = [
    (kind, n_classes, parameters)
    for kind in ("normal", "offset", "integers", "tiny", "constant")
    for n_classes, parameters in (
        (2, {"n_estimators": 100}),  # pure leaves, an even number of trees: exact ties in 0.6 % of the pixels
        (3, {"n_estimators": 50, "max_depth": 6, "class_weight": "balanced"}),
        (5, {"n_estimators": 30, "min_samples_leaf": 3}),
        (12, {"n_estimators": 20}),
    )
]
CASES.append(
    (
        "normal",
        4,
        {
            "n_estimators": 450,
            "max_depth": 9,
            "min_samples_split": 15,
            "min_samples_leaf": 3,
            "class_weight": "balanced",
        },
    )
)


@pytest.mark.parametrize(("seed", "case"), list(enumerate(CASES)), ids=[f"{k}-{c}" for k, c, _ in CASES])
def test_same_decisions_as_scikit_learn(seed: int, case: tuple) -> None:
    kind, n_classes, parameters = case
    rf, x = fit(kind, seed, n_classes, **parameters)
    forest = forest_from_sklearn(rf)
    expected = rf.predict_proba(x).T  # (K, N)
    probabilities = engine.predict(forest, x.T)
    assert probabilities.dtype == np.float32
    assert np.abs(probabilities - expected).max() <= 1e-6
    flips = labels_of(probabilities, forest.classes) != rf.predict(x)
    if "class_weight" not in parameters and "min_samples_leaf" not in parameters:
        assert not flips.any()  # pure leaves: the sums are integers, ties and all
    # Impure leaves: where two classes are equal in exact arithmetic, scikit-learn's label is that of the last bit of a sum whose
    # order changes from run to run. Everywhere else the label is the same.
    top = np.sort(expected, axis=0)
    assert not flips[top[-1] - top[-2] > 1e-12].any()


@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("pure", [True, False], ids=["pure", "mixed"])
@pytest.mark.parametrize(("n_trees", "depth"), [(1, 0), (3, 1), (31, 6), (33, 12), (257, 4), (450, 9)])
def test_nasty_forests(n_trees: int, depth: int, pure: bool, n_classes: int) -> None:
    """Thresholds that are values of the image, so that pixels lie on them; more trees than a byte counts; constant planes."""
    rng = np.random.default_rng(n_trees)
    planes = make_features("integers", 70 * 90, 8, rng).T.reshape(8, 70, 90).copy()
    planes[3] = 7.0
    planes[4] = np.abs(planes[4]) * np.float32(1e-41)  # below the normal numbers
    planes[5, :, :45] = np.float32(3e38)
    forest = random_forest(planes, seed=n_trees, n_trees=n_trees, depth=depth, n_classes=n_classes, pure=pure)
    expected = oracle_probabilities(forest, planes)
    found = engine.predict(forest, planes)
    assert np.abs(found - expected).max() <= 1e-6
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    if pure:  # whole numbers of votes: ties are ties
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        np.testing.assert_array_equal(engine.predict_labels(forest, planes), expected.argmax(axis=0) + 1)


def test_a_deep_forest_on_noise() -> None:
    """Every pixel a label and no two alike: packets of single pixels, and trees of 40 levels."""
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(6000, 5)), axis=0).astype(np.float32)
    rf = RandomForestClassifier(20, random_state=1, n_jobs=2).fit(x, rng.integers(4, size=len(x)))
    forest = forest_from_sklearn(rf)
    assert forest.depth() > 20
    rows = rng.permutation(x).T.copy()
    assert np.abs(engine.predict(forest, rows) - rf.predict_proba(rows.T).T).max() <= 1e-6
    np.testing.assert_array_equal(engine.predict_labels(forest, rows), rf.predict(rows.T))


def test_the_order_of_trees_changes_no_bit() -> None:
    """Votes are whole numbers. scikit-learn's own sums change with the order in which its threads are done."""
    planes = np.random.default_rng(0).normal(size=(5, 40, 50)).astype(np.float32)
    forest = random_forest(planes, seed=0, n_trees=60, depth=7)
    ends = [*forest.roots[1:], len(forest.feature)]
    trees = [slice(int(a), int(b)) for a, b in zip(forest.roots, ends, strict=True)][::-1]
    shift = np.concatenate(
        [
            np.full(t.stop - t.start, at - t.start)
            for t, at in zip(trees, np.cumsum([0] + [t.stop - t.start for t in trees]))
        ]
    )
    order = np.concatenate([np.arange(t.start, t.stop) for t in trees])
    split = forest.feature[order] >= 0
    turned = replace(
        forest,
        feature=forest.feature[order],
        threshold=forest.threshold[order],
        left=(forest.left[order] + np.where(split, shift, 0)).astype(np.int32),
        roots=np.cumsum([0] + [t.stop - t.start for t in trees[:-1]]).astype(np.int32),
    )
    np.testing.assert_array_equal(engine.predict(turned, planes), engine.predict(forest, planes))


@pytest.mark.parametrize(("y", "x"), [(0, 1), (5, 0), (13, 29)])
def test_where_tiles_begin_changes_no_bit(y: int, x: int) -> None:
    planes = np.random.default_rng(0).normal(size=(7, 83, 97)).astype(np.float32)
    forest = random_forest(planes, seed=6, n_trees=80, depth=8)
    whole = engine.predict(forest, planes)
    np.testing.assert_array_equal(engine.predict(forest, planes[:, y:, x:]), whole[:, y:, x:])


def test_threads() -> None:
    planes = np.random.default_rng(0).normal(size=(7, 300, 97)).astype(np.float32)
    forest = random_forest(planes, seed=6, n_trees=10, depth=8)
    expected = engine.predict(forest, planes, threads=1)
    for threads in (2, 3, 8, None):
        np.testing.assert_array_equal(engine.predict(forest, planes, threads=threads), expected)
    with pytest.raises(ValueError, match=r"expected at least one thread, found 0; leave it out to use all \d+ cores"):
        engine.predict(forest, planes, threads=0)


PEAK = """
import sys
import numpy as np
from forestbridge import engine, load_forest
from small_line import peak_memory
folder = sys.argv[1]
forest = load_forest(folder + "/some.forest")
cells = np.load(folder + "/cells.npy")
engine.predict_labels(forest, [cells[:, :4, :4]], shape=(64, 64))  # loads and compiles everything
before = peak_memory()
labels = engine.predict_labels(forest, [cells], shape=(cells.shape[1] * 16, cells.shape[2] * 16), threads=2)
print(before, peak_memory() - labels.nbytes / 2**20)
"""


def test_scratch_memory_is_bounded(tmp_path: Path) -> None:
    """256 features of 16 Mpx would be 17 GB as a matrix; the labels alone are 16 MiB."""
    cells = np.random.default_rng(0).normal(size=(256, 256, 256)).astype(np.float16)
    np.save(tmp_path / "cells.npy", cells)
    random_forest(cells[:, :9, :9].astype(np.float32), seed=0, n_trees=20, depth=5).save(tmp_path / "some.forest")
    before, after = run_and_measure(PEAK, tmp_path)
    assert after - before < 40


def test_shapes_and_views() -> None:
    rf, x = fit("normal", 3, 3, n_estimators=10)
    forest = forest_from_sklearn(rf)
    flat = engine.predict(forest, x.T)
    plane = engine.predict(forest, x.T.reshape(12, 100, 200))
    assert plane.shape == (3, 100, 200)
    np.testing.assert_array_equal(plane.reshape(3, -1), flat)
    np.testing.assert_array_equal(engine.predict(forest, x.T.reshape(12, 10, 10, 200)).reshape(3, -1), flat)
    np.testing.assert_array_equal(engine.predict(forest, x[::-1].T.astype(">f4"))[:, ::-1], flat)
    np.testing.assert_allclose(flat.sum(axis=0), 1, atol=1e-6)


def test_extra_trees_and_named_classes() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    y = np.where(x[:, 0] > 0, "nucleus", "background")
    rf = ExtraTreesClassifier(20, random_state=0).fit(x, y)
    forest = forest_from_sklearn(rf)
    assert forest.classes == (1, 2)
    assert forest.names == ("background", "nucleus")
    np.testing.assert_allclose(engine.predict(forest, x.T), rf.predict_proba(x).T, atol=1e-6)


def test_painted_values_are_kept() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    rf = RandomForestClassifier(5, random_state=0).fit(x, np.where(x[:, 0] > 0, 300, 7))
    forest = forest_from_sklearn(rf)
    labels = labels_of(engine.predict(forest, x.T), forest.classes)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, rf.predict(x))


def test_refuses_other_features() -> None:
    rf, x = fit("normal", 0, 2, n_estimators=2)
    forest = forest_from_sklearn(rf)
    with pytest.raises(SpecMismatchError, match=r"expected the 12 features .* found an array of shape \(11, 20000\)"):
        engine.predict(forest, x.T[:11])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_features_that_are_not_finite(bad: float) -> None:
    rf, x = fit("normal", 0, 2, n_estimators=2)
    forest = forest_from_sklearn(rf)
    planes = x.T.reshape(12, 100, 200).copy()
    planes[3, 40, 50] = planes[3, 41, 50] = bad
    with pytest.raises(ValueError, match=r"found 2 NaN or infinite ones, the first in feature 3 at \(40, 50\)"):
        engine.predict(forest, planes)
    with pytest.raises(ValueError, match=r"found 2 NaN or infinite ones, the first in feature 3 at \(8050,\)"):
        engine.predict(forest, planes.reshape(12, -1))
    with pytest.raises(ValueError, match=r"found 2 NaN or infinite ones, the first in feature 3 at \(2, 0, 50\)"):
        engine.predict(forest, planes.reshape(12, 5, 20, 200))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 20_000])
def test_points_and_a_single_row_are_pixels(n: int) -> None:
    """However many there are; the last ones fill no tile."""
    rf, x = fit("normal", 0, 3, n_estimators=20)
    forest, points = forest_from_sklearn(rf), np.ascontiguousarray(x.T[:, :n])
    expected = engine.predict(forest, x.T.reshape(12, 100, 200)).reshape(3, -1)[:, :n]
    for features in (points, points.astype(np.float64), points[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(engine.predict(forest, features), expected)
    np.testing.assert_array_equal(engine.predict(forest, points[:, None])[:, 0], expected)
    np.testing.assert_array_equal(
        engine.predict_labels(forest, points), np.asarray(forest.classes)[expected.argmax(axis=0)]
    )
