"""The filter bank on torch gives the compiled bank's features to the last bit of a float32, whole or cut into tiles, on every device."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

from filter_oracle import IDS
from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders import torch_filters
from forestbridge.encoders.filters import FilterBank, open_filter_bank
from forestbridge.tiles import plan_tiles
from test_filters import ODD_SCALES, SHAPES, SHAPES_3D, cells, encode_whole, everything, noise, stack
from torch_routes import NO_GPU, NO_TRITON, ROUTES, Route, every_route, run_kernels

MANY = 3e-4
"""Features that may differ in the last bit, of large images of noise; measured: 4e-6 to 3e-5. Smaller images, and even areas, have more
in which nothing but rounding is left."""


def encode_on(device: torch.device, bank: FilterBank, image: NDArray) -> NDArray[np.float32]:
    """Return the features of a whole image (C, ...)."""
    tile = torch.from_numpy(image).to(device)
    features = torch_filters.encode(bank, tile, tuple(slice(0, n) for n in image.shape[1:]))
    assert features.dtype == torch.float32 and features.device.type == device.type and features.is_contiguous()
    return features.cpu().numpy()


def encode_tiled(device: torch.device, bank: FilterBank, image: NDArray, core: tuple[int, ...]) -> NDArray[np.float32]:
    shape = image.shape[1:]
    features = np.full((bank.spec.n_features, *shape), np.nan, np.float32)
    for tile in plan_tiles(shape, core, bank.spec.halo):
        inside, tile_core = tile.inside(shape)
        part = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *inside)])).to(device)
        features[(slice(None), *tile.core)] = torch_filters.encode(bank, part, tile_core).cpu().numpy()
    return features


def assert_equal_to_rounding(
    found: NDArray[np.float32], expected: NDArray[np.float32], image: NDArray, bank: FilterBank
) -> float:
    """Allow the last bit of a float32, and what float64 leaves of the intensity; return which share of the features differs."""
    deviation = np.abs(found.astype(np.float64) - expected)
    ndim = expected.ndim - 1
    squared = np.array([name.startswith("Structure") for name in bank.spec.feature_names])
    intensity = float(image.max())
    # 3 × 3 eigenvalues come from a quotient whose digits go where two of them meet
    unit = np.where(squared, intensity**2, intensity) * (1e-15 if ndim == 2 else 1e-7)
    assert (deviation <= 1.2e-7 * np.abs(expected) + unit.reshape(-1, *(1,) * ndim)).all()
    return float((found != expected).mean())


SELECTIONS = [
    everything(fk.DEFAULT_SCALES),
    everything(ODD_SCALES),
    {IDS[4]: (0.2, 1.6)},
    {IDS[0]: (3.5,), IDS[5]: (3.5,)},
    {IDS[2]: (1.0,), IDS[3]: (0.3, 5.0)},
]


@every_route
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", [*SHAPES, *SHAPES_3D], ids=str)
def test_equals_the_compiled_bank(shape, offset: float, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 2D, 3D and mixed, for images smaller than the kernels too."""
    image, device = noise(*shape, seed=len(shape)) + np.float32(offset), route.use(monkeypatch)
    for selection in SELECTIONS:
        scales = sorted({s for chosen in selection.values() for s in chosen})
        for flat in (True,) if len(shape) == 3 else (False, {s: s in (1.6, 10.0) for s in scales}):
            bank = open_filter_bank(selection=selection, channels=shape[0], compute_in_2d=flat)
            expected = encode_whole(bank, image)
            differing = assert_equal_to_rounding(encode_on(device, bank, image), expected, image, bank)
            print(f"{differing:.1e} of {expected.size} differ")


@every_route
@pytest.mark.parametrize("compute_in_2d", [True, False])
def test_hardly_a_feature_differs(compute_in_2d: bool, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1, 400, 500, high=65536) if compute_in_2d else noise(1, 20, 66, 131, high=65536)
    bank, device = open_filter_bank(compute_in_2d=compute_in_2d), route.use(monkeypatch)
    expected = encode_whole(bank, image)
    differing = assert_equal_to_rounding(encode_on(device, bank, image), expected, image, bank)
    print(f"{differing:.1e} of {expected.size} differ")
    assert differing <= MANY


