"""The forest on torch gives the bits of the compiled engine: on every device, with and without Triton, from planes and from maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

from forestbridge import engine
from forestbridge.devices import require_float64
from forestbridge.engine import MapPart, torch_forest, torch_loading
from forestbridge.engine.torch_forest import TorchForest
from forestbridge.errors import ResourceError, SpecMismatchError
from forestbridge.forest import PixelForest
from forestbridge.sklearn_forest import forest_from_sklearn
from forestbridge.spec import MapSpec
from random_forests import random_forest
from small_encoders import pooling_encoder
from small_line import run_and_measure
from test_engine import CASES, fit, make_features
from test_engine_maps import SHAPE, interpolated, noisy_map
from torch_routes import NO_GPU, NO_TRITON, ROUTES, Route, every_route, run_kernels


def check(forest: PixelForest, features: NDArray, device: torch.device) -> None:
    """Compare probabilities and labels from planes bit by bit."""
    module = TorchForest(forest).to(device)
    found = module(torch.from_numpy(features).to(device))
    assert found.dtype == torch.float32 and found.device.type == device.type
    np.testing.assert_array_equal(found.cpu().numpy(), engine.predict(forest, features))
    np.testing.assert_array_equal(module.labels(found).cpu().numpy(), engine.predict_labels(forest, features))


def check_maps(forest: PixelForest, maps: list[NDArray], shape: tuple[int, int], device: torch.device) -> None:
    """Compare probabilities and labels from maps bit by bit."""
    module = TorchForest(forest).to(device)
    found = module.predict_maps([torch.from_numpy(m).to(device) for m in maps], shape)
    np.testing.assert_array_equal(found.cpu().numpy(), engine.predict(forest, maps, shape=shape))
    np.testing.assert_array_equal(module.labels(found).cpu().numpy(), engine.predict_labels(forest, maps, shape=shape))


def pixels(maps: list[NDArray], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the (F, Y, X) features that a forest without spec sees: its thresholds are some of them, so that each bit counts."""
    planes = []
    for m in maps:
        y, x = shape[0] / m.shape[1], shape[1] / m.shape[2]
        planes.append(interpolated(m, shape, (y, x), ((y - 1) / 2, (x - 1) / 2)))
    return np.concatenate(planes)


