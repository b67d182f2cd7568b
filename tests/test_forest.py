"""Forest files: what is written is read back, and what is not a forest is refused before an engine sees it."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import RandomForestClassifier

from forestbridge.encoders import open_encoder
from forestbridge.errors import ForestError, OutputExistsError, ResourceError
from forestbridge.forest import TENSORS, PixelForest, load_forest
from forestbridge.sklearn_forest import floor_float32, forest_from_sklearn
from small_line import small_forest

SELECTION = {"GaussianSmoothing": [0.3, 1.0], "StructureTensorEigenvalues": [1.6]}


@pytest.fixture(scope="module")
def rf() -> RandomForestClassifier:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    return RandomForestClassifier(7, random_state=0).fit(x, (x[:, 0] > 0) + 1)


@pytest.fixture
def forest(rf: RandomForestClassifier) -> PixelForest:
    spec = open_encoder("filters", selection=SELECTION).spec
    return forest_from_sklearn(rf, spec, ["background", "Zellkern é"], colours=["#000000", "#ff0000"])


def test_round_trip(forest: PixelForest, tmp_path: Path) -> None:
    path = forest.save(tmp_path / "nuclei.forest")
    back = load_forest(path)
    for name in TENSORS:
        np.testing.assert_array_equal(getattr(back, name), getattr(forest, name))
    assert back.spec == forest.spec
    assert (back.classes, back.names, back.colours, back.n_features) == (
        (1, 2),
        ("background", "Zellkern é"),
        ("#000000", "#ff0000"),
        4,
    )
    assert back.describe() == forest.describe()
    again = back.save(tmp_path / "again.forest")
    assert again.read_bytes() == path.read_bytes()


def test_structure(forest: PixelForest, rf: RandomForestClassifier) -> None:
    assert forest.n_trees == 7
    assert forest.depth() == max(t.get_depth() for t in rf.estimators_)
    assert len(forest.feature) == sum(t.tree_.node_count for t in rf.estimators_)
    assert set(forest.used_features) <= {0, 1, 2, 3}


def test_forest_without_spec(rf: RandomForestClassifier, tmp_path: Path) -> None:
    forest = forest_from_sklearn(rf)
    assert load_forest(forest.save(tmp_path / "bare.forest")).spec is None
    assert forest.names == ("class 1", "class 2")


def test_does_not_overwrite(forest: PixelForest, tmp_path: Path) -> None:
    path = forest.save(tmp_path / "a.forest")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"expected a new output, found that .*a\.forest exists; .*--overwrite"):
        forest.save(path)
    assert path.read_bytes() == before
    forest.save(path, overwrite=True)
    with pytest.raises(ResourceError, match=r"expected the folder .*missing for a\.forest, found none"):
        forest.save(tmp_path / "missing" / "a.forest")
    assert [p.name for p in tmp_path.iterdir()] == ["a.forest"]


@pytest.mark.parametrize("value", [0.1, 1e4 + 0.1, -0.1, 1e-40, 16777217.0, 0.5])
def test_floor_float32(value: float) -> None:
    floor = floor_float32(np.array([value]))[0]
    assert float(floor) <= value < float(np.nextafter(floor, np.float32(np.inf)))


def test_refuses_what_is_not_a_fitted_forest(rf: RandomForestClassifier) -> None:
    with pytest.raises(
        ForestError,
        match=r"expected a fitted RandomForestClassifier or ExtraTreesClassifier .* found RandomForestClassifier",
    ):
        forest_from_sklearn(RandomForestClassifier())
    with pytest.raises(ForestError, match=r"expected a forest over the 49 features of filters .* found one over 4"):
        forest_from_sklearn(rf, open_encoder("filters").spec)
    with pytest.raises(
        ValueError, match=r"expected 2 names and colours, one for each of the classes \(1, 2\), found \['a'\]"
    ):
        forest_from_sklearn(rf, names=["a"])


def test_refuses_pickles(rf: RandomForestClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model.forest"
    path.write_bytes(pickle.dumps(rf))
    with pytest.raises(
        ForestError,
        match=r"looks like a pickle or an archive; pickles can run code and are not loaded.*forest_from_sklearn",
    ):
        load_forest(path)
    other = tmp_path / "model.joblib"
    other.write_bytes(b"anything")
    with pytest.raises(ForestError, match="looks like a pickle"):
        load_forest(other)


def test_refuses_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ForestError, match=r"expected a forest file, found nothing at"):
        load_forest(tmp_path / "none.forest")
    with pytest.raises(ForestError, match="found a folder at"):
        load_forest(tmp_path)
    empty = tmp_path / "empty.forest"
    empty.touch()
    with pytest.raises(ForestError, match=r"expected a safetensors file, found .*empty\.forest, which cannot be read"):
        load_forest(empty)
    foreign = tmp_path / "foreign.forest"
    save_file({"x": np.zeros(3)}, foreign)
    with pytest.raises(ForestError, match=r"found the safetensors file .*foreign\.forest without one"):
        load_forest(foreign)


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    """Change tensors and header of a forest file, keeping it a good safetensors file."""
    tensors = load_file(path)
    header_length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(json.loads(path.read_bytes()[8 : 8 + header_length])["__metadata__"]["forestbridge"])
    change(tensors, header)
    save_file(tensors, path, metadata={"forestbridge": json.dumps(header)})


def _set(array: str, index: int, value: float) -> Callable[[dict, dict], None]:
    def change(tensors: dict, header: dict) -> None:
        tensors[array][index] = value

    return change


HOSTILE: dict[str, tuple[Callable[[dict, dict], None], str]] = {
    "cycle": (_set("left", 0, 0), "children after their parent, inside its tree"),
    "child outside": (_set("left", 0, 10**6), "children after their parent, inside its tree"),
    "negative child": (_set("left", 0, -5), "children after their parent, inside its tree"),
    "feature outside": (_set("feature", 0, 4), "features from -1 to 3"),
    "feature below": (_set("feature", 0, -2), "features from -1 to 3"),
    "split made a leaf": (_set("feature", 0, -1), "every node but the roots to have one parent"),
    "root outside": (_set("roots", -1, 10**6), "roots ascending from 0"),
    "root not first": (_set("roots", 0, 1), "roots ascending from 0"),
    "NaN threshold": (_set("threshold", 0, np.nan), "finite thresholds and leaves"),
    "infinite leaf": (lambda t, h: t["leaves"].__setitem__((0, 0), np.inf), "finite thresholds and leaves"),
    "leaf sum": (lambda t, h: t["leaves"].__setitem__((0, 0), 5), "leaf rows of fractions that sum to 1"),
    "leaf outside": (
        lambda t, h: t["left"].__setitem__(np.flatnonzero(t["feature"] < 0)[0], 10**6),
        "leaf rows inside the leaf matrix",
    ),
    "shorter": (lambda t, h: t.__setitem__("left", t["left"][:-1].copy()), "of the same length"),
    "no trees": (lambda t, h: t.__setitem__("roots", t["roots"][:0].copy()), "roots ascending from 0"),
    "matrix": (lambda t, h: t.__setitem__("feature", t["feature"][None].copy()), "vectors of nodes"),
    "dtype": (lambda t, h: t.__setitem__("feature", t["feature"].astype(np.int64)), "expected the tensors"),
    "missing tensor": (lambda t, h: t.pop("leaves"), "expected the tensors"),
    "classes": (lambda t, h: h.__setitem__("classes", [2, 1]), "classes ascending and not negative"),
    "names": (lambda t, h: h.__setitem__("names", ["a"]), "as many names, colours and leaf columns as classes"),
    "features of the spec": (lambda t, h: h.__setitem__("n_features", 5), "as many features as the spec has"),
    "format": (lambda t, h: h.__setitem__("format", 2), "expected forest format 1 with votes 'mean', found 2"),
    "votes": (lambda t, h: h.__setitem__("votes", "majority"), "found 1 with 'majority'; update forestbridge"),
    "spec": (lambda t, h: h["spec"].pop("halo"), "expected a complete forest header"),
    "spec format": (lambda t, h: h["spec"].__setitem__("format", 99), "expected spec format 1, found 99"),
    "header key": (lambda t, h: h.pop("classes"), "expected a complete forest header"),
    "header type": (lambda t, h: h.__setitem__("versions", 3), "expected a complete forest header"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_hostile_structure(name: str, forest: PixelForest, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    path = forest.save(tmp_path / "x.forest")
    rewrite(path, change)
    with pytest.raises(ForestError, match=message):
        load_forest(path)


def test_any_mutation_is_refused_or_harmless(forest: PixelForest, tmp_path: Path) -> None:
    good = forest.save(tmp_path / "x.forest").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "mutated.forest"
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data)
        try:
            load_forest(path)
        except ForestError:
            refused += 1
    assert refused > 50  # the others changed numbers or names only


def test_single_leaf_tree(tmp_path: Path) -> None:
    x = np.zeros((10, 2), np.float32)
    rf = RandomForestClassifier(3, random_state=0).fit(x, [1] * 5 + [2] * 5)
    forest = load_forest(forest_from_sklearn(rf).save(tmp_path / "leaf.forest"))
    assert forest.depth() == 0
    assert len(forest.used_features) == 0
    assert replace(forest, names=("a", "b")).describe()["depth"] == 0


@pytest.mark.parametrize(("start", "step"), [(b"\x80", 0x100), (b"PK", 0x10000)])
def test_a_header_whose_length_looks_like_a_pickle_or_zip(tmp_path, start, step):
    """The file starts with the length of its header as 8 bytes: some lengths read as the first bytes of a pickle or an archive."""
    forest = small_forest()
    path = tmp_path / "a.forest"
    forest.save(path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    missing = (int.from_bytes(start, "little") - length) % step
    for padding in range(-64, 1):  # the key takes some bytes, too, and the header is filled up to a multiple of 8
        note = "x" * (missing + padding + (step if missing < 64 else 0))
        replace(forest, training={**forest.training, "note": note}).save(path, overwrite=True)
        if path.read_bytes().startswith(start):
            break
    assert path.read_bytes().startswith(start)
    np.testing.assert_array_equal(load_forest(path).threshold, forest.threshold)