@every_route
@pytest.mark.parametrize("core", [(64, 64), (37, 53), (5, 170), (1, 1000)])
def test_tiled_equals_whole_2d(core, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    image, bank, device = noise(2, 50, 170), open_filter_bank(channels=2), route.use(monkeypatch)
    whole = encode_on(device, bank, image)
    assert assert_equal_to_rounding(encode_tiled(device, bank, image, core), whole, image, bank) <= MANY


@every_route
@pytest.mark.parametrize("core", [(8, 40, 44), (7, 16, 23), (1, 40, 30)])
@pytest.mark.parametrize("flat", [(), (1.6,)])
def test_tiled_equals_whole_3d(core, flat, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    scales, device = (0.3, 0.7, 1.6), route.use(monkeypatch)
    bank = open_filter_bank(selection=everything(scales), channels=2, compute_in_2d={s: s in flat for s in scales})
    whole = encode_on(device, bank, stack(20))
    assert assert_equal_to_rounding(encode_tiled(device, bank, stack(20), core), whole, stack(20), bank) <= MANY


@every_route
@pytest.mark.parametrize("scale", fk.DEFAULT_SCALES[1:])  # at 0.3 the compiled bank multiplies NaN with taps that are 0
def test_one_bad_pixel_reaches_as_far_as_the_halo(scale: float, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing looks farther than in the compiled bank, and nothing less far."""
    image, device = cells(100, 100), route.use(monkeypatch)
    image[0, 50, 50] = np.nan
    for feature in IDS:
        bank = open_filter_bank(selection={feature: (scale,)})
        np.testing.assert_array_equal(
            np.isnan(encode_on(device, bank, image)).any(axis=0), np.isnan(encode_whole(bank, image)).any(axis=0)
        )


@every_route
def test_a_constant_image_and_a_micrograph(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, device = open_filter_bank(), route.use(monkeypatch)
    for image in (np.full((1, 30, 40), 7, np.float32), cells(), cells() + np.float32(1e4)):
        assert_equal_to_rounding(encode_on(device, bank, image), encode_whole(bank, image), image, bank)


def test_the_image_stays_as_it_is_and_may_be_a_view() -> None:
    image, bank = noise(2, 40, 50), open_filter_bank(channels=2)
    before = image.copy()
    expected = encode_on(torch.device("cpu"), bank, image)
    view = torch.from_numpy(image.transpose(2, 1, 0).copy()).permute(2, 1, 0)
    found = torch_filters.encode(bank, view, (slice(0, 40), slice(0, 50))).numpy()
    assert assert_equal_to_rounding(found, expected, image, bank) <= MANY
    np.testing.assert_array_equal(image, before)


PASSES = [  # selection, passes along one axis: y and x each
    ({IDS[0]: (1.0,)}, 2 + 2),
    ({IDS[0]: (1.0,), IDS[2]: (1.0,)}, 2 + 2 + 3),  # the gradient begins with the smoothing along y
    ({IDS[0]: (0.3, 5.0)}, 2 * (2 + 2)),
    ({IDS[4]: (1.6,)}, 2 + 4 + 3 * 2),
]


@pytest.mark.parametrize(("selection", "passes"), PASSES)
def test_only_what_is_asked_for_is_computed_and_once(
    selection: dict, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    correlate = torch_filters.correlate
    monkeypatch.setattr(torch_filters, "correlate", lambda *arguments: done.append(1) or correlate(*arguments))
    encode_on(torch.device("cpu"), open_filter_bank(selection=selection), cells())
    assert len(done) == passes


@NO_GPU
def test_on_a_gpu() -> None:
    """All of the above ran there too."""
    assert set(ROUTES) == {"cpu", "cuda", "cuda-triton"}


@NO_TRITON
def test_triton_interpreted(tmp_path: Path) -> None:
    """The kernel itself, run by Triton's interpreter on the CPU."""
    assert run_kernels("interpret_filters", tmp_path, interpret=True).count("differ") == 3
