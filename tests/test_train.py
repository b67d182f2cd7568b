"""From scribbles to a forest: the settings reach scikit-learn, every route gives the same trees, and the summary is right."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.ensemble
from sklearn.tree import DecisionTreeClassifier

from forestbridge.assemble import labels_of
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.encoders.features import features, features_at
from forestbridge.errors import LabelError
from forestbridge.extract import extract
from forestbridge.image import as_image
from forestbridge.labels import as_scribbles
from forestbridge.phantom import phantom
from forestbridge.predict import predict
from forestbridge.train import PRESETS, train
from small_encoders import pooling_encoder
from small_line import CELLS, noise, same_trees, small_encoder, two_halves

ENCODER = small_encoder()


class Recorded(sklearn.ensemble.RandomForestClassifier):
    """scikit-learn's forest; it remembers those that were fitted."""

    fitted: list = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        Recorded.fitted.append(self)
        self.rows, self.values = X, y
        return super().fit(X, y, sample_weight)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list:
    monkeypatch.setattr(sys.modules["forestbridge.train"], "find_spec", lambda _: None)  # without scikit-learn-intelex
    monkeypatch.setattr(sklearn.ensemble, "RandomForestClassifier", Recorded)
    monkeypatch.setattr(Recorded, "fitted", [])
    return Recorded.fitted


def test_finds_the_phantom_again(tmp_path: Path) -> None:
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, names=CELLS.names)
    assert forest.names == CELLS.names
    assert forest.n_trees == 100
    assert (predict(CELLS.image, forest, kind="labels") == CELLS.truth).mean() > 0.9
    again = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, names=CELLS.names)
    forest.save(tmp_path / "a.forest")
    again.save(tmp_path / "b.forest")
    assert (tmp_path / "a.forest").read_bytes() == (tmp_path / "b.forest").read_bytes()
    assert not same_trees(forest, train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, seed=1))


def test_forest_does_not_depend_on_the_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneJob(sklearn.ensemble.RandomForestClassifier):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y, sample_weight)

        def set_jobs(self):
            self.n_jobs = 1
            return self

    expected = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=10)
    monkeypatch.setattr(sklearn.ensemble, "RandomForestClassifier", lambda **settings: OneJob(**settings).set_jobs())
    found = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=10)
    assert same_trees(expected, found)
    assert expected.training == found.training


PARAMETERS = {
    "default": (100, 10, 2, 1, 2, "balanced"),
    "featureforest": (450, 9, 15, 3, 6, "balanced"),  # 25 features per split, and there are six
    "ilastik": (100, None, 2, 1, 2, None),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_reach_scikit_learn(preset: str, fitted: list) -> None:
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, preset=preset)
    names = ("n_estimators", "max_depth", "min_samples_split", "min_samples_leaf", "max_features", "class_weight")
    [rf] = fitted
    assert tuple(rf.get_params()[name] for name in names) == PARAMETERS[preset]
    assert rf.random_state == 0
    assert rf.bootstrap
    assert rf.rows.dtype == np.float32
    assert forest.n_trees == PARAMETERS[preset][0]
    assert forest.training["preset"] == preset
    assert forest.training["parameters"] == PRESETS[preset]._asdict()


def test_featureforest_looks_at_25_features_where_there_are_as_many(fitted: list) -> None:
    labels = two_halves()
    encoder = small_encoder(channels=6)  # 36 features
    train([(noise("CYX", (6, *labels.shape)), labels)], encoder=encoder, preset="featureforest", n_trees=2)
    assert fitted[0].max_features == 25


def test_a_split_of_a_combination_tries_the_root_of_the_smallest_part(fitted: list) -> None:
    encoder = CombinedEncoder([pooling_encoder(fine=20, coarse=9), small_encoder()])  # 29 features, and 6
    train([(CELLS.image, CELLS.scribbles)], encoder=encoder, n_trees=2)
    assert fitted[0].max_features == 2
    assert fitted[0].rows.shape[1] == (20 + 2 * 9) + 6 * 6


@pytest.mark.parametrize(("preset", "columns"), [("default", 20 + 2 * 9), ("featureforest", 29), ("ilastik", 29)])
def test_maps_of_an_encoder_are_balanced_by_default_only(preset: str, columns: int, fitted: list) -> None:
    train([(CELLS.image, CELLS.scribbles)], encoder=pooling_encoder(fine=20, coarse=9), preset=preset, n_trees=2)
    assert fitted[0].rows.shape[1] == columns
    assert fitted[0].max_features == (
        25 if preset == "featureforest" else 5
    )  # of the 29 features, however often each is there


