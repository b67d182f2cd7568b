"""Tiles and strided maps, against counting and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestbridge.tiles import interpolation_cells, plan_strips, plan_tiles

axis = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(0, 20))  # image, core and halo along one axis
axes = st.lists(axis, min_size=1, max_size=3).map(lambda a: tuple(zip(*a, strict=True)))


@settings(deadline=None)
@given(axes)
def test_cores_cover_every_pixel_once(sizes):
    shape, core, halo = sizes
    seen = np.zeros(shape, int)
    for tile in plan_tiles(shape, core, halo):
        seen[tile.core] += 1
        assert all(c.start - o.start == h == o.stop - c.stop for c, o, h in zip(tile.core, tile.outer, halo))
        assert all(n <= c for n, c in zip(seen[tile.core].shape, core))
    assert (seen == 1).all()


@settings(deadline=None)
@given(axes)
def test_inside_is_outer_without_what_lies_beyond_the_image(sizes):
    shape, core, halo = sizes
    image = np.arange(np.prod(shape)).reshape(shape)
    for tile in plan_tiles(shape, core, halo):
        image_slices, tile_core = tile.inside(shape)
        for image_slice, outer, n in zip(image_slices, tile.outer, shape):
            assert list(range(n)[image_slice]) == [i for i in range(outer.start, outer.stop) if 0 <= i < n]
        np.testing.assert_array_equal(image[image_slices][tile_core], image[tile.core])


def test_tiles_come_in_c_order():
    tiles = list(plan_tiles((5, 7), (3, 4), (1, 0)))
    assert [t.core for t in tiles] == [
        (slice(0, 3), slice(0, 4)),
        (slice(0, 3), slice(4, 7)),
        (slice(3, 5), slice(0, 4)),
        (slice(3, 5), slice(4, 7)),
    ]
    assert tiles[0].outer == (slice(-1, 4), slice(0, 4))
    assert tiles[3].inside((5, 7)) == ((slice(2, 5), slice(4, 7)), (slice(1, 3), slice(0, 3)))


@pytest.mark.parametrize(
    ("core", "halo"), [((0, 4), (1, 1)), ((4, 4), (1, -1)), ((4,), (1, 1)), ((4, 4), (1, 1, 1)), ((-2, 4), (0, 0))]
)
def test_wrong_sizes_are_refused(core, halo):
    with pytest.raises(ValueError, match=r"expected core ≥ 1 and halo ≥ 0 for each axis of \(9, 9\), found core \("):
        list(plan_tiles((9, 9), core, halo))


def lookup_by_search(cells: np.ndarray, position: float, stride: float, offset: float) -> float:
    """Return the linear interpolation between the nearest centres on either side; the outermost value beyond them."""
    centres = [offset + stride * i for i in range(len(cells))]
    if position <= centres[0]:
        return float(cells[0])
    for i in range(len(cells) - 1):
        if position <= centres[i + 1]:
            share = (position - centres[i]) / (centres[i + 1] - centres[i])
            return float((1 - share) * cells[i] + share * cells[i + 1])
    return float(cells[-1])


@settings(deadline=None)
@given(
    size=st.integers(1, 12),
    stride=st.sampled_from([1.0, 2.0, 4.0, 14.0, 16.0, 3.7]),
    centred=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_interpolation_against_search(size, stride, centred, seed):
    offset = centred * (stride - 1)  # 0.5: cells that divide the image evenly
    cells = np.random.default_rng(seed).normal(size=size)
    positions = np.arange(-3, int(stride * size) + 5)
    first, second, weight = interpolation_cells(positions, stride, offset, size)
    assert weight.dtype == np.float32 and (weight >= 0).all() and (weight <= 1).all()
    assert (first >= 0).all() and (second < size).all() and ((second - first >= 0) & (second - first <= 1)).all()
    got = (1 - weight) * cells[first] + weight * cells[second]
    expected = [lookup_by_search(cells, p, stride, offset) for p in positions.tolist()]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_stride_one_looks_up_the_pixel_itself():
    first, _, weight = interpolation_cells(np.arange(9), 1.0, 0.0, 9)
    np.testing.assert_array_equal(first, np.arange(9))
    assert not weight.any()


def test_a_pixel_on_a_centre_needs_one_cell():
    first, second, _ = interpolation_cells(np.array([0, 1.5, 2, 5.5, 9]), 4.0, 1.5, 2)
    np.testing.assert_array_equal(first, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(second, [0, 0, 1, 1, 1])


def test_strips_cover_a_plane_block_by_block():
    strips = [tile.core for tile in plan_strips((25, 30), (10, 20), most=80)]
    assert strips[:4] == [
        (slice(0, 4), slice(0, 20)),
        (slice(4, 8), slice(0, 20)),
        (slice(8, 10), slice(0, 20)),
        (slice(0, 4), slice(20, 30)),
    ]
    seen = np.zeros((25, 30), int)
    for y, x in strips:
        seen[y, x] += 1
    assert (seen == 1).all()
    assert len(list(plan_strips((25, 30), (10, 20), most=1))) == 50
