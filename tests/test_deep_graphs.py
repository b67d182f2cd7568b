"""Deep encoders, alone and with their forest, answer as graphs what the network in torch and the engine answer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

from deep_networks import small_network
from deep_weights import cyto3_file, random_encoder
from forestbridge.encoders.deep import open_deep_encoder
from forestbridge.errors import ForestError, ResourceError, SpecMismatchError
from forestbridge.forest import PixelForest
from forestbridge.graphs import (
    Deviation,
    export_deep_fused_onnx,
    export_deep_fused_torchscript,
    export_encoder_onnx,
    export_encoder_torchscript,
    load_torchscript,
)
from forestbridge.graphs import encoder as encoder_graph
from forestbridge.graphs.encoder import noise_tile, require_versions, stored_maps
from forestbridge.graphs.fused_deep import tile_probabilities
from random_forests import random_forest

CELLS = 144
"""Of each map, at most, from which thresholds are drawn."""


def forest_over(encoder, raw: np.ndarray | None = None, **options) -> PixelForest:
    """Return a random forest over the features of an encoder."""
    maps = stored_maps(encoder, noise_tile(encoder.spec) if raw is None else raw)
    cells = min(CELLS, *(m[0].size for m in maps))
    features = np.concatenate([m.reshape(len(m), -1)[:, :cells] for m in maps])
    return random_forest(features, **{"seed": 0, "n_trees": 10, "depth": 6, "spec": encoder.spec, **options})


def test_encoder_graphs(tmp_path: Path) -> None:
    encoder = small_network()
    found = export_encoder_onnx(encoder, tmp_path / "a.onnx")
    assert found.max_abs <= 1e-3  # a value may be rounded to the float16 beside it; measured: 9e-06
    assert export_encoder_torchscript(encoder, tmp_path / "a.pt").max_abs <= 1e-3  # measured: 0
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])
    assert [o.name for o in model.graph.output] == ["s2", "s4", "s8"]
    assert not any(node.doc_string for node in model.graph.node)
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 6 and all(makers[node.input[0]] != "Cast" for node in casts), "two in a row 1.13 takes away"
    export_encoder_onnx(encoder, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name, tile", [("dinov2", 140), ("micro_sam_lm", 144)])
def test_transformers_on_other_tiles(name: str, tile: int, tmp_path: Path) -> None:
    """Their positions are resized once, before the export; the network stays as it was. SAM is cut to two blocks."""
    encoder = random_encoder(name, tile=tile, exportable=True, **({} if name == "dinov2" else {"zoom": 2}))
    if name != "dinov2":
        encoder.module.network.trunk.blocks = encoder.module.network.trunk.blocks[:2]
    before = stored_maps(encoder, noise_tile(encoder.spec))
    assert export_encoder_onnx(encoder, tmp_path / "a.onnx").max_abs <= 1e-3  # measured: 5e-04, a step of float16
    assert export_encoder_torchscript(encoder, tmp_path / "a.pt").max_abs <= 1e-3  # measured: 0
    assert all(
        np.array_equal(a, b) for a, b in zip(before, stored_maps(encoder, noise_tile(encoder.spec)), strict=True)
    )


def exported(encoder, forest: PixelForest, folder: Path, image: np.ndarray | None = None) -> Mapping[str, Deviation]:
    return {
        "onnx": export_deep_fused_onnx(forest, folder / "f.onnx", encoder=encoder, image=image),
        "torchscript": export_deep_fused_torchscript(forest, folder / "f.pt", encoder=encoder, image=image),
    }


@pytest.mark.parametrize("options", [
    {},
    {"used": [7, 9, 12]},  # of the middle map only
    {"n_classes": 5, "depth": 10},
    {"depth": 0},
], ids=["all maps", "one map", "five classes", "leaves"])  # fmt: skip
def test_fused_graphs(options: dict, tmp_path: Path) -> None:
    encoder = small_network(channels=2)
    forest = forest_over(encoder, **options)
    for name, found in exported(encoder, forest, tmp_path).items():
        print(f"{name}: largest difference {found.max_abs:.1e}, {found.label_flips} of {found.pixels} labels")
        assert found.pixels == 96 * 96
        assert found.max_abs <= 0.1 + 1e-6, name  # one tree of ten; measured: 6e-08
        assert found.label_flips <= 1e-4 * found.pixels
    model = onnx.load(tmp_path / "f.onnx")
    assert (model.ir_version, {o.domain: o.version for o in model.opset_import}) == (8, {"": 17, "ai.onnx.ml": 3})
    assert "Loop" in {node.op_type for node in model.graph.node}


def test_cyto3_on_a_cell(tmp_path: Path) -> None:
    """The real network; unused maps are left out."""
    raw = data.cell().astype(np.float32)[None, 100:292, 100:292]
    encoder = open_deep_encoder("cellpose_cyto3", weights=cyto3_file(), low=[0], high=[255], tile=192)
    forest = forest_over(encoder, raw)
    for name, found in exported(encoder, forest, tmp_path, raw).items():
        print(f"{name}: largest difference {found.max_abs:.1e}, {found.label_flips} of {found.pixels} labels")
        assert found.label_flips <= 1e-4 * found.pixels  # measured: 0
    (loop,) = [node for node in onnx.load(tmp_path / "f.onnx").graph.node if node.op_type == "Loop"]
    strip = loop.attribute[0].g.output[1].type.tensor_type.shape.dim
    assert [d.dim_value for d in strip] == [64, 192, forest.n_classes], "at most 16,384 pixels at a time"


def test_cyto3_on_stained_tissue(tmp_path: Path) -> None:
    raw = data.immunohistochemistry()[64:256, 64:256, :2].transpose(2, 0, 1).astype(np.float32).copy()
    encoder = open_deep_encoder(
        "cellpose_cyto3", weights=cyto3_file(), low=[0, 0], high=[255, 255], channels=2, maps=["s4"], tile=192
    )
    found = exported(encoder, forest_over(encoder, raw), tmp_path, raw)
    assert all(d.label_flips <= 1e-4 * d.pixels for d in found.values())  # measured: 0


def test_torchscript_file_answers_as_the_engine(tmp_path: Path) -> None:
    encoder = small_network()
    forest = forest_over(encoder, n_classes=2)
    export_deep_fused_torchscript(forest, tmp_path / "f.pt", encoder=encoder)
    raw = np.random.default_rng(3).random((1, 96, 96)).astype(np.float32) * 255
    found = load_torchscript((tmp_path / "f.pt").read_bytes())(raw[None])[0]
    assert np.abs(found - tile_probabilities(forest, encoder, raw)).max() <= 0.1 + 1e-6


def test_fused_attention_is_refused(tmp_path: Path) -> None:
    encoder = small_network(attention=True)
    with pytest.raises(ForestError, match=r"expected attention in plain operations, .* exportable=True"):
        export_encoder_torchscript(encoder, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_overflow_is_refused(tmp_path: Path) -> None:
    encoder = small_network(gain=1e7)
    with pytest.raises(ValueError, match=r"expected features that float16 can hold, found \d+ values of map 's2'"):
        stored_maps(encoder, noise_tile(encoder.spec))


def test_deep_forests_and_strangers_are_refused(tmp_path: Path) -> None:
    encoder = small_network()
    with pytest.raises(ForestError, match="depth ≤ 10"):
        export_deep_fused_torchscript(forest_over(encoder, depth=11), tmp_path / "f.pt", encoder=encoder)
    with pytest.raises(SpecMismatchError, match="open the forest's encoder"):
        export_deep_fused_onnx(forest_over(encoder), tmp_path / "f.onnx", encoder=small_network(channels=2))
    assert not list(tmp_path.iterdir())


def test_too_large_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_graph, "MOST_BYTES", 1000)
    with pytest.raises(ResourceError, match=r"less than 2 GiB for a package, .* sam2_base"):
        export_encoder_onnx(small_network(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opsets, ir", [({"": 18}, 8), ({"": 17}, 10), ({"": 17, "custom": 1}, 8)])
def test_other_versions_are_refused(opsets: dict[str, int], ir: int) -> None:
    with pytest.raises(ResourceError, match="expected PyTorch to export opset 17 and IR version 8"):
        require_versions(opsets, ir)