@every_route
@pytest.mark.parametrize(("seed", "case"), list(enumerate(CASES)), ids=[f"{k}-{c}" for k, c, _ in CASES])
def test_trained_forests(seed: int, case: tuple, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, n_classes, parameters = case
    rf, x = fit(kind, seed, n_classes, **parameters)
    check(forest_from_sklearn(rf), x[:4000].T.copy(), route.use(monkeypatch))


@every_route
@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("pure", [True, False], ids=["pure", "mixed"])
@pytest.mark.parametrize(("n_trees", "depth"), [(1, 0), (3, 1), (31, 6), (33, 12), (257, 4), (450, 9), (5, 40)])
def test_nasty_forests(
    n_trees: int, depth: int, pure: bool, n_classes: int, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the compiled engine: pixels that lie on thresholds, constant planes, values below the normal numbers, deep trees."""
    planes = make_features("integers", 70 * 90, 8, np.random.default_rng(n_trees)).T.reshape(8, 70, 90).copy()
    planes[3] = 7.0
    planes[4] = np.abs(planes[4]) * np.float32(1e-41)
    planes[5, :, :45] = np.float32(3e38)
    forest = random_forest(planes, seed=n_trees, n_trees=n_trees, depth=depth, n_classes=n_classes, pure=pure)
    check(forest, planes, route.use(monkeypatch))


@every_route
def test_leaves_that_rounding_made_nearly_pure(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forest file may hold fractions whose sum is 1 to 1e-5 only; of equal ones the first class counts."""
    planes = np.random.default_rng(0).normal(size=(4, 30, 40)).astype(np.float32)
    forest = random_forest(planes, seed=0, n_trees=6, depth=4, pure=True)
    leaves = np.where(forest.leaves == 1, 1, np.float32(3e-6))
    check(replace(forest, leaves=leaves, classes=(2, 7, 300)), planes, route.use(monkeypatch))


@every_route
@pytest.mark.parametrize(("values", "pairs"), [(1, 1), (700, 900), (4000, 2**20)])
def test_strips_change_nothing(values: int, pairs: int, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.random.default_rng(0).normal(size=(7, 23, 37)).astype(np.float32)
    forest = random_forest(planes, seed=6, n_trees=8, depth=6)
    maps = [planes[:3, :11, :8].copy(), planes[3:, :5, :5].copy()]
    over_maps = random_forest(pixels(maps, (23, 37)), seed=6, n_trees=8, depth=6)
    monkeypatch.setattr(torch_forest, "VALUES", values)
    monkeypatch.setattr(torch_forest, "PAIRS", pairs)
    monkeypatch.setattr(torch_loading, "PIECE", values)
    device = route.use(monkeypatch)
    check(forest, planes, device)
    check_maps(over_maps, maps, (23, 37), device)


@pytest.mark.parametrize("shape", [(12, 500), (12, 5, 10, 10), (12, 500, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_points_stacks_and_views(shape: tuple[int, ...], dtype) -> None:
    rf, x = fit("normal", 3, 3, n_estimators=10)
    forest, rows = forest_from_sklearn(rf), x[:500].T.astype(dtype)
    check(forest, rows.reshape(shape), torch.device("cpu"))
    turned = TorchForest(forest)(torch.from_numpy(rows.T.copy()).T).numpy()
    np.testing.assert_array_equal(turned, engine.predict(forest, rows))


MAP_SIZES = [(5, 7), (19, 26), (38, 51), (75, 101), (150, 202), (1, 1), (1, 9)]


@every_route
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("rows", "columns"), MAP_SIZES)
def test_maps(rows: int, columns: int, dtype, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """From coarser than a tile to finer than the image; strides that are no whole numbers, and differ along y and x."""
    cells = noisy_map(9, rows, columns, seed=rows).astype(dtype)
    forest = random_forest(pixels([cells], SHAPE), seed=rows, n_trees=40, depth=9, pure=rows % 2 == 0)
    check_maps(forest, [cells], SHAPE, route.use(monkeypatch))


@every_route
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 33), (64, 1040)])
def test_three_levels_of_a_pyramid(shape: tuple[int, int], route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [
        noisy_map(5, -(-shape[0] // stride), -(-shape[1] // stride), seed=n).astype(np.float16)
        for n, stride in enumerate((4, 8, 16))
    ]
    planes, device = pixels(maps, shape), route.use(monkeypatch)
    for used in (None, [2], [0, 7, 14], [5, 6]):
        check_maps(random_forest(planes, seed=1, n_trees=30, depth=8, used=used), maps, shape, device)
    check_maps(random_forest(planes, seed=1, n_trees=3, depth=0), maps, shape, device)


@every_route
@pytest.mark.parametrize(("stride", "offset"), [(4, 1.5), (4, 0.0), (14, 6.5), (3.5, 1.25), (1, 0.5), (16, 30.0)])
def test_the_spec_says_where_maps_lie(
    stride: float, offset: float, route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = (
        MapSpec("fine", ("a", "b", "c"), stride=stride, offset=offset),
        MapSpec("coarse", ("d", "e", "f", "g"), stride=16, offset=7.5),
    )
    maps = [
        noisy_map(len(m.channels), m.n_cells(SHAPE[0]), m.n_cells(SHAPE[1]), seed=k).astype(np.float16)
        for k, m in enumerate(specs)
    ]
    spec = replace(pooling_encoder(fine=3, coarse=4).spec, maps=specs)
    planes = np.concatenate(
        [interpolated(a, SHAPE, (m.stride,) * 2, (m.offset,) * 2) for a, m in zip(maps, specs, strict=True)]
    )
    check_maps(random_forest(planes, seed=2, n_trees=25, depth=7, spec=spec), maps, SHAPE, route.use(monkeypatch))


@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1.0, 1e4, 1e30])
@every_route
def test_values_that_cancel(scale: float, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring cells of opposite sign: near their zero an interpolated value is all rounding."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (6, 12, 14))
    cells = (signs * (1 + rng.normal(size=(6, 12, 14)) * 1e-6) * scale).astype(np.float32)
    planes = pixels([cells], (12 * 8, 14 * 8))
    near_zero = np.sort(np.abs(planes).reshape(6, -1), axis=1)[:, :200]
    forest = random_forest(near_zero, seed=3, n_trees=60, depth=8, pure=True)
    check_maps(forest, [cells], planes.shape[1:], route.use(monkeypatch))


@every_route
def test_parts_of_maps(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells around a region are enough, also where one map has the stride 1."""
    device = route.use(monkeypatch)
    strided, plain = noisy_map(4, 19, 26, seed=0), noisy_map(3, *SHAPE, seed=1)
    forest = random_forest(pixels([strided, plain], SHAPE), seed=0, n_trees=9, depth=6)
    whole = engine.predict(forest, [strided, plain], shape=SHAPE)
    stride = (SHAPE[0] / 19, SHAPE[1] / 26)
    offset = ((stride[0] - 1) / 2, (stride[1] - 1) / 2)
    region = (slice(33, 70), slice(41, 90))
    parts = [
        MapPart(torch.from_numpy(strided[:, 5:, 8:]).to(device), stride, offset, (19, 26), (5, 8)),
        MapPart(torch.from_numpy(plain[:, 30:71, 40:]).to(device), (1, 1), (0, 0), SHAPE, (30, 40)),
    ]
    found = TorchForest(forest).to(device).predict_region(parts, region)
    np.testing.assert_array_equal(found.cpu().numpy(), whole[:, *region])


@NO_GPU
def test_on_a_gpu() -> None:
    """All of the above ran there too."""
    assert set(ROUTES) == {"cpu", "cuda", "cuda-triton"}


@NO_TRITON
def test_triton_interpreted(tmp_path: Path) -> None:
    """The kernel itself, run by Triton's interpreter on the CPU."""
    assert "40 classes: equal" in run_kernels("interpret_forest", tmp_path, interpret=True)


@NO_TRITON
def test_triton_compiles_to_comparisons(tmp_path: Path) -> None:
    """Triton compiles for GPUs that are not there. The forest's kernel computes no float and flushes none: it compares."""
    lines = [line.split() for line in run_kernels("compiled", tmp_path, interpret=False).splitlines()]
    assert {line[0] for line in lines} == {"75", "80", "90", "100"}
    assert {" ".join(line[1:]) for line in lines} == {"_walk setp", "_correlate fma"}


@every_route
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_features_that_are_not_finite(bad: float, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    device = route.use(monkeypatch)
    planes = np.random.default_rng(0).normal(size=(5, 30, 40)).astype(np.float32)
    forest = random_forest(planes, seed=0, n_trees=3, depth=3)
    module = TorchForest(forest).to(device)
    planes[3, 20, 30] = planes[3, 21, 30] = bad
    with pytest.raises(ValueError, match=r"found 2 NaN or infinite ones, the first in feature 3 at \(20, 30\)"):
        module(torch.from_numpy(planes).to(device))
    for dtype in (np.float32, np.float16):
        maps = [
            torch.from_numpy(planes[:2].astype(dtype)).to(device),
            torch.from_numpy(planes[2:].astype(dtype)).to(device),
        ]
        message = r"found 2 NaN or infinite ones, the first in feature 1 of map 1 at \(20, 30\); a forest has no answer"
        with pytest.raises(ValueError, match=message):
            module.predict_maps(maps, (60, 80))


def test_refuses_other_features() -> None:
    planes = np.zeros((5, 30, 40), np.float32)
    module = TorchForest(random_forest(planes, seed=0, n_trees=3, depth=3))
    with pytest.raises(
        SpecMismatchError, match=r"expected the 5 features of the forest, found .* \(4, 30, 40\); the first"
    ):
        module(torch.from_numpy(planes[:4]))
    with pytest.raises(
        SpecMismatchError, match=r"expected the 5 features of the forest, found .* \[\(4, 30, 40\)\]; the first"
    ):
        module.predict_maps([torch.from_numpy(planes[:4])], (60, 80))
    spec = pooling_encoder(fine=2, coarse=3).spec
    module = TorchForest(random_forest(planes, seed=0, n_trees=3, depth=3, spec=spec))
    message = r"expected the maps pool\.fine, pool\.coarse of pool \[\w+\] as \[.*\] for an image of \(60, 80\), found \[\(5, 30, 40\)\]"
    with pytest.raises(SpecMismatchError, match=message):
        module.predict_maps([torch.from_numpy(planes)], (60, 80))


def test_refuses_a_device_without_float64() -> None:
    with pytest.raises(
        ResourceError, match=r"computes in float64, found mps, which has float32 only; use device='cpu'"
    ):
        require_float64(torch.device("mps"))
    require_float64(torch.device("cuda"))


PEAK = """
import sys
import numpy as np
import torch
from forestbridge import load_forest
from forestbridge.engine import torch_forest, torch_loading
from small_line import peak_memory
torch_forest.VALUES, torch_forest.PAIRS, torch_loading.PIECE = 2**20, 2**18, 2**18
module = torch_forest.TorchForest(load_forest(sys.argv[1] + "/some.forest"))
cells = torch.from_numpy(np.load(sys.argv[1] + "/cells.npy"))
module.predict_maps([cells[:, :4, :4]], (64, 64))
before = peak_memory()
result = module.predict_maps([cells], (cells.shape[1] * 16, cells.shape[2] * 16))
print(before, peak_memory() - result.nbytes / 2**20)
"""


def test_scratch_memory_is_bounded(tmp_path: Path) -> None:
    """256 features of 4 Mpx would be 4 GiB as a matrix. The bounds are set to 1/64 of what a GPU gets: of 256 MiB and the like."""
    cells = np.random.default_rng(0).normal(size=(256, 128, 128)).astype(np.float16)
    np.save(tmp_path / "cells.npy", cells)
    random_forest(cells[:, :9, :9].astype(np.float32), seed=0, n_trees=5, depth=5).save(tmp_path / "some.forest")
    before, after = run_and_measure(PEAK, tmp_path)
    assert after - before < 40
