"""Packages of a forest over the filter bank and the real cyto3: parity with the store, the command line, recipes.

Measured, forest of 20 trees on a round cell of 128 × 128 pixels, tile of 192 × 192:

| route | against | difference | labels |
|---|---|---|---|
| ONNX Runtime, TorchScript, both in bioimageio.core | network in torch, filter bank and engine, one tile | 0 | 0 |
| package, tile by tile | feature store, further than 38 pixels from the edge | 0 | 0 of 2704 |
| the same | the same, nearer to it | 0.2 | 0 of 13680 |
"""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from command_line import call
from deep_networks import small_network
from deep_packages import PICTURE, Written, painted
from deep_weights import cyto3_file
from forestbridge.archive import onnx_session
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.errors import ForestError, PackageError
from forestbridge.graphs import load_torchscript
from forestbridge.graphs.fused_deep import tile_probabilities
from forestbridge.package import build_recipe
from forestbridge.package.deep import weights_facts, weights_text
from forestbridge.package.reference import run_core_test
from test_combined_graphs import forest_over

INSIDE = (slice(None), slice(38, -38), slice(38, -38))
"""Further from the picture's edge than filters see."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("combined")
    encoder = fb.open_encoder(
        "filters+cellpose_cyto3", channels=1, weights=cyto3_file(), low=[0], high=[255], tile=192, exportable=True
    )
    assert isinstance(encoder, CombinedEncoder)
    store = fb.extract(PICTURE, encoder, folder / "a.features.ome.zarr")
    forest = fb.train([(store, painted())], n_trees=20, seed=0, engine="sklearn")
    forest.save(folder / "a.forest")
    report = fb.write_package(folder / "both.zip", forest, image=PICTURE, encoder=encoder)
    return Written(folder / "both.zip", report, encoder, forest, store.path)  # pyright: ignore[reportArgumentType]


def other_labels(found: np.ndarray, expected: np.ndarray) -> int:
    return int(np.count_nonzero(found.argmax(axis=0) != expected.argmax(axis=0)))


def test_every_engine_agrees(package: Written) -> None:
    found = [(f.weights, f.engine.split()[0], f.status) for f in package.report.formats]
    assert found == [
        ("onnx", "forestbridge", "passed"),
        ("onnx", "bioimageio.core", "passed"),
        ("torchscript", "bioimageio.core", "passed"),
    ]
    assert {v.name for v in package.report.consumers if v.ok} >= {"Python", "ilastik", "deepImageJ", "QuPath"}


def test_forest_looks_at_both(package: Written) -> None:
    used = package.forest.used_features
    assert (used < 49).sum() > 5 < (used >= 49).sum()


def test_one_tile(package: Written) -> None:
    raw = np.load(io.BytesIO(package.member("raw_test.npy")))  # (1, 1, 192, 192)
    info = fb.inspect_package(package.path)
    expected = tile_probabilities(package.forest, package.encoder, raw[0])
    assert np.array_equal(np.load(io.BytesIO(package.member("probabilities_test.npy")))[0], expected)
    for name, result in {
        "ONNX Runtime": np.asarray(onnx_session(package.member("weights.onnx")).run(None, {"raw": raw})[0]),
        "TorchScript": load_torchscript(package.member("weights.pt"))(raw),
        "bioimageio.core, ONNX": run_core_test(info, "onnx").outputs["probabilities"],
        "bioimageio.core, TorchScript": run_core_test(info, "torchscript").outputs["probabilities"],
    }.items():
        beyond = int(np.count_nonzero(np.abs(result[0] - expected) > 1e-3 * (1 + expected)))
        print(f"{name}: {np.abs(result[0] - expected).max():.1e}, {beyond} of {expected.size} beyond the tolerance")
        assert beyond <= 1e-4 * expected.size, name
        assert other_labels(result[0], expected) <= 1e-4 * expected[0].size, name


def test_whole_picture(package: Written) -> None:
    """The same grid as the store; what the package declares of itself is what it does."""
    assert package.store is not None
    found = fb.open_package(package.path).predict(PICTURE)
    expected = fb.predict(fb.open_store(package.store), package.forest)
    rows = package.rdf["config"]["forestbridge"]["deviations"]
    edge = np.ones(found.shape[1:], bool)
    edge[INSIDE[1:]] = False
    for name, where in (("store", ~edge), ("store_edge", edge)):
        largest = float(np.abs(found - expected)[:, where].max())
        labels = other_labels(found[:, where], expected[:, where])
        print(f"{name}: {largest:.1e}, {labels} of {where.sum()} other labels; declared {rows[name]}")
        assert rows[name]["pixels"] == where.sum()
        assert largest <= 1.05 * rows[name]["max_abs"] + 1e-6  # declared in two digits
        assert labels <= rows[name]["label_flips"]
    assert rows["store"]["label_flips"] <= 1e-4 * rows["store"]["pixels"]


def test_description(package: Written) -> None:
    rdf = package.rdf
    [source], [target] = rdf["inputs"], rdf["outputs"]
    assert [a.get("size") for a in source["axes"][2:]] == [192, 192]
    assert [a["halo"] for a in target["axes"][2:]] == [64, 64]
    own = rdf["config"]["forestbridge"]
    assert (
        own["weights"]["encoder"] == "cellpose_cyto3"
        and own["weights"]["sha256"] == package.forest.spec.parts[1].weights
    )  # pyright: ignore
    assert fb.inspect_package(package.path).spec == package.forest.spec
    cited = " ".join(entry["text"] for entry in rdf["cite"])
    assert all(name in cited for name in ("BioImage Model Zoo", "ilastik", "Cellpose3"))
    assert "The package holds the weights of cellpose_cyto3" in package.member("README.md").decode()


def test_weights_of_several_networks() -> None:
    spec = CombinedEncoder([small_network(), fb.open_encoder("filters"), small_network(name="other", seed=5)]).spec
    assert weights_facts(spec) == {
        "encoder": "small+filters+other",
        "parts": [{"encoder": "small", "sha256": "0" * 64}, {"encoder": "other", "sha256": "0" * 64}],
    }
    assert weights_text(spec).count("The package holds the weights of") == 2


def test_by_command(package: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Package, check and prediction from the command line, with the labels that the forest gives."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", PICTURE)
    forest, weights = str(package.path.parent / "a.forest"), str(cyto3_file())
    ended = call(
        "package", "fused", forest, "--image", "a.tif", "--weights", weights, "--formats", "onnx", "-o", "b.zip"
    )
    assert ended.code == 0 and "the weights of cellpose_cyto3 travel in the zip" in ended.err
    assert call("package", "check", "b.zip").code == 0
    assert call("predict", "a.tif", "--package", "b.zip", "--kind", "labels", "-o", "by_package.tif").code == 0
    ended = call(
        "predict", "a.tif", "--forest", forest, "--weights", weights, "--kind", "labels", "-o", "by_forest.tif"
    )
    assert ended.code == 0
    by_package, by_forest = (tifffile.imread(f"by_{name}.tif") for name in ("package", "forest"))
    assert (by_package != by_forest)[INSIDE[1:]].sum() == 0 and (by_package != by_forest).mean() < 0.01


def test_networks_of_other_cores_are_refused(tmp_path: Path) -> None:
    """With the tiles that go together, before anything is read or written."""
    options = {"channels": 1, "low": [0], "high": [255], "weights": "0" * 64}
    from forestbridge.encoders.combined import combine_specs
    from forestbridge.encoders.networks import network_of, plan_spec

    networks = [plan_spec(network_of(name), tile=256, **options) for name in ("sam2_base", "cellpose_cyto3")]
    forest = forest_over(CombinedEncoder([small_network(), fb.open_encoder("filters")]))
    forest = fb.PixelForest(**{**vars(forest), "spec": combine_specs(networks)})
    with pytest.raises(
        ForestError, match=r"found cores of sam2_base \(192, 192\), cellpose_cyto3 \(128, 128\); extract with --tile "
    ):
        fb.write_package(tmp_path / "a.zip", forest)
    assert not list(tmp_path.iterdir())


RECIPE = """
[image]
source = "cell.tif"
[scribbles]
source = "cell.png"
[encoder]
name = "filters+cellpose_cyto3:s8"
selection = { GaussianSmoothing = [1.6, 3.5] }
range = [0, 255]
tile = 192
[training]
n_trees = 10
[package]
name = "filters and cyto3"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "cell.tif", PICTURE)
    Pillow.fromarray(painted()).save(tmp_path / "cell.png")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def test_recipe(recipe: Path) -> None:
    report = build_recipe(recipe, recipe / "a.zip", weights=cyto3_file())
    assert report.good
    spec = fb.inspect_package(recipe / "a.zip").spec
    assert spec is not None and spec.name == "filters+cellpose_cyto3"
    assert [len(m.channels) for m in spec.maps] == [2, 256]


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "filters+cellpose_cyto3:s8",
            "filters+unicorn",
            r"or filters, or several with \+ between, .*'filters\+unicorn'; choose one",
        ),
        ("tile = 192", "tile = { cellpose_cyto3 = 'a' }", r"expected tile = a whole number in"),
        (
            "range =",
            "maps = []\nrange =",
            r"the keys compute_in_2d, name, preprocessing, range, selection, tile in \[encoder\]",
        ),
    ],
)
def test_recipe_that_is_refused(recipe: Path, old: str, new: str, message: str) -> None:
    (recipe / "recipe.toml").write_text(RECIPE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PackageError, match=message):
        build_recipe(recipe, recipe / "a.zip", weights=cyto3_file())
    assert not (recipe / "a.zip").exists()
