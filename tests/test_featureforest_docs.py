"""docs/featureforest.md: its lines run as they stand, in their order, in a folder with the files that they name."""

import hashlib
import pickle
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn.ensemble import RandomForestClassifier

import forestbridge as fb
from command_line import call
from featureforest_files import write_featureforest
from forestbridge.encoders import features
from forestbridge.phantom import phantom
from small_encoders import pooling_encoder

TEXT = (Path(__file__).parent.parent / "docs" / "featureforest.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
SAMPLE = phantom((96, 112), classes=2)


def examples(section: str, language: str = "bash") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with labels, and its store: smoothed pixels in place of a network's features."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", SAMPLE.image)
    tifffile.imwrite("a_labels.tif", SAMPLE.scribbles)
    bank = fb.open_encoder("filters", selection={"GaussianSmoothing": [0.7, 1.6, 3.5]})
    planes = features(SAMPLE.image, bank).transpose(1, 2, 0)[None] / 255  # (1, Y, X, 3)
    whole = np.pad(planes, [(0, 0), (0, 144 - 96), (0, 144 - 112), (0, 0)], mode="reflect")
    write_featureforest(Path("a.hdf5"), whole, shape=(96, 112), patch_size=64, overlap=16)
    return tmp_path


def run(line: str) -> str:
    program, *arguments = shlex.split(line)
    ended = call(*arguments, program=program)
    assert ended.code == 0, f"{line}\n{ended.err}"
    return ended.out


def test_feature_stores(folder: Path) -> None:
    for block in examples("Feature stores"):
        for line in block.splitlines():
            assert run(line)
    labels = tifffile.imread("a_segmentation.tif")
    assert set(np.unique(labels)) == {1, 2}
    assert (labels == SAMPLE.truth).mean() > 0.9
    scope: dict = {}
    (code,) = examples("Feature stores", "python")
    exec(code, scope)
    np.testing.assert_allclose(scope["probabilities"], tifffile.imread("a_probabilities.tif"), atol=1e-6)
    forest = fb.load_forest("cells.forest")
    assert forest.n_trees == 450 and forest.depth() <= 9


def test_models(folder: Path) -> None:
    store = fb.open_store("a.hdf5")
    labels = fb.read_scribbles("a_labels.tif")
    model = RandomForestClassifier(10, max_depth=9, class_weight="balanced", random_state=0)
    model.fit(store.at(labels.points), labels.values - 1)
    settings = {"model_name": "SAM2_Large", "img_height": 96, "img_width": 112, "patch_size": 64, "overlap": 16}
    data = pickle.dumps({"rf_model": model, "no_patching": False, **settings})
    Path("nuclei.bin").write_bytes(data)
    ask, go_on = examples("Models")
    ended = call(*shlex.split(ask)[1:], program="ff-package")
    wanted = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert ended.code == 5 and f"--trust {wanted}" in ended.err.replace("\n", " ")
    for line in go_on.replace("sha256:HASH", wanted).splitlines():
        assert run(line)
    y, x = (part.ravel() for part in np.indices((96, 112)))
    expected = model.predict(store.at(np.stack([y, x], axis=1))).reshape(96, 112) + 1
    np.testing.assert_array_equal(tifffile.imread("a_nuclei.tif"), expected)


def test_images(folder: Path) -> None:
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    from deep_weights import cyto3_file

    Path("cyto3_downsample.pth").write_bytes(cyto3_file().read_bytes())
    options = {"tile": 64, "overlap": 16, "weights": cyto3_file()}
    encoder = fb.open_encoder("Cellpose_cyto3", interpolation="featureforest", **options)
    planes = features(SAMPLE.image, encoder).astype(np.float16)  # (480, Y, X)
    chosen = SAMPLE.scribbles > 0
    model = RandomForestClassifier(10, max_depth=9, class_weight="balanced", random_state=0)
    model.fit(planes[:, chosen].T, SAMPLE.scribbles[chosen].astype(int) - 1)
    settings = {"model_name": "Cellpose_cyto3", "img_height": 96, "img_width": 112, "patch_size": 64, "overlap": 16}
    data = pickle.dumps({"rf_model": model, "no_patching": False, **settings})
    Path("coins.bin").write_bytes(data)
    (block,) = examples("Images")
    for line in block.replace("HASH", hashlib.sha256(data).hexdigest()).splitlines():
        assert run(line)
    expected = model.predict(planes.reshape(480, -1).T).reshape(96, 112) + 1
    np.testing.assert_array_equal(tifffile.imread("a_coins.tif"), expected)


@pytest.mark.usefixtures("without_schema")
def test_packages(folder: Path) -> None:
    (block,) = examples("Packages")
    extract, train, package = block.splitlines()
    run(extract)
    run(train)
    fb.train([(fb.open_store("a.features.ome.zarr"), SAMPLE.scribbles)], n_trees=3, engine="sklearn").save(
        "filters.forest", overwrite=True
    )  # a smaller one, whose package is written in seconds
    run(package)
    assert fb.inspect_package("cells.zip").spec.name == "filters"


def test_back_to_featureforest(folder: Path) -> None:
    small = pooling_encoder(fine=256, coarse=512)
    encoder = replace(small, spec=replace(small.spec, name="sam2_base"))  # of as many features
    store = fb.extract(SAMPLE.image / 255, encoder, "a_sam2.features.ome.zarr")
    (line,) = examples("Back to FeatureForest")
    run(line.strip())
    found = fb.open_store("a_sam2.hdf5")
    assert found.spec.options["model"] == "SAM2_Base"
    points = [[95, 111], [0, 0], [40, 17]]
    np.testing.assert_array_equal(found.at(points), store.at(points).astype(np.float16))


def test_a_forest_of_a_store_is_no_package(folder: Path) -> None:
    forest = fb.train([(fb.open_store("a.hdf5"), SAMPLE.scribbles)], n_trees=3, engine="sklearn")
    forest.save("x.forest")
    for arguments in (
        ("fused", "x.forest", "--image", "a.tif", "-o", "x.zip"),
        ("ilastik", "x.forest", "-o", "x.ilp"),
    ):
        ended = call(*arguments, program="ff-package")
        assert ended.code in (2, 3, 4, 5), arguments
        assert "featureforest" in ended.err, (arguments, ended.err)
        assert "Traceback" not in ended.err
    ended = call("predict", "a.tif", "--forest", "x.forest", "-o", "p.tif")
    assert ended.code == 2 and "come from its feature stores only" in ended.err
    ended = call("extract", "a.tif", "--like", "a.hdf5", "-o", "p.features.ome.zarr")
    assert ended.code == 2 and "come from its feature stores only" in ended.err
    assert not list(folder.glob("[xp].*[pr]"))
