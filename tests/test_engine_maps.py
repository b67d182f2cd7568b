"""Maps with a stride: the engine interpolates what it needs, and answers as if everything had been interpolated before."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from forestbridge import engine
from forestbridge.engine import blocks
from forestbridge.errors import SpecMismatchError
from forestbridge.forest import PixelForest
from forestbridge.spec import MapSpec
from random_forests import oracle_probabilities, random_forest
from small_encoders import pooling_encoder

SHAPE = (75, 101)


def noisy_map(n: int, rows: int, columns: int, *, seed: int, smooth: float = 1.0) -> NDArray[np.float32]:
    cells = np.random.default_rng(seed).normal(size=(n, rows, columns))
    return gaussian_filter(cells, (0, smooth, smooth)).astype(np.float32)


def interpolated(
    cells: NDArray, shape: tuple[int, int], stride: tuple[float, float], offset: tuple[float, float]
) -> NDArray[np.float32]:
    """Return (F, Y, X), written down as docs/formats.md says: along x, then along y, in float32."""
    values = cells.astype(np.float32)
    v, u = (
        np.clip((np.arange(n) - o) / s, 0, size - 1)
        for n, o, s, size in zip(shape, offset, stride, cells.shape[1:], strict=True)
    )
    top, left = np.floor(v).astype(int), np.floor(u).astype(int)
    bottom, right = np.minimum(top + 1, cells.shape[1] - 1), np.minimum(left + 1, cells.shape[2] - 1)
    down, along = (v - top).astype(np.float32)[:, None], (u - left).astype(np.float32)
    across = (1 - along) * values[:, :, left] + along * values[:, :, right]  # (F, rows, X)
    return (1 - down) * across[:, top] + down * across[:, bottom]


def check(forest: PixelForest, maps: list[NDArray], planes: NDArray[np.float32], shape: tuple[int, int]) -> None:
    """Compare with the engine on interpolated planes, bit by bit, and with the walk through every tree in numpy."""
    found = engine.predict(forest, maps, shape=shape)
    np.testing.assert_array_equal(found, engine.predict(forest, planes))
    assert np.abs(found - oracle_probabilities(forest, planes)).max() <= 1e-6
    labels = engine.predict_labels(forest, maps, shape=shape)
    np.testing.assert_array_equal(labels, found.argmax(axis=0) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (19, 26), (38, 51), (75, 101), (150, 202), (1, 1), (1, 9)])
@pytest.mark.parametrize("smooth", [0.0, 3.0])
def test_maps_give_what_interpolated_planes_give(rows: int, columns: int, smooth: float, dtype) -> None:
    """From coarser than a tile to finer than the image; strides that are no whole numbers, and differ along y and x."""
    cells = noisy_map(9, rows, columns, seed=rows, smooth=smooth).astype(dtype)
    stride = (SHAPE[0] / rows, SHAPE[1] / columns)
    planes = interpolated(cells, SHAPE, stride, ((stride[0] - 1) / 2, (stride[1] - 1) / 2))
    forest = random_forest(planes, seed=rows, n_trees=40, depth=9, n_classes=3, pure=rows % 2 == 0)
    check(forest, [cells], planes, SHAPE)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (16, 16), (17, 33), (130, 64), (64, 1040), (70, 1100)])
def test_three_levels_of_a_pyramid(shape: tuple[int, int]) -> None:
    maps, planes = [], []
    for n, stride in enumerate((4, 8, 16)):
        cells = noisy_map(5, -(-shape[0] // stride), -(-shape[1] // stride), seed=n).astype(np.float16)
        maps.append(cells)
        step = (shape[0] / cells.shape[1], shape[1] / cells.shape[2])
        planes.append(interpolated(cells, shape, step, ((step[0] - 1) / 2, (step[1] - 1) / 2)))
    everything = np.concatenate(planes)
    check(random_forest(everything, seed=1, n_trees=30, depth=8), maps, everything, shape)


@pytest.mark.parametrize(("stride", "offset"), [(4, 1.5), (4, 0.0), (14, 6.5), (3.5, 1.25), (1, 0.5), (16, 30.0)])
def test_the_spec_says_where_maps_lie(stride: float, offset: float) -> None:
    encoder = pooling_encoder(fine=3, coarse=4)
    maps = (
        MapSpec("fine", ("a", "b", "c"), stride=stride, offset=offset),
        MapSpec("coarse", ("d", "e", "f", "g"), stride=16, offset=7.5),
    )
    spec = replace(encoder.spec, maps=maps)
    arrays = [
        noisy_map(len(m.channels), m.n_cells(SHAPE[0]), m.n_cells(SHAPE[1]), seed=k).astype(np.float16)
        for k, m in enumerate(maps)
    ]
    planes = np.concatenate(
        [interpolated(a, SHAPE, (m.stride,) * 2, (m.offset,) * 2) for a, m in zip(arrays, maps, strict=True)]
    )
    check(random_forest(planes, seed=2, n_trees=25, depth=7, spec=spec), arrays, planes, SHAPE)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e30])
def test_values_that_cancel(scale: float) -> None:
    """Neighbouring cells of opposite sign: near their zero an interpolated value is all rounding, and so is a tile's range."""
    rng = np.random.default_rng(0)
    cells = (rng.choice([-1.0, 1.0], (6, 12, 14)) * (1 + rng.normal(size=(6, 12, 14)) * 1e-6) * scale).astype(
        np.float32
    )
    shape = (12 * 8, 14 * 8)
    planes = interpolated(cells, shape, (8, 8), (3.5, 3.5))
    forest = random_forest(planes, seed=3, n_trees=60, depth=8, pure=True)
    near_zero = np.sort(np.abs(planes).ravel())[:200].astype(np.float32)
    split = forest.feature >= 0
    threshold = forest.threshold.copy()
    threshold[split] = np.where(rng.random(split.sum()) < 0.7, rng.choice(near_zero, split.sum()), threshold[split])
    check(replace(forest, threshold=threshold), [cells], planes, shape)


