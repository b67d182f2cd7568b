"""The ONNX graphs give the encoder's features and the forest's probabilities, and are files that old programs can read."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from filter_oracle import allowance
from forestbridge.encoders.filter_kernels import FEATURE_NAMES
from forestbridge.encoders.filters import FilterBank, open_filter_bank
from forestbridge.engine import predict
from forestbridge.errors import ForestError, OutputExistsError
from forestbridge.forest import PixelForest
from forestbridge.graphs import Deviation, export_filters_onnx, export_forest_onnx, export_fused_onnx, minimum_size
from forestbridge.graphs.deviation import onnx_runner
from forestbridge.spec import MapSpec
from random_forests import oracle_probabilities, random_forest

SMALL = {feature: [0.7, 1.6] for feature in FEATURE_NAMES}

BANKS = {
    "ilastik's dialog": {},
    "other scales": {"selection": {feature: [0.2, 0.45, 2.3, 7.0] for feature in FEATURE_NAMES}},
    "three channels": {"channels": 3, "selection": SMALL},
    "3D": {"compute_in_2d": False, "selection": {feature: [0.3, 1.0, 3.5] for feature in FEATURE_NAMES}},
    "mixed": {"compute_in_2d": {0.7: True, 1.6: False}, "channels": 2, "selection": SMALL},
    "one filter": {"selection": {"HessianOfGaussianEigenvalues": [1.6]}},
}


FUSED = ("ilastik's dialog", "three channels", "mixed")


def make_image(bank: FilterBank, *, seed: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A batch of two images (2, C, ...) of odd sizes, waves and noise from 0 to 4000; the second one flat in places."""
    shape = shape or ((75, 61) if bank.spec.axes == "yx" else (21, 33, 29))
    rng = np.random.default_rng(seed)
    image = rng.random((2, bank.spec.channels, *shape)) * 400
    for axis in range(2, 2 + len(shape)):
        position = np.linspace(0, 9, shape[axis - 2])
        image += 600 * (1 + np.sin(position)).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    image[1] = np.round(image[1] / 1000) * 1000
    return image.astype(np.float32)


def encode(bank: FilterBank, image: np.ndarray) -> np.ndarray:
    """(C, ...) → (F, ...)."""
    return bank.encode(image, tuple(slice(0, n) for n in image.shape[1:]))[0]


def assert_features(found: np.ndarray, bank: FilterBank, image: np.ndarray) -> None:
    """Hold each feature of each image of the batch against the encoder, within ilastik's tolerance."""
    assert found.dtype == np.float32
    options = bank.spec.options
    in_2d = dict(zip(options["scales"], options["compute_in_2d"], strict=True))
    for one, pixels in zip(found, image, strict=True):
        expected = encode(bank, pixels)
        atol = allowance(pixels, options["selection"], in_2d, expected)
        worst = np.abs(one - expected).reshape(len(expected), -1).max(axis=1)
        assert (worst <= atol).all(), [n for n, bad in zip(bank.spec.feature_names, worst > atol, strict=True) if bad]


