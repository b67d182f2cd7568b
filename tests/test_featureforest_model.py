"""Models that FeatureForest saved, as pickles: their trees come over exactly, and nothing in them is ever run."""

import hashlib
import io
import pickle
import pickletools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

import forestbridge as fb
from command_line import call
from featureforest_files import noise_store
from forestbridge import engine
from forestbridge.errors import ForestError, SpecMismatchError, TrustError
from forestbridge.stores import open_store

SETTINGS = {"model_name": "SAM2_Large", "img_height": 40, "img_width": 50, "patch_size": 16, "overlap": 4}
SCRIPT = Path(fb.__file__).with_name("unpickle.py")


def hash_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    """A forest over 5 features with three classes, FeatureForest's settings."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 5))
    values = (rows[:, 0] > 0).astype(np.int32) + (rows[:, 1] > 0.8)
    settings = {"max_depth": 9, "class_weight": "balanced", "min_samples_split": 15, "min_samples_leaf": 3}
    return RandomForestClassifier(20, max_features=3, random_state=0, **settings).fit(rows, values)


def model_of(forest, **changes) -> dict:
    return {"rf_model": forest, **SETTINGS, "no_patching": False, **changes}


def save(path: Path, content, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def read(path: Path, **options) -> fb.PixelForest:
    return fb.import_featureforest(path, trust=hash_of(path), **options)


# --- The same decisions ---


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_predictions_are_those_of_the_pickled_forest(tmp_path, forest, protocol):
    model = model_of(forest, img_height=np.int64(40), patch_size=np.int32(16))  # attributes of HDF5 are numpy's numbers
    imported = read(save(tmp_path / "a.bin", model, protocol))
    assert (imported.classes, imported.names) == ((1, 2, 3), ("class 1", "class 2", "class 3"))
    features = np.random.default_rng(1).normal(size=(5, 4000)).astype(np.float16)
    found = engine.predict(imported, features)
    np.testing.assert_array_equal(np.array(imported.classes)[found.argmax(0)], forest.predict(features.T) + 1)
    np.testing.assert_allclose(found.T, forest.predict_proba(features.T), atol=1e-6)


def test_a_store_gets_the_labels_of_its_model(tmp_path, forest):
    features = noise_store(tmp_path / "a.hdf5", slices=2)
    store = open_store(tmp_path / "a.hdf5")
    imported = read(save(tmp_path / "a.bin", model_of(forest)), names=["background", "cell", "nucleus"])
    assert imported.spec == store.spec
    imported.save(tmp_path / "a.forest")
    labels = fb.predict(store, fb.load_forest(tmp_path / "a.forest"), kind="labels")
    expected = forest.predict(features.reshape(-1, 5)).reshape(2, 40, 50) + 1
    np.testing.assert_array_equal(labels, expected)
    assert imported.versions["imported"] == "FeatureForest"


def test_old_models_are_a_forest_alone(tmp_path, forest):
    noise_store(tmp_path / "a.hdf5")
    spec = open_store(tmp_path / "a.hdf5").spec
    path = save(tmp_path / "a.bin", forest)
    assert read(path, spec=spec).spec == spec
    with pytest.raises(
        ForestError, match=r"found a forest alone, .* give the store that it was trained on: --like STORE.hdf5"
    ):
        read(path)
    noise_store(tmp_path / "b.hdf5", f=6)
    with pytest.raises(SpecMismatchError, match=r"over the 6 features of .* found one over 5"):
        read(path, spec=open_store(tmp_path / "b.hdf5").spec)
    with pytest.raises(SpecMismatchError, match="expected the features of featureforest"):
        read(save(tmp_path / "b.bin", model_of(forest, patch_size=32)), spec=spec)
    with pytest.raises(ForestError, match="found a forest alone"):
        read(save(tmp_path / "c.bin", {"rf_model": forest, "model_name": 5}))


# --- Older versions of scikit-learn: their states, written down by hand ---


class Named:
    """Pickles as an object of another module and class, with a state."""

    def __init__(self, module: str, name: str, made: tuple, state: object) -> None:
        self.module, self.name, self.made, self.state = module, name, made, state


class NamingPickler(pickle._Pickler):
    """Writes `Named` as a global, called, with its state."""

    def save(self, obj, *arguments, **options):
        if isinstance(obj, Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
            super().save(obj.made)
            self.write(b"R")
            super().save(obj.state)
            self.write(b"b")
        else:
            super().save(obj, *arguments, **options)


def pickle_by_hand(content) -> bytes:
    target = io.BytesIO()
    NamingPickler(target, protocol=4).dump(content)
    return target.getvalue()


def in_version(
    forest: RandomForestClassifier, version: str, *, modules: tuple[str, str], fields, counts: bool
) -> Named:
    """Return a forest as an older scikit-learn kept it: other modules, nodes without later fields, counts as values."""
    trees = []
    for tree in forest.estimators_:
        state = tree.tree_.__getstate__()
        nodes = np.zeros(len(state["nodes"]), np.dtype(fields))
        for name in nodes.dtype.names:
            nodes[name] = state["nodes"][name]
        values = state["values"] * nodes["weighted_n_node_samples"][:, None, None] if counts else state["values"]
        inner = Named(
            "sklearn.tree._tree",
            "Tree",
            (5, np.array([3]), 1),
            {"max_depth": 9, "node_count": len(nodes), "nodes": nodes, "values": values},
        )
        trees.append(Named(modules[1], "DecisionTreeClassifier", (), {"tree_": inner, "_sklearn_version": version}))
    state = {"estimators_": trees, "classes_": forest.classes_, "n_outputs_": 1, "_sklearn_version": version}
    features = "n_features_in_" if version > "0.23" else "n_features_"
    return Named(modules[0], "RandomForestClassifier", (), state | {features: 5})


TODAY = ("sklearn.ensemble._forest", "sklearn.tree._classes")
OLD_FIELDS = [
    ("left_child", "<i8"),
    ("right_child", "<i8"),
    ("feature", "<i8"),
    ("threshold", "<f8"),
    ("impurity", "<f8"),
    ("n_node_samples", "<i8"),
    ("weighted_n_node_samples", "<f8"),
]
NARROW = [(name, "<i4" if kind == "<i8" else kind) for name, kind in OLD_FIELDS]  # 32-bit systems


@pytest.mark.parametrize(
    "version, modules, fields, counts",
    [
        ("0.20.4", ("sklearn.ensemble.forest", "sklearn.tree.tree"), OLD_FIELDS, True),
        ("1.0.2", TODAY, NARROW, True),
        ("1.2.2", TODAY, OLD_FIELDS, True),
        ("1.3.0", TODAY, [*OLD_FIELDS, ("missing_go_to_left", "u1")], False),
    ],
)
def test_older_versions(tmp_path, forest, version, modules, fields, counts):
    old = in_version(forest, version, modules=modules, fields=fields, counts=counts)
    path = tmp_path / "a.bin"
    path.write_bytes(pickle_by_hand(model_of(old)))
    imported = read(path)
    assert imported.versions["scikit-learn"] == version
    features = np.random.default_rng(1).normal(size=(5, 4000)).astype(np.float32)
    found = engine.predict(imported, features).argmax(0)
    np.testing.assert_array_equal(found, forest.predict(features.T))


def test_nodes_of_a_version_that_is_not_known(tmp_path, forest):
    later = in_version(forest, "9.0", modules=TODAY, fields=[*OLD_FIELDS, ("categories", "<u8")][:-1], counts=False)
    for tree in later.state["estimators_"]:
        state = tree.state["tree_"].state
        nodes = np.zeros(len(state["nodes"]), [*OLD_FIELDS, ("categories", "<u8")])
        state["nodes"] = nodes
    (tmp_path / "a.bin").write_bytes(pickle_by_hand(model_of(later)))
    with pytest.raises(
        ForestError, match=r"expected nodes with the fields .*, found \['categories', .* does not know yet"
    ):
        read(tmp_path / "a.bin")


# --- What is refused ---


def test_nothing_is_read_without_the_hash(tmp_path, forest, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the file was read"))
    path = save(tmp_path / "a.bin", model_of(forest))
    with pytest.raises(
        TrustError, match=rf"a Python pickle of \d+ bytes: pickles can run code.* --trust {hash_of(path)}"
    ):
        fb.import_featureforest(path)
    with pytest.raises(
        TrustError, match=r"expected the file with the hash that was trusted, sha256:0, found sha256:.* another file"
    ):
        fb.import_featureforest(path, trust="sha256:0")
    with pytest.raises(ForestError, match="expected a model of FeatureForest, found nothing at"):
        fb.import_featureforest(tmp_path / "none.bin")


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def by_opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def touch(path: Path) -> str:
    return f"touch {path}"


def hostile(ran: Path, forest) -> dict[str, bytes]:
    """Return pickles by what they try; each that runs leaves a file `ran`."""
    import os
    from functools import partial

    import numpy.f2py.diagnose

    command = touch(ran)
    write = f"open({str(ran)!r}, 'w').close()"
    text = struct.pack("<BI", ord("X"), len(command)) + command.encode()
    dumped = pickle.dumps(model_of(forest))
    calls = {
        "os.system": Call(os.system, command),
        "subprocess": Call(subprocess.check_output, ["touch", str(ran)]),
        "exec": Call(exec, write),
        "eval": Call(eval, f"open({str(ran)!r}, 'w')"),
        "open": Call(open, str(ran), "w"),
        "partial": Call(partial(os.system, command)),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "numpy": Call(numpy.f2py.diagnose.run),
        "load": Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        "inside": model_of(Call(os.system, command)),
        "in a setting": model_of(forest, overlap=Call(os.system, command)),
        "as a tree": model_of(Named(*("sklearn.ensemble._forest", "RandomForestClassifier"), (), {"estimators_": [1]})),
        "another model": model_of(ExtraTreesClassifier(1).fit([[0], [1]], [0, 1])),
        "bytearray": Call(bytearray, 2**40),
        "setattr": Call(setattr, RandomForestClassifier, "x", 1),
    }
    found = {name: pickle_by_hand(content) for name, content in calls.items()}
    return found | {
        "dotted name": by_opcodes(b"\x8c\x15sklearn.tree._classes\x8c\x09os.system\x93", text, b"\x85R"),
        "INST": b"(" + f"S'{command}'\n".encode() + b"ios\nsystem\n.",
        "OBJ": by_opcodes(b"(cos\nsystem\n", text, b"o"),
        "EXT1": by_opcodes(b"\x82\x01"),
        "PERSID": b"Pos.system\n.",
        "BINPERSID": by_opcodes(b"K\x01Q"),
        "state on a class": by_opcodes(b"cnumpy\nndarray\n", b"}", b"X\x08\x00\x00\x00__init__cos\nsystem\nsb"),
        "call of an instance": by_opcodes(b"cnumpy\nndarray\n)\x81", text, b"\x85R"),
        "copyreg": b"ccopy_reg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
        "huge memo": by_opcodes(b"Nr\xff\xff\xff\xff"),
        "huge length": by_opcodes(b"\x8e" + struct.pack("<Q", 2**62) + b"x"),
        "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "deep": by_opcodes(b"]" * 10**6, b"a" * (10**6 - 1)),
        "recursive": by_opcodes(b"]q\x00h\x00a"),
        "long number": b"I" + b"9" * 10**6 + b"\n.",
        "empty": b"",
        "text": b"hello",
        "half": dumped[: len(dumped) // 2],
        "cut by one": dumped[:-1],
        "stop": b".",
    }


NAMES = list(hostile(Path("x"), None))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, forest, name):
    ran, path = tmp_path / "ran", tmp_path / "a.bin"
    path.write_bytes(hostile(ran, forest)[name])
    with pytest.raises(
        ForestError, match=r"a.bin: expected a model of FeatureForest .*, found .*nothing of it was run"
    ):
        read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_the_hostile_pickles_do_run_where_they_are_loaded(tmp_path):
    """Else the test above could not fail."""
    for name in ("os.system", "exec", "inside", "INST", "OBJ"):
        ran = tmp_path / name.replace(".", "")
        code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
        subprocess.run([sys.executable, "-c", code], input=hostile(ran, None)[name], check=True)
        assert ran.exists()


def test_refused_names_are_told(tmp_path, forest):
    path = tmp_path / "a.bin"
    path.write_bytes(hostile(tmp_path / "ran", forest)["os.system"])
    with pytest.raises(ForestError, match=r"found the name (posix|nt).system, which no forest of scikit-learn needs"):
        read(path)
    path.write_bytes(hostile(tmp_path / "ran", forest)["another model"])
    with pytest.raises(ForestError, match=r"found the name sklearn.ensemble._forest.ExtraTreesClassifier"):
        read(path)


def test_the_reader_itself_can_do_nothing_else(tmp_path):
    """Were a name allowed by mistake that does harm, Python would refuse what it tries."""
    for harm in (f"open({str(tmp_path / 'ran')!r}, 'w')", "__import__('socket')", "eval('1')", "os.system('true')"):
        code = f"import sys, os; sys.path.insert(0, {str(SCRIPT.parent)!r}); import unpickle; unpickle.forbid_everything()\n{harm}"
        ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        assert ended.returncode == 1 and "Refused: something that made Python do" in ended.stderr, ended.stderr
    assert not (tmp_path / "ran").exists()


def edited(forest, *, nodes=None, values=None, **state) -> Named:
    """Return a forest by hand with changed arrays in its third tree."""
    found = in_version(forest, "1.2.2", modules=TODAY, fields=OLD_FIELDS, counts=False)
    tree = found.state["estimators_"][2].state["tree_"].state
    if nodes is not None:
        nodes(tree["nodes"])
    if values is not None:
        tree["values"] = values(tree["values"])
    found.state.update(state)
    return found


def put(name: str, place: int, value: float):
    def change(nodes):
        nodes[name][place] = value

    return change


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nodes": put("left_child", 1, 0)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("left_child", 0, 0)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("right_child", 0, 10**6)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("right_child", 0, 1)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("feature", 0, 5)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("feature", 0, -2)}, "a tree over 5 features as tree 2"),
        ({"nodes": put("threshold", 0, np.nan)}, "a tree over 5 features as tree 2"),
        ({"values": lambda v: v * np.nan}, "a tree over 5 features as tree 2"),
        ({"values": lambda v: -v}, "a tree over 5 features as tree 2"),
        ({"values": lambda v: v[:-1]}, "values of the shape"),
        ({"values": lambda v: v[..., :2]}, "values of the shape"),
        ({"values": lambda v: v.astype(complex)}, "found an array of the kind 'c16'"),
        ({"values": lambda v: v.astype(object)}, "found an array of the kind 'O8'"),
        ({"values": lambda v: v.tolist()}, "found list where an array should be"),
        ({"estimators_": []}, "found a forest without trees"),
        ({"classes_": np.array([2, 1, 0])}, "classes as whole numbers in ascending order"),
        ({"classes_": np.array([-1, 0, 1])}, "expected classes from 0, found -1"),
        ({"classes_": np.array([0.5, 1, 2])}, "classes as whole numbers in ascending order"),
        ({"n_features_in_": 4}, "a tree over 4 features as tree"),
        ({"n_features_in_": None}, "expected a number of features, found None"),
        ({"n_outputs_": 2}, "expected a forest of one output, found 2"),
    ],
)
def test_trees_that_are_none(tmp_path, forest, changes, message):
    path = tmp_path / "a.bin"
    path.write_bytes(pickle_by_hand(model_of(edited(forest, **changes))))
    with pytest.raises(ForestError, match=message):
        read(path)


def test_damaged_models_end_in_one_error(tmp_path, forest):
    """The reader runs once for each: 15 random changes of bytes."""
    good = save(tmp_path / "a.bin", model_of(forest)).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(15):
        bad = bytearray(good)
        for place in rng.integers(len(good), size=3):
            bad[place] = rng.integers(256)
        (tmp_path / "a.bin").write_bytes(bad)
        try:
            read(tmp_path / "a.bin")
        except ForestError:
            refused += 1
    assert refused > 2


def test_memory_is_limited(tmp_path, forest):
    resource = pytest.importorskip("resource", reason="Windows has no limits of memory")
    assert resource.RLIMIT_AS
    path = tmp_path / "a.bin"
    path.write_bytes(hostile(tmp_path / "ran", forest)["huge memo"])
    with pytest.raises(ForestError, match="found more than fits into the memory that it may use"):
        read(path)


def test_the_names_that_scikit_learn_writes_are_all_allowed(forest):
    """Else an ordinary model would be refused; `pickletools` reads without running."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from unpickle import ALLOWED
    finally:
        sys.path.pop(0)
    texts = []
    for opcode, argument, _ in pickletools.genops(pickle.dumps(model_of(forest), protocol=0)):
        if opcode.name == "GLOBAL":
            texts.append(tuple(argument.split(" ")))
    assert set(texts) <= set(ALLOWED)


