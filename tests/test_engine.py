"""The engine decides as scikit-learn does: no label flips, |Δp| ≤ 1e-6 on identical features."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from forestbridge import engine
from forestbridge.assemble import labels_of
from forestbridge.errors import SpecMismatchError
from forestbridge.forest import forest_from_sklearn

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