@pytest.mark.parametrize(("asked", "depth"), [(None, 10), (3, 3), (0, None)])
def test_overrides(asked: int | None, depth: int | None, fitted: list) -> None:
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=7, max_depth=asked, seed=5)
    [rf] = fitted
    assert (rf.n_estimators, rf.max_depth, rf.random_state) == (7, depth, 5)
    assert forest.n_trees == 7
    assert forest.depth() <= (depth or 100)
    assert forest.training["parameters"]["max_depth"] == depth
    assert forest.training["seed"] == 5


@pytest.mark.parametrize(
    ("pixels", "share"),
    [
        ((20, 20), 1.0),  # fewer pixels than 1000: all of them
        ((1000, 1000), 0.5),  # 1000 of 2000
        ((9_000, 3_000), 0.1),  # a tenth is more than 1000, with 300 of the rarest class
        ((9_900, 100), 0.5),  # 50 of the rarest class
        ((9_990, 10), 1.0),  # fewer than 50 of the rarest class: all of them
    ],
)
def test_share_of_the_pixels_that_a_tree_draws(pixels: tuple[int, int], share: float, fitted: list) -> None:
    values = np.repeat([1, 2], pixels)
    labels = np.zeros(110 * 110, int)
    labels[: len(values)] = values
    image = noise("YX", (110, 110))
    encoder = small_encoder(selection={"GaussianSmoothing": [0.7]})
    train([(image, labels.reshape(110, 110))], encoder=encoder, n_trees=2)
    train([(image, labels.reshape(110, 110))], encoder=encoder, n_trees=2, preset="ilastik")
    assert fitted[0].max_samples == pytest.approx(share)
    assert fitted[1].max_samples is None


def test_store_and_image_give_the_same_forest(tmp_path: Path) -> None:
    other = phantom((70, 60), seed=9)
    pairs = [(CELLS.image, CELLS.scribbles), (other.image, other.scribbles)]
    stores = [extract(image, ENCODER, tmp_path / f"{n}.features.ome.zarr") for n, (image, _) in enumerate(pairs)]
    for store, (image, labels) in zip(stores, pairs, strict=True):
        points = as_scribbles(labels).points
        whole = features(image, ENCODER)[:, points[:, 2], points[:, 3]].T
        np.testing.assert_array_equal(features_at(as_image(image), ENCODER, points), whole)
        np.testing.assert_array_equal(store.at(points), whole)
    from_images = train(pairs, encoder=ENCODER, n_trees=10)
    from_stores = train([(s, labels) for s, (_, labels) in zip(stores, pairs, strict=True)], n_trees=10)
    mixed = train([(stores[0], pairs[0][1]), pairs[1]], encoder=ENCODER, n_trees=10)
    assert same_trees(from_images, from_stores)
    assert same_trees(from_images, mixed)
    assert from_images.training == from_stores.training == mixed.training
    assert from_images.spec == from_stores.spec == ENCODER.spec
    assert sum(from_images.training["pixels"].values()) == sum(np.count_nonzero(labels) for _, labels in pairs)


def test_points_in_their_order() -> None:
    image = noise("TZYX", (2, 3, 300, 30))  # two tiles per plane
    rng = np.random.default_rng(0)
    points = np.stack([rng.integers(0, n, 50) for n in (2, 3, 300, 30)], axis=1)
    found = features_at(image, ENCODER, points)
    for (t, z, y, x), row in zip(points, found, strict=True):
        np.testing.assert_array_equal(row, features(image.plane(t, z), ENCODER)[:, y, x])


def test_summary_of_a_case_worked_by_hand(fitted: list) -> None:
    labels = np.zeros((40, 40), int)
    labels[5:25, 5:15], labels[5:20, 25:35], labels[30:34, 5:30] = 3, 1, 8
    image = noise("YX", (40, 40))
    forest = train([(image, labels)], encoder=ENCODER, n_trees=3, max_depth=4)
    [rf] = fitted
    counts = np.zeros((len(rf.rows), 3))
    for tree, drawn in zip(rf.estimators_, rf.estimators_samples_, strict=True):
        assert isinstance(tree, DecisionTreeClassifier)
        left_out = np.setdiff1d(np.arange(len(rf.rows)), drawn)
        counts[left_out] += tree.predict_proba(rf.rows[left_out])
    judged = counts.any(axis=1)
    guess = np.array([1, 3, 8])[counts.argmax(axis=1)]
    assert 0 < judged.sum() < len(judged)  # three trees: some pixels were drawn by all
    confusion = [[int(((rf.values == a) & (guess == b) & judged).sum()) for b in (1, 3, 8)] for a in (1, 3, 8)]
    summary = forest.training
    assert summary["pixels"] == {"1": 150, "3": 200, "8": 100}
    assert summary["oob_confusion"] == confusion
    assert summary["oob_pixels"] == judged.sum()
    assert summary["oob_accuracy"] == pytest.approx((guess == rf.values)[judged].mean())
    importance = {name: value for name, value in summary["importance"]}  # noqa: C416
    assert list(importance.values()) == sorted(importance.values(), reverse=True)
    expected = dict(zip(ENCODER.spec.feature_names, rf.feature_importances_, strict=True))
    assert importance == pytest.approx(expected, abs=1e-6)
    assert summary["warnings"] == []
    assert summary["sources"] == ["array"]


