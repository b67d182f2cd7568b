"""Combinations with their forest as graphs of one fixed tile: every part gives in it what it gives alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from deep_networks import small_network
from deep_weights import random_encoder
from forestbridge.encoders.base import Encoder
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.encoders.features import features
from forestbridge.encoders.filter_kernels import FEATURE_NAMES
from forestbridge.encoders.fixed_tiles import package_halo, package_sides
from forestbridge.errors import ForestError, ResourceError
from forestbridge.forest import PixelForest
from forestbridge.graphs import encoder as encoder_graph
from forestbridge.graphs import export_deep_fused_onnx, export_deep_fused_torchscript
from forestbridge.graphs.parts import TilePart, tile_parts
from forestbridge.graphs.strips import used_maps
from forestbridge.package.deep import compare_with_store, file_runner
from random_forests import random_forest
from small_encoders import pooling_encoder

CELL = data.cell()[100:356, 100:356]
"""(256, 256) bytes."""


def filters(**options) -> Encoder:
    return fb.open_encoder("filters", **options)


def at_scale(scale: float) -> Encoder:
    return filters(selection={feature: [scale] for feature in FEATURE_NAMES})


def forest_over(encoder: CombinedEncoder, **options) -> PixelForest:
    """Return a random forest over the features that an encoder has on the picture."""
    pixels = features(CELL, encoder).reshape(encoder.spec.n_features, -1)[:, ::97]
    return random_forest(pixels, **{"seed": 0, "n_trees": 10, "depth": 8, "spec": encoder.spec, **options})


COMBINATIONS = {
    "filters first": lambda: [filters(), small_network()],  # the filters' halo of 38 is the larger one
    "filters last": lambda: [small_network(halo=40), filters()],
    "two networks": lambda: [small_network(), small_network(name="other", halo=24, seed=5)],
    "three": lambda: [small_network(name="other", halo=40, seed=5), filters(), small_network()],
    "odd halo": lambda: [at_scale(4.1), small_network()],
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_format_is_the_store(name: str, tmp_path: Path) -> None:
    """On one tile the graphs are the engine; over the picture, tile by tile, they have the labels of the way by maps."""
    encoder = CombinedEncoder(COMBINATIONS[name]())
    forest = forest_over(encoder)
    exporters = {"a.onnx": export_deep_fused_onnx, "a.pt": export_deep_fused_torchscript}
    for file, export in exporters.items():
        found = export(forest, tmp_path / file, encoder=encoder)
        inside, edge = compare_with_store(forest, encoder, file_runner(tmp_path / file), fb.as_image(CELL))
        print(f"{file}: {found}, inside {inside}, at the edge {edge}")
        assert found.pixels == np.prod(package_sides(encoder.spec))
        assert found.label_flips <= 1e-4 * found.pixels  # measured: 0
        assert inside["label_flips"] <= 3e-4 * inside["pixels"]  # measured: at most 6e-5
        assert edge["label_flips"] <= 0.15 * edge["pixels"]  # measured: 0.081; of a network of tile 64 alone 0.064
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.ir_version, {o.domain: o.version for o in model.opset_import}) == (8, {"": 17, "ai.onnx.ml": 3})


def test_halo_of_a_package_is_even() -> None:
    encoder = CombinedEncoder([at_scale(4.1), small_network()])
    assert encoder.spec.halo == (17, 17) and package_halo(encoder.spec) == (18, 18)
    bank, network = tile_parts(encoder)
    assert (bank.inset, bank.sides) == ((0, 0), (100, 100)) and (network.inset, network.sides) == ((2, 2), (96, 96))


def test_what_no_tree_looks_at_is_left_out(tmp_path: Path) -> None:
    """Filters of other scales are not computed, nor does a network travel whose maps nobody uses."""
    encoder = CombinedEncoder([filters(), small_network()])
    few = forest_over(encoder, used=[0, 3, 50])
    [bank, maps], pruned = used_maps(few, tile_parts(encoder))
    assert (bank.channels.tolist(), maps.part, maps.channels.tolist(), pruned.n_features) == ([0, 3], 1, [1], 3)
    sizes = {}
    for name, forest in {"few": few, "filters": forest_over(encoder, used=[0, 3]), "all": forest_over(encoder)}.items():
        deviations = [
            export_deep_fused_onnx(forest, tmp_path / f"{name}.onnx", encoder=encoder),
            export_deep_fused_torchscript(forest, tmp_path / f"{name}.pt", encoder=encoder),
        ]
        assert all(d.label_flips == 0 for d in deviations)
        sizes[name] = len(onnx.load(tmp_path / f"{name}.onnx").graph.node)
    assert sizes["filters"] < sizes["few"] < sizes["all"] / 4
    initializers = {i.name for i in onnx.load(tmp_path / "filters.onnx").graph.initializer}
    assert not any(name.startswith("small/") for name in initializers)


def test_a_forest_of_leaves(tmp_path: Path) -> None:
    encoder = CombinedEncoder([filters(), small_network()])
    assert export_deep_fused_onnx(forest_over(encoder, depth=0), tmp_path / "a.onnx", encoder=encoder).max_abs <= 1e-6


def test_parts_that_share_no_core_are_refused(tmp_path: Path) -> None:
    encoder = CombinedEncoder([small_network(), small_network(name="other", core=128, seed=5), filters()])
    with pytest.raises(
        ForestError, match=r"cores of one size for a package, found cores of small \(64, 64\), other \(128, 128\)"
    ):
        export_deep_fused_onnx(forest_over(encoder), tmp_path / "a.onnx", encoder=encoder)
    assert not list(tmp_path.iterdir())


def test_encoders_without_a_network_are_refused() -> None:
    with pytest.raises(
        ForestError,
        match=r"expected a forest over networks and the filter bank .*, found the encoder pool of filters\+pool",
    ):
        tile_parts(CombinedEncoder([filters(), pooling_encoder()]))


def test_networks_are_too_large_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = CombinedEncoder([small_network(), small_network(name="other", seed=5)])
    one = encoder_graph.weights_bytes(small_network())
    monkeypatch.setattr(encoder_graph, "MOST_BYTES", 2 * one - 1)
    with pytest.raises(ResourceError, match=r"less than 2 GiB for a package, .* for small and other"):
        export_deep_fused_onnx(forest_over(encoder), tmp_path / "a.onnx", encoder=encoder)
    assert not list(tmp_path.iterdir())


def test_parts_see_their_own_window() -> None:
    """A network sees core and its own halo of the package's tile, and its cells keep their places."""
    network = small_network()
    [bank, part] = tile_parts(CombinedEncoder([filters(), network]))
    raw = CELL[:140, :140].astype(np.float32)[None]
    alone = TilePart(network, (0, 0), (96, 96)).stored_maps(raw[:, 22:118, 22:118])
    assert all(np.array_equal(a, b) for a, b in zip(part.stored_maps(raw), alone, strict=True))
    assert [part.offset(m) for m in network.spec.maps] == [(22, 22)] * 3
    assert np.array_equal(bank.stored_maps(raw)[0], features(raw[0], filters()))


def test_graphs_of_two_transformers(tmp_path: Path) -> None:
    """Their names stay apart, and each sees its own window of the package's tile."""
    alone = [
        random_encoder("dinov2", tile=140, exportable=True),
        random_encoder("sam2_base", tile=144, zoom=2, exportable=True),  # its graph has branches
    ]
    encoder = CombinedEncoder([*alone, fb.open_encoder("filters")])
    forest = forest_over(encoder)
    for export in (export_deep_fused_onnx, export_deep_fused_torchscript):
        found = export(forest, tmp_path / export.__name__, encoder=encoder)
        print(f"{export.__name__}: {found}")
        assert found.pixels == 188 * 188
        assert found.label_flips <= 1e-3 * found.pixels
