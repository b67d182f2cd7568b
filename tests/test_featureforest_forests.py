"""Forests that were trained in FeatureForest, on images: our encoder computes what its adapter computed, and labels are the same."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from skimage import data
from sklearn.ensemble import RandomForestClassifier

import forestbridge as fb
from command_line import call
from deep_weights import cyto3_file, mobile_sam_state
from featureforest_adapters import cellpose, theirs
from featureforest_files import has_featureforest
from forestbridge.errors import SpecMismatchError
from forestbridge.stores.featureforest import featureforest_spec

pytestmark = pytest.mark.skipif(
    not has_featureforest(), reason="featureforest or pims is not installed: see scripts/test"
)

TRAINED, OTHER = data.coins()[40:170, 40:180], data.coins()[100:230, 150:290]
"""Of one size, as FeatureForest wants it."""

DIFFERENT = 1e-3
"""Share of pixels that may be labelled otherwise; measured: 0."""


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    """Background against coins, with FeatureForest's settings and fewer trees, on the features of its adapter."""
    rows = theirs(cellpose(*TRAINED.shape), TRAINED).reshape(480, -1).T
    values = (TRAINED.ravel() > 110).astype(np.int32)
    chosen = np.random.default_rng(0).choice(len(rows), 1500, replace=False)
    settings = {"max_depth": 9, "class_weight": "balanced", "min_samples_split": 15, "min_samples_leaf": 3}
    return RandomForestClassifier(40, max_features=25, random_state=0, **settings).fit(rows[chosen], values[chosen])


@pytest.fixture
def model(tmp_path: Path, forest) -> Path:
    return save(tmp_path / "coins.bin", forest)


def save(path: Path, forest, **changes) -> Path:
    size = {"img_height": 130, "img_width": 140, "no_patching": False, "patch_size": 64 * 2, "overlap": 32}
    path.write_bytes(pickle.dumps({"rf_model": forest, "model_name": "Cellpose_cyto3", **size, **changes}))
    return path


def trust(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_labels_are_those_of_featureforest(tmp_path: Path, model: Path, forest) -> None:
    """From NAME.bin and an image alone; the image is another one than the forest was trained on."""
    out = tmp_path / "coins.forest"
    arguments = ["convert", model, "-o", out, "--trust", trust(model)]
    ended = call(*arguments, "--encoder", "Cellpose_cyto3", "--weights", cyto3_file(), program="ff-package")
    assert ended.code == 0, ended.err
    tifffile.imwrite(tmp_path / "b.tif", OTHER)
    ended = call("predict", tmp_path / "b.tif", "--forest", out, "--kind", "labels", "-o", tmp_path / "b_labels.tif")
    assert ended.code == 0, ended.err
    found = tifffile.imread(tmp_path / "b_labels.tif")
    rows = theirs(cellpose(*OTHER.shape), OTHER).reshape(480, -1).T
    expected = forest.predict(rows).reshape(OTHER.shape) + 1
    assert set(np.unique(expected)) == {1, 2}
    print(f"{(found != expected).mean():.1e} of the pixels are labelled otherwise")
    assert (found != expected).mean() <= DIFFERENT


def test_without_its_encoder_a_forest_predicts_stores_only(tmp_path: Path, model: Path) -> None:
    fb.import_featureforest(model, trust=trust(model)).save(tmp_path / "a.forest")
    with pytest.raises(ValueError, match=r"come from its feature stores only; .*ff-package convert --encoder"):
        fb.predict(OTHER, fb.load_forest(tmp_path / "a.forest"))


def test_other_encoders_are_refused(tmp_path: Path, model: Path, forest) -> None:
    def read(path: Path, **options):
        return fb.import_featureforest(path, trust=trust(path), **options)

    with pytest.raises(
        SpecMismatchError, match=r"FeatureForest's Cellpose_cyto3, found sam2_base; give --encoder cell"
    ):
        read(model, encoder="sam2_base")
    with pytest.raises(SpecMismatchError, match=r"found cellpose_cyto3:s4; give --encoder cellpose_cyto3"):
        read(model, encoder="cellpose_cyto3:s4")
    with pytest.raises(SpecMismatchError, match=r"FeatureForest's My Net, found my_net; leave it out"):
        read(save(tmp_path / "a.bin", forest, model_name="My Net"), encoder="my_net")
    with pytest.raises(ValueError, match=r"expected weights and channels with an encoder only"):
        read(model, channels=3)
    with pytest.raises(ValueError, match=r"expected 1 or 2 channels for cellpose_cyto3, found 3"):
        read(model, encoder="cellpose_cyto3", channels=3)
    lm = save(tmp_path / "lm.bin", forest, model_name="μSAM_LM")
    with pytest.raises(ValueError, match=r"FeatureForest loads version 1.1 and .*models/vit_b_lm.pt .*--weights FILE"):
        read(lm, encoder="micro_sam_lm")
    few = RandomForestClassifier(1, max_depth=2).fit(np.eye(20), np.arange(20) % 2)
    with pytest.raises(SpecMismatchError, match=r"over the 480 features of cellpose_cyto3, found one over 20"):
        read(save(tmp_path / "few.bin", few), encoder="cellpose_cyto3", weights=cyto3_file())


def test_colour_and_old_models(tmp_path: Path, forest) -> None:
    torch.save(mobile_sam_state(), tmp_path / "mobile_sam.pt")
    few = RandomForestClassifier(1, max_depth=2).fit(np.eye(320), np.arange(320) % 2)
    path = save(tmp_path / "a.bin", few, model_name="MobileSAM")
    weights = {"weights": tmp_path / "mobile_sam.pt"}
    for channels in (1, 3):
        spec = fb.import_featureforest(path, trust=trust(path), encoder="MobileSAM", channels=channels, **weights).spec
        assert spec is not None
        assert (spec.channels, spec.options["patch_size"], spec.interpolation) == (channels, 128, "featureforest")
    path = tmp_path / "old.bin"
    path.write_bytes(pickle.dumps(forest))  # names nothing
    settings = {"model": "Cellpose_cyto3", "patch_size": 64, "overlap": 0, "no_patching": True}
    options = {"spec": featureforest_spec(480, settings), "encoder": "cellpose_cyto3", "weights": cyto3_file()}
    spec = fb.import_featureforest(path, trust=trust(path), **options).spec
    assert spec is not None and spec.tile == (64, 64)


def test_command_line_refuses_what_does_not_fit(tmp_path: Path, model: Path) -> None:
    ended = call(
        "convert", tmp_path / "a.ilp", "-o", tmp_path / "a.forest", "--encoder", "sam2_base", program="ff-package"
    )
    assert ended.code == 2 and "expected --encoder with a model of FeatureForest (.bin) only" in ended.err
    ended = call("convert", model, "-o", tmp_path / "a.forest", "--trust", trust(model), "--rgb", program="ff-package")
    assert ended.code == 2 and "expected weights and channels with an encoder only" in ended.err