@pytest.mark.parametrize("options", BANKS.values(), ids=BANKS)
def test_filter_graph_gives_the_encoders_features(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    deviation = export_filters_onnx(bank.spec, tmp_path / "filters.onnx")
    assert deviation.max_abs <= 5e-6 and deviation.label_flips == 0
    run = onnx_runner(tmp_path / "filters.onnx")
    for seed in (1, 2):  # sizes are free: the same session takes both
        image = make_image(bank, seed=seed)[..., : 61 - 4 * seed]
        assert_features(run(image), bank, image)


@pytest.mark.parametrize("options", [BANKS["ilastik's dialog"], BANKS["mixed"]], ids=["2D", "mixed"])
def test_filter_graph_takes_the_minimum_size(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    export_filters_onnx(bank.spec, tmp_path / "filters.onnx")
    image = make_image(bank, seed=3, shape=minimum_size(bank.spec))
    assert_features(onnx_runner(tmp_path / "filters.onnx")(image), bank, image)


FORESTS = {
    "ties": {"n_trees": 100, "depth": 6, "n_classes": 2, "pure": True},
    "twelve classes": {"n_trees": 31, "depth": 8, "n_classes": 12},
    "450 trees": {"n_trees": 450, "depth": 9, "n_classes": 3},
    "deep": {"n_trees": 5, "depth": 25, "n_classes": 3},
    "leaves only": {"n_trees": 4, "depth": 0, "n_classes": 2},
    "stumps": {"n_trees": 10, "depth": 1, "n_classes": 2, "pure": True},
    "one class": {"n_trees": 3, "depth": 2, "n_classes": 1},
}


def make_features(offset: float, shape: tuple[int, ...] = (2, 6, 70, 50)) -> np.ndarray:
    """A batch of features (b, F, ...); an offset of 1e4 leaves neighbouring values only a few steps of float32 apart."""
    return (np.random.default_rng(5).normal(size=shape) * 0.01 + offset).astype(np.float32)


def assert_probabilities(found: np.ndarray, forest: PixelForest, features: np.ndarray) -> None:
    for one, values in zip(found, features, strict=True):
        expected = oracle_probabilities(forest, values)
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(one.argmax(axis=0), expected.argmax(axis=0))
        assert one.min() >= 0 and one.max() <= 1


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("options", FORESTS.values(), ids=FORESTS)
def test_forest_graph_decides_as_the_trees_do(options: dict, offset: float, tmp_path: Path) -> None:
    features = make_features(offset)
    forest = random_forest(features[0], seed=1, **options)
    deviation = export_forest_onnx(forest, tmp_path / "forest.onnx")
    assert deviation.label_flips == 0 and deviation.max_abs <= 1e-6 and deviation.pixels == 64 * 64
    found = onnx_runner(tmp_path / "forest.onnx")(features)
    assert found.shape == (2, options["n_classes"], 70, 50)
    assert_probabilities(found, forest, features)


def test_ties_are_there() -> None:
    features = make_features(0.0)
    sums = oracle_probabilities(random_forest(features[0], seed=1, **FORESTS["ties"]), features[0])
    assert np.count_nonzero(sums[0] == sums[1]) > 50


def test_forest_graph_sends_nan_to_the_right(tmp_path: Path) -> None:
    features = make_features(0.0)
    forest = random_forest(features[0], seed=1, n_trees=20, depth=6)
    export_forest_onnx(forest, tmp_path / "forest.onnx")
    features[:, 2, ::3] = np.nan
    assert_probabilities(onnx_runner(tmp_path / "forest.onnx")(features), forest, features)


def filter_forest(bank: FilterBank, image: np.ndarray, *, used: list[int] | None = None) -> PixelForest:
    """A forest over the bank whose thresholds lie among the features of the image (C, ...)."""
    features = encode(bank, image)
    return random_forest(features, seed=4, n_trees=40, depth=8, used=used, spec=bank.spec)


@pytest.mark.parametrize("options", [BANKS[n] for n in FUSED], ids=FUSED)
def test_fused_graph_gives_the_engines_probabilities(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    image = make_image(bank, seed=7)
    forest = filter_forest(bank, make_image(bank, seed=8)[0])  # another image: thresholds lie between its values
    deviation = export_fused_onnx(forest, tmp_path / "fused.onnx", image=image[0])
    assert deviation.label_flips <= 1e-4 * deviation.pixels and deviation.pixels == image[0, 0].size
    found = onnx_runner(tmp_path / "fused.onnx")(image)
    expected = np.stack([predict(forest, encode(bank, pixels)) for pixels in image])
    assert found.shape == expected.shape
    differ = np.abs(found[0] - expected[0]).max(axis=0) > 1e-6
    assert np.count_nonzero(differ) <= 2e-3 * differ.size, "a feature's rounding moves a pixel across a threshold"
    assert np.count_nonzero(found[0].argmax(axis=0) != expected[0].argmax(axis=0)) <= 1e-4 * differ.size


def test_fused_graph_measures_on_a_synthetic_image_by_default(tmp_path: Path) -> None:
    bank = open_filter_bank(selection=SMALL)
    forest = filter_forest(bank, make_image(bank, seed=8)[0])
    deviation = export_fused_onnx(forest, tmp_path / "fused.onnx")
    assert deviation.pixels > 5000 and deviation.label_flips <= 1e-4 * deviation.pixels
    assert asdict(deviation) == {
        "max_abs": deviation.max_abs,
        "label_flips": deviation.label_flips,
        "pixels": deviation.pixels,
    }


def test_fused_graph_leaves_out_filters_that_no_split_looks_at(tmp_path: Path) -> None:
    bank = open_filter_bank(channels=2, selection=SMALL)
    image = make_image(bank, seed=7)
    names = bank.spec.feature_names
    used = [i for i, name in enumerate(names) if name.startswith(("Gaussian Smoothing (σ=1.6)", "Hessian"))][1::2]
    forest = filter_forest(bank, image[0], used=used)
    export_fused_onnx(forest, tmp_path / "few.onnx")
    export_fused_onnx(filter_forest(bank, image[0]), tmp_path / "all.onnx")
    few, everything = (
        sum(node.op_type == "Conv" for node in onnx.load(tmp_path / name).graph.node)
        for name in ("few.onnx", "all.onnx")
    )
    assert few < everything / 2
    found = onnx_runner(tmp_path / "few.onnx")(image)
    expected = predict(forest, encode(bank, image[1]))
    assert np.count_nonzero(found[1].argmax(axis=0) != expected.argmax(axis=0)) <= 2e-3 * expected[0].size


def test_fused_graph_of_leaves_only(tmp_path: Path) -> None:
    bank = open_filter_bank(selection=SMALL)
    image = make_image(bank, seed=7)
    forest = random_forest(encode(bank, image[0]), seed=1, n_trees=4, depth=0, spec=bank.spec)
    assert export_fused_onnx(forest, tmp_path / "fused.onnx").max_abs <= 1e-6


def test_graphs_are_files_that_old_programs_read(tmp_path: Path) -> None:
    bank = open_filter_bank(channels=2, selection=SMALL)
    forest = filter_forest(bank, make_image(bank, seed=8)[0])
    export_filters_onnx(bank.spec, tmp_path / "filters.onnx")
    export_forest_onnx(forest, tmp_path / "forest.onnx")
    export_fused_onnx(forest, tmp_path / "fused.onnx")
    n = bank.spec.n_features
    expected = {
        "filters": (("raw", 2), ("filters", n), {"": 17}),
        "forest": (("filters", n), ("probabilities", 3), {"": 17, "ai.onnx.ml": 3}),
        "fused": (("raw", 2), ("probabilities", 3), {"": 17, "ai.onnx.ml": 3}),
    }
    for name, (source, target, opsets) in expected.items():
        model = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, model.producer_name, model.graph.name) == (8, "forestbridge", name)
        assert {entry.domain: entry.version for entry in model.opset_import} == opsets
        for values, (value, channels) in ((model.graph.input, source), (model.graph.output, target)):
            assert [v.name for v in values] == [value]
            dims = values[0].type.tensor_type.shape.dim
            assert [d.dim_param or d.dim_value for d in dims] == ["batch", channels, "y", "x"]
        assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_volume_graphs_declare_z(tmp_path: Path) -> None:
    bank = open_filter_bank(compute_in_2d=False, selection={"GaussianSmoothing": [0.7]})
    export_filters_onnx(bank.spec, tmp_path / "filters.onnx")
    dims = onnx.load(tmp_path / "filters.onnx").graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 1, "z", "y", "x"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    bank = open_filter_bank(selection=SMALL)
    forest = filter_forest(bank, make_image(bank, seed=8)[0])
    for name in ("a", "b"):
        export_fused_onnx(forest, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_refusals(tmp_path: Path) -> None:
    features = make_features(0.0)
    forest = random_forest(features[0], seed=1, n_trees=2, depth=2)
    with pytest.raises(
        ForestError, match=r"expected a forest over the features of filters, found .* without an encoder"
    ):
        export_fused_onnx(forest, tmp_path / "fused.onnx")
    spec = open_filter_bank(selection={"GaussianSmoothing": [0.7, 1.0, 1.6, 2.0, 3.0, 4.0]}).spec
    coarse = replace(spec, maps=(MapSpec("embedding", spec.feature_names, stride=16.0, offset=7.5),))
    with pytest.raises(
        ForestError, match=r"one float32 map of stride 1, found .* embedding of stride 16 in float32; export it fused"
    ):
        export_forest_onnx(replace(forest, spec=coarse), tmp_path / "forest.onnx")
    with pytest.raises(ForestError, match=r"expected a forest over the features of filters, found one over other"):
        export_fused_onnx(replace(forest, spec=replace(spec, name="other")), tmp_path / "fused.onnx")
    (tmp_path / "there.onnx").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match=r"there\.onnx exists"):
        export_forest_onnx(forest, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"x"
    assert isinstance(export_forest_onnx(forest, tmp_path / "new.onnx"), Deviation)
