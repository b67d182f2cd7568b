"""Each stage gives what it gave when scripts/make_golden.py froze it, from the frozen result of the stage before."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import __version__ as sklearn_version

import golden_stages as stages
from forestbridge.forest import load_forest


def frozen(case: str, name: str) -> np.ndarray:
    return np.load(stages.FOLDER / case / f"{name}.npy")


@pytest.fixture(params=stages.CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def test_image(case: str) -> None:
    picture = stages.picture(case)
    np.testing.assert_array_equal(picture.image, frozen(case, "image"))
    np.testing.assert_array_equal(picture.scribbles, frozen(case, "labels"))


def test_features(case: str) -> None:
    found, expected = stages.compute_features(case, frozen(case, "image")), frozen(case, "features")
    assert found.dtype == expected.dtype
    largest = np.abs(expected).max(axis=tuple(range(1, expected.ndim)), keepdims=True)  # of each feature
    assert (np.abs(found - expected) <= 1e-6 * largest).all()


def test_spec(case: str) -> None:
    forest = load_forest(stages.FOLDER / f"{case}.forest")
    assert forest.spec is not None
    assert forest.spec.fingerprint() == stages.encoder(case).spec.fingerprint()


def test_forest(case: str) -> None:
    expected = load_forest(stages.FOLDER / f"{case}.forest")
    if expected.versions["scikit-learn"] != sklearn_version:
        pytest.skip(f"the frozen forest was grown by scikit-learn {expected.versions['scikit-learn']}")
    found = stages.compute_forest(case, *(frozen(case, n) for n in ("image", "labels", "features")))
    for name in ("feature", "threshold", "left", "roots", "leaves"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.training == expected.training
    assert (found.classes, found.names, found.colours) == (expected.classes, expected.names, expected.colours)


def test_probabilities(case: str) -> None:
    forest = load_forest(stages.FOLDER / f"{case}.forest")
    found = stages.compute_probabilities(forest, frozen(case, "features"))
    np.testing.assert_array_equal(found, frozen(case, "probabilities"))


def test_package(case: str, tmp_path: Path) -> None:
    forest = load_forest(stages.FOLDER / f"{case}.forest")
    found = stages.compute_package(forest, frozen(case, "image"), tmp_path)
    np.testing.assert_allclose(found, frozen(case, "package"), atol=1e-6)
    np.testing.assert_allclose(found, frozen(case, "probabilities"), atol=1e-6)


def test_frozen_results_are_small() -> None:
    assert sum(p.stat().st_size for p in stages.FOLDER.rglob("*") if p.is_file()) < 200_000