def test_only_some_features_and_maps_are_used() -> None:
    maps = [noisy_map(4, 10, 13, seed=0), noisy_map(3, 5, 7, seed=1), noisy_map(2, 75, 101, seed=2)]
    planes = np.concatenate(
        [
            interpolated(m, SHAPE, (s, t), ((s - 1) / 2, (t - 1) / 2))
            for m in maps
            for s, t in [(SHAPE[0] / m.shape[1], SHAPE[1] / m.shape[2])]
        ]
    )
    for used in ([2], [0, 8], [4, 5, 6], [3, 7]):
        check(random_forest(planes, seed=5, n_trees=20, depth=6, used=used), maps, planes, SHAPE)
    check(random_forest(planes, seed=5, n_trees=3, depth=0), maps, planes, SHAPE)


@pytest.mark.parametrize("block", [(16, 16), (32, 48), (48, 1024)])
def test_blocks_and_threads_change_nothing(block: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [noisy_map(6, 19, 26, seed=0), noisy_map(6, 10, 13, seed=1)]
    forest = random_forest(np.concatenate([m.reshape(6, -1)[:, :130] for m in maps]), seed=4, n_trees=37, depth=9)
    expected = engine.predict(forest, maps, shape=SHAPE, threads=1)
    monkeypatch.setattr(blocks, "BLOCK", block)
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(engine.predict(forest, maps, shape=SHAPE, threads=threads), expected)


def test_maps_that_do_not_fit() -> None:
    cells = noisy_map(5, 10, 13, seed=0)
    forest = random_forest(cells, seed=0, n_trees=3, depth=3)
    with pytest.raises(ValueError, match=r"expected shape=\(Y, X\) of the image beside maps, found none"):
        engine.predict(forest, [cells])
    with pytest.raises(
        SpecMismatchError, match=r"expected the 5 features of the forest, found an array of shape \[\(4, 10"
    ):
        engine.predict(forest, [cells[:4]], shape=SHAPE)
    spec = pooling_encoder(fine=2, coarse=3).spec
    fine, coarse = noisy_map(2, 19, 26, seed=0), noisy_map(3, 5, 7, seed=0)
    forest = random_forest(cells, seed=0, n_trees=3, depth=3, spec=spec)
    engine.predict(forest, [fine, coarse], shape=SHAPE)
    message = (
        r"expected the maps pool\.fine, pool\.coarse of pool \[\w+\] as \[\(2, 19, 26\), \(3, 5, 7\)\] for an image of"
    )
    for wrong in ([coarse, fine], [fine], [fine, coarse[:, :4]]):
        with pytest.raises(SpecMismatchError, match=message):
            engine.predict(forest, wrong, shape=SHAPE)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_cells_that_are_not_finite(dtype) -> None:
    maps = [noisy_map(2, 10, 13, seed=0).astype(dtype), noisy_map(3, 5, 7, seed=1).astype(dtype)]
    forest = random_forest(np.concatenate([m.reshape(len(m), -1)[:, :30] for m in maps]), seed=0, n_trees=3, depth=3)
    maps[1][2, 4, 6] = np.nan
    maps[1][2, 4, 5] = -np.inf
    message = (
        r"found 2 NaN or infinite ones, the first in feature 2 of map 1 at \(4, 5\); a forest has no answer for them"
    )
    with pytest.raises(ValueError, match=message):
        engine.predict(forest, maps, shape=SHAPE)
    with pytest.raises(ValueError, match=message):
        engine.predict_labels(forest, maps, shape=SHAPE)