def test_ten_features_are_listed() -> None:
    forest = train([(noise("CYX", (2, 20, 20)), two_halves())], encoder=small_encoder(channels=2), n_trees=3)
    assert len(forest.training["importance"]) == 10


def test_label_values_are_kept_to_the_prediction() -> None:
    labels = np.where(CELLS.scribbles == 3, 7, np.where(CELLS.scribbles > 0, 1, 0))
    forest = train([(CELLS.image, labels)], encoder=ENCODER, n_trees=10)
    assert forest.classes == (1, 7)
    assert forest.names == ("class 1", "class 7")
    assert forest.training["pixels"] == {"1": int((labels == 1).sum()), "7": int((labels == 7).sum())}
    found = predict(CELLS.image, forest, kind="labels")
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {1, 7}
    np.testing.assert_array_equal(found, labels_of(predict(CELLS.image, forest), (1, 7)))


def test_class_missing_in_one_of_two_images() -> None:
    first = np.where(CELLS.scribbles == 2, 0, CELLS.scribbles)
    second = np.where(CELLS.scribbles == 1, 0, CELLS.scribbles)
    forest = train([(CELLS.image, first), (CELLS.image, second)], encoder=ENCODER, n_trees=10, names=CELLS.names)
    assert forest.classes == (1, 2, 3)
    assert forest.names == CELLS.names
    assert forest.training["pixels"]["2"] == (second == 2).sum()
    only = train(
        [(CELLS.image, first * (first == 1)), (CELLS.image, second * (second == 3))], encoder=ENCODER, n_trees=2
    )
    assert only.classes == (1, 3)


def test_names_and_colours_of_scribbles() -> None:
    scribbles = as_scribbles(CELLS.scribbles, names=CELLS.names, colours=["#111111", "#222222", "#333333"])
    unnamed = as_scribbles(np.where(CELLS.scribbles == 3, 3, 0))
    forest = train([(CELLS.image, unnamed), (CELLS.image, scribbles)], encoder=ENCODER, n_trees=2)
    assert forest.names == CELLS.names
    assert forest.colours[:2] == ("#111111", "#222222")
    renamed = train([(CELLS.image, scribbles)], encoder=ENCODER, n_trees=2, names={1: "a", 2: "b", 3: "c"})
    assert renamed.names == ("a", "b", "c")
    assert renamed.colours == ("#111111", "#222222", "#333333")


def test_names_that_contradict() -> None:
    a, b = (as_scribbles(CELLS.scribbles, names=names) for names in (("x", "y", "z"), ("x", "y", "w")))
    with pytest.raises(LabelError, match=r"expected one name for class 3, found 'z' .* and 'w'"):
        train([(CELLS.image, a), (CELLS.image, b)], encoder=ENCODER)


def test_warnings_are_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    labels = two_halves()
    labels[labels == 2] = 0
    labels[3, 15:18] = 2
    with caplog.at_level(logging.WARNING):
        forest = train([(noise("YX", (20, 20)), labels)], encoder=ENCODER, n_trees=5)
    assert forest.training["warnings"] == ["array: 'class 2' (value 2) has only 3 labelled pixels; paint more of it"]
    assert forest.training["warnings"] == caplog.messages


def test_labels_in_one_plane_of_a_stack_give_a_warning() -> None:
    image = noise("ZYX", (4, 20, 20))
    scribbles = as_scribbles(two_halves(), plane=2)
    forest = train([(image, scribbles)], encoder=ENCODER, n_trees=5)
    assert "only one of 4 planes has labels (t=0 z=2)" in forest.training["warnings"][0]
    same = np.zeros((4, 20, 20), int)
    same[2] = two_halves()
    assert same_trees(forest, train([(image, same)], encoder=ENCODER, n_trees=5))
    assert same_trees(forest, train([(image.plane(z=2), two_halves())], encoder=ENCODER, n_trees=5))