# --- On the command line ---


def test_convert(tmp_path, forest):
    path, out = save(tmp_path / "a.bin", model_of(forest)), tmp_path / "a.forest"
    ended = call("convert", path, "-o", out, program="ff-package")
    assert ended.code == 5
    assert f"--trust {hash_of(path)}" in ended.err.replace("\n", "")
    arguments = ["convert", path, "-o", out, "--trust", hash_of(path), "--names", "background", "cell", "nucleus"]
    assert call(*arguments, "--dry-run", program="ff-package").out.startswith("would write")
    assert not out.exists()
    ended = call(*arguments, program="ff-package")
    assert (ended.code, ended.out.strip()) == (0, str(out))
    assert fb.load_forest(out).names == ("background", "cell", "nucleus")
    assert call(*arguments, program="ff-package").code == 2  # it is there


def test_convert_refuses_what_does_not_fit(tmp_path, forest):
    path = save(tmp_path / "a.bin", model_of(forest))
    ended = call("convert", path, "-o", tmp_path / "a.zip", "--trust", hash_of(path), program="ff-package")
    assert ended.code == 2 and "no package can compute FeatureForest's features" in ended.err
    ended = call("convert", path, "-o", tmp_path / "a.forest", "--retrain", program="ff-package")
    assert ended.code == 2 and "expected --retrain with an ilastik project only" in ended.err
    ended = call("convert", tmp_path / "a.ilp", "-o", tmp_path / "a.forest", "--trust", "x", program="ff-package")
    assert ended.code == 2 and "expected --trust with a model of FeatureForest (.bin) only" in ended.err
    ended = call("predict", "b.tif", "--forest", path, "-o", tmp_path / "b.tif")
    assert "ff-package convert" in ended.err
