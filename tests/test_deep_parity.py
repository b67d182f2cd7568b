"""The parity table of a fused package over a real network: every route gives the probabilities and labels of the others.

Measured, largest difference of a probability of 20 trees, and other labels:

| route | against | difference | labels |
|---|---|---|---|
| ONNX Runtime, TorchScript, both in bioimageio.core | network in torch and engine, one tile of 192 × 192 | 0 | 0 |
| package, tile by tile; TorchScript likewise | feature store, inside of 128 × 128 | 0.05 | 0 of 12544 |
| the same | the same, within 8 pixels of the edge | 0.25 | 28 of 3840 |
| image without a store | feature store | 0 | 0 |
"""

import io
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from deep_packages import PICTURE, Written
from forestbridge.archive import onnx_session
from forestbridge.graphs import load_torchscript
from forestbridge.graphs.fused_deep import tile_probabilities
from forestbridge.package.deep import compare_with_store
from forestbridge.package.reference import run_core_test

INSIDE = (slice(None), slice(8, -8), slice(8, -8))
"""Further from the picture's edge than the largest stride, where a store has cells on both sides."""


def declared(package: Written) -> list[float]:
    """Return the tolerance that the package declares: absolute, relative, mismatched values in a million."""
    [entry] = package.rdf["config"]["bioimageio"]["reproducibility_tolerance"]
    return [entry[k] for k in ("absolute_tolerance", "relative_tolerance", "mismatched_elements_per_million")]


def other_labels(found: NDArray, expected: NDArray) -> int:
    return int(np.count_nonzero(found.argmax(axis=0) != expected.argmax(axis=0)))


def test_one_tile(cyto3_package: Written) -> None:
    """The whole tile, its halo included."""
    raw = np.load(io.BytesIO(cyto3_package.member("raw_test.npy")))  # (1, 1, 192, 192)
    info = fb.inspect_package(cyto3_package.path)
    expected = tile_probabilities(cyto3_package.forest, cyto3_package.encoder, raw[0])
    assert np.array_equal(np.load(io.BytesIO(cyto3_package.member("probabilities_test.npy")))[0], expected)
    routes: Mapping[str, NDArray] = {
        "ONNX Runtime": np.asarray(onnx_session(cyto3_package.member("weights.onnx")).run(None, {"raw": raw})[0]),
        "TorchScript": load_torchscript(cyto3_package.member("weights.pt"))(raw),
        "bioimageio.core, ONNX": run_core_test(info, "onnx").outputs["probabilities"],
        "bioimageio.core, TorchScript": run_core_test(info, "torchscript").outputs["probabilities"],
    }
    absolute, relative, per_million = declared(cyto3_package)
    for name, result in routes.items():
        found = result[0]
        assert found.shape == expected.shape == (3, 192, 192)
        difference = np.abs(found - expected)
        beyond = int(np.count_nonzero(difference > absolute + relative * expected))
        labels = other_labels(found, expected)
        print(f"{name}: {difference.max():.1e}, {beyond} of {expected.size} beyond {absolute:g}, {labels} other labels")
        assert beyond <= per_million * expected.size / 1e6, name
        assert labels <= per_million * expected[0].size / 1e6, name


@pytest.fixture(scope="module")
def from_store(cyto3_package: Written) -> NDArray[np.float32]:
    """The probabilities of the picture by way of the feature store."""
    assert cyto3_package.store is not None
    return fb.predict(fb.open_store(cyto3_package.store), cyto3_package.forest)


def test_whole_picture(cyto3_package: Written, from_store: NDArray[np.float32]) -> None:
    """The same grid as the store; what the package declares of itself is what it does."""
    found = fb.open_package(cyto3_package.path).predict(PICTURE)
    rows = cyto3_package.rdf["config"]["forestbridge"]["deviations"]
    edge = np.ones(found.shape[1:], bool)
    edge[INSIDE[1:]] = False
    for name, where in (("store", ~edge), ("store_edge", edge)):
        largest = float(np.abs(found - from_store)[:, where].max())
        labels = other_labels(found[:, where], from_store[:, where])
        print(f"{name}: {largest:.1e}, {labels} of {where.sum()} other labels; declared {rows[name]}")
        assert rows[name]["pixels"] == where.sum()
        assert largest <= 1.05 * rows[name]["max_abs"] + 1e-6  # declared in two digits
        assert labels <= rows[name]["label_flips"]
    assert rows["store"]["label_flips"] <= 1e-4 * rows["store"]["pixels"]


def test_eager_without_a_store(cyto3_package: Written, from_store: NDArray[np.float32]) -> None:
    found = fb.predict(PICTURE, cyto3_package.forest, encoder=cyto3_package.encoder)
    difference = np.abs(found - from_store)
    print(f"eager: {difference.max():.1e}")
    assert np.count_nonzero(difference > 1e-6) <= 1e-4 * difference.size


def test_torchscript_tile_by_tile(cyto3_package: Written) -> None:
    run = load_torchscript(cyto3_package.member("weights.pt"))
    rows = compare_with_store(cyto3_package.forest, cyto3_package.encoder, run, fb.as_image(PICTURE))
    own = cyto3_package.rdf["config"]["forestbridge"]["deviations"]
    for row in rows:
        print(row)
        assert row["label_flips"] <= own[row["format"]]["label_flips"] + 1e-4 * row["pixels"]
