"""Cellpose's cyto3 with its real weights: against Cellpose itself, tiled against whole, and shifted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

import forestbridge as fb
from deep_weights import cyto3_file, randomise
from forestbridge.encoders import encoder_from_spec
from forestbridge.encoders.conformance import EncoderConformance
from forestbridge.encoders.deep import DeepEncoder, deep_encoder_from_spec, open_deep_encoder, plan_run
from forestbridge.encoders.features import encode_tile, tiles_of
from forestbridge.encoders.networks import network_of
from forestbridge.errors import ResourceError, StoreError, WeightsError
from forestbridge.extract import extract
from forestbridge.image import as_image


def cyto3(**options) -> DeepEncoder:
    return open_deep_encoder("cellpose_cyto3", weights=cyto3_file(), **{"low": [0], "high": [255], **options})


@pytest.fixture(scope="module")
def cell() -> NDArray[np.float32]:
    """Return (1, 660, 550) float32: a cell by phase contrast, bytes."""
    return data.cell().astype(np.float32)[None]


def joined(image: NDArray[np.float32], encoder: DeepEncoder) -> list[NDArray[np.float32]]:
    """Return the maps of a whole plane, put together from its tiles."""
    shape = image.shape[1:]
    maps = [np.full((len(m.channels), *(m.n_cells(n) for n in shape)), np.nan, np.float32) for m in encoder.spec.maps]
    for piece in tiles_of(encoder.spec, as_image(image)):
        for m, target, values in zip(
            encoder.spec.maps, maps, encode_tile(as_image(image), encoder, piece), strict=True
        ):
            y, x = (int(c.start // m.stride) for c in piece.tile.core)
            target[:, y : y + values.shape[1], x : x + values.shape[2]] = values
    return maps


class TestConformance(EncoderConformance):
    @pytest.fixture
    def encoder(self) -> DeepEncoder:
        return cyto3(tile=160)


class TestConformanceOfTwoChannelsAndSomeMaps(EncoderConformance):
    @pytest.fixture
    def encoder(self) -> DeepEncoder:
        return cyto3(tile=144, channels=2, low=[0, 10], high=[255, 90], maps=["s8", "s2"])


def test_geometry() -> None:
    spec = cyto3().spec
    assert [(m.name, len(m.channels), m.stride, m.offset) for m in spec.maps] == [
        ("s1", 32, 1, 0),
        ("s2", 64, 2, 0.5),
        ("s4", 128, 4, 1.5),
        ("s8", 256, 8, 3.5),
    ]
    assert (spec.tile, spec.halo, spec.input_size, spec.dtype) == ((384, 384), (64, 64), None, "float16")


def test_equals_cellpose(cell: NDArray[np.float32]) -> None:
    from cellpose.resnet_torch import downsample

    original = downsample([2, 32, 64, 128, 256], sz=3)
    original.load_state_dict(torch.load(cyto3_file(), weights_only=True), strict=True)
    raw = torch.from_numpy(cell[None, :, :256, :256])
    with torch.inference_mode():
        expected = original.eval()(torch.cat([raw / 255, torch.zeros_like(raw)], dim=1))
        found = cyto3(tile=256).module(raw)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
        assert b.abs().max() > 1


def test_tiled_equals_whole(cell: NDArray[np.float32]) -> None:
    """Cells see 60 pixels at most: with a halo of 64, small tiles, large tiles and the whole image agree, at its borders too."""
    small = joined(cell[:, :130, :100], cyto3(tile=192))  # cores of 64
    whole = joined(cell[:, :130, :100], cyto3(tile=264))
    for a, b in zip(small, whole, strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_halo_is_not_too_large(cell: NDArray[np.float32]) -> None:
    """A pixel 60 beyond a cell changes it, one 61 beyond does not."""
    encoder = cyto3(tile=192, maps=["s8"])
    tile, core = cell[:, 100:292, 100:292].copy(), (slice(64, 128), slice(64, 128))
    before = encoder.encode(tile, core)[0]
    tile[:, :, 64 - 61] = 255 - tile[:, :, 64 - 61]
    assert np.array_equal(encoder.encode(tile, core)[0], before)
    tile[:, :, 64 - 60] = 255 - tile[:, :, 64 - 60]
    assert (encoder.encode(tile, core)[0][:, :, 0] != before[:, :, 0]).any()


def test_shift_by_a_stride(cell: NDArray[np.float32]) -> None:
    """An image that is shifted by 8 pixels has its cells 8/stride further."""
    encoder = cyto3(tile=192)
    core = (slice(64, 128), slice(64, 128))
    here = encoder.encode(cell[:, 50:242, 50:242], core)
    there = encoder.encode(cell[:, 58:250, 50:242], core)
    for m, a, b in zip(encoder.spec.maps, here, there, strict=True):
        step = round(8 / m.stride)
        assert np.abs(a[:, step:] - b[:, :-step]).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("k", range(4))
def test_offset_is_the_centre_of_what_a_cell_sees(k: int) -> None:
    """With random weights, the centre of mass of a cell's gradient lies at offset + stride · cell."""
    encoder = cyto3(tile=192, maps=[f"s{2**k}"])
    m = encoder.spec.maps[0]
    generator = torch.Generator().manual_seed(0)
    cell_index = int(96 // m.stride)
    weight = torch.zeros(192)
    for seed in range(3):
        randomise(encoder.module.network, seed=seed)
        raw = (255 * torch.rand(1, 1, 192, 192, generator=generator)).requires_grad_()
        encoder.module(raw)[0][0, :, cell_index, cell_index].square().sum().backward()
        weight += raw.grad.square().sum(dim=(0, 1, 2))
    centre = float((weight * torch.arange(192)).sum() / weight.sum())
    assert centre == pytest.approx(m.offset + m.stride * cell_index, abs=0.35 * m.stride)


def test_channels() -> None:
    with pytest.raises(
        ValueError, match=r"expected 1 or 2 channels for cellpose_cyto3, found 3; choose the channel of the"
    ):
        cyto3(channels=3, low=[0] * 3, high=[1] * 3)
    one, two = cyto3(tile=144), cyto3(tile=144, channels=2, low=[0, 0], high=[255, 255])
    tile = np.random.default_rng(0).integers(0, 256, (1, 16, 16)).astype(np.float32)
    core = (slice(0, 16), slice(0, 16))
    black = np.concatenate([tile, np.zeros_like(tile)])
    assert all(np.array_equal(a, b) for a, b in zip(one.encode(tile, core), two.encode(black, core), strict=True))
    bright = np.concatenate([tile, 255 - tile])
    assert not np.array_equal(one.encode(tile, core)[0], two.encode(bright, core)[0])


def test_intensities_are_linear_and_clipped() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (1, 16, 16)).astype(np.float32)
    core = (slice(0, 16), slice(0, 16))
    bytes_, words = cyto3(tile=144), cyto3(tile=144, low=[1000], high=[1000 + 4 * 255])
    expected = bytes_.encode(tile, core)
    for a, b in zip(words.encode(1000 + 4 * tile, core), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    beyond = np.where(tile == 255, 9e4, np.where(tile == 0, -9e4, tile)).astype(np.float32)
    assert np.array_equal(bytes_.encode(beyond, core)[0], expected[0])


@pytest.mark.parametrize(("low", "high"), [([5], [5]), ([9], [3]), ([0], [np.nan]), ([-np.inf], [1]), ([0, 0], [1, 1])])
def test_bad_limits(low: list[float], high: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected (finite low < high|low and high) for each"):
        cyto3(low=low, high=high)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, r"expected for cellpose_cyto3 a tile of a multiple of 8 pixels from 136 on, .* found tile 100"),
        ({"tile": 128}, r"found tile 128"),
        ({"tile": -8}, r"found tile -8"),
        ({"zoom": 3}, r"a divisor of 8, found tile 512 and zoom 3"),
        ({"zoom": 2}, r"expected cells of whole pixels, found map s1 of stride 0.5 at zoom 2"),
        ({"maps": ["s3"]}, r"expected maps of cellpose_cyto3 among s1, s2, s4, s8, each once, found s3"),
        ({"maps": []}, r"found none; leave them out to use s1, s2, s4, s8"),
        ({"preprocessing": "none"}, r"expected the preprocessing network or featureforest, found 'none'"),
        ({"precision": "int8"}, r"expected the precision auto, float32, bfloat16 or float16, found 'int8'"),
        ({"batch": 0}, r"expected a batch of at least one tile, found 0"),
        ({"device": "tpu"}, r"expected the device cpu, .* found 'tpu'"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cyto3(**options)


def test_zoom(cell: NDArray[np.float32]) -> None:
    """A tile that is enlarged twice equals the tile of an image that is."""
    encoder = cyto3(tile=96, zoom=2, maps=["s4"])
    assert encoder.spec.input_size == (192, 192)
    assert [(m.stride, m.offset) for m in encoder.spec.maps] == [(2, 0.5)]
    core = (slice(36, 60), slice(36, 60))
    tile = np.kron(cell[:, 100:148, 100:148], np.ones((1, 2, 2), np.float32))
    found = encoder.encode(tile, core)[0]
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(tile[None]), (192, 192), mode="bilinear")[0].numpy()
    expected = cyto3(tile=192, maps=["s4"]).encode(enlarged, (slice(72, 120), slice(72, 120)))[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_name_with_maps_and_alias() -> None:
    options = {"weights": cyto3_file(), "low": [0], "high": [255]}
    assert [m.name for m in fb.open_encoder("Cellpose_cyto3:s4,s1", **options).spec.maps] == ["s1", "s4"]
    with pytest.raises(ValueError, match=r"found s3"):
        fb.open_encoder("cellpose_cyto3:s3", **options)


def test_weights_are_found_again_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: NDArray[np.float32]
) -> None:
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path))
    first = cyto3(maps=["s1"], tile=144)
    again = encoder_from_spec(first.spec)
    tile, core = cell[:, :16, :16], (slice(0, 16), slice(0, 16))
    assert np.array_equal(first.encode(tile, core)[0], again.encode(tile, core)[0])
    assert [p.name for p in (tmp_path / "weights").iterdir()] == [
        f"cellpose_cyto3-{first.spec.weights[:16]}.safetensors"
    ]
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    with pytest.raises(
        ResourceError, match=r"name the file once with: forestbridge encoders download cellpose_cyto3 --weights FILE"
    ):
        encoder_from_spec(first.spec)
    assert deep_encoder_from_spec(first.spec, weights=cyto3_file()).spec == first.spec


def test_layouts_of_checkpoints(tmp_path: Path) -> None:
    """The whole network as Cellpose publishes it, and the part that FeatureForest ships, give the same encoder."""
    from cellpose.resnet_torch import CPnet

    whole = randomise(CPnet([2, 32, 64, 128, 256], nout=3, sz=3))
    assert len(whole.state_dict()) == 313
    part = whole.downsample.state_dict()
    tile, core = np.full((1, 16, 16), 9, np.float32), (slice(0, 16), slice(0, 16))
    found = []
    for name, content in {"whole": whole.state_dict(), "part": part, "wrapped": {"model": part}}.items():
        torch.save(content, tmp_path / name)
        encoder = open_deep_encoder("cellpose_cyto3", low=[0], high=[9], tile=144, weights=tmp_path / name)
        found.append(encoder.encode(tile, core))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    del part["down.res_down_3.proj.1.bias"]
    torch.save(part, tmp_path / "incomplete")
    with pytest.raises(WeightsError, match=r"incomplete: .*1 missing, such as levels.3.proj.1.bias"):
        open_deep_encoder("cellpose_cyto3", low=[0], high=[9], weights=tmp_path / "incomplete")


class Crowded(torch.nn.Module):
    """A module that has memory for so many tiles."""

    def __init__(self, module: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.module, self.most, self.seen = module, most, []

    def forward(self, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen.append(len(raw))
        if len(raw) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.module(raw)


def crowded(most: int, batch: int) -> tuple[DeepEncoder, Crowded]:
    encoder = cyto3(tile=136, maps=["s8"], batch=batch)
    module = Crowded(encoder.module, most)
    return DeepEncoder(encoder.spec, module, plan_run(network_of("cellpose_cyto3"), batch=batch)), module


def test_batches(cell: NDArray[np.float32], caplog: pytest.LogCaptureFixture) -> None:
    tiles = [(cell[:, 100 * n : 100 * n + 72, :136], (slice(0, 8), slice(64, 72))) for n in range(5)]
    single = cyto3(tile=136, maps=["s8"])
    expected = [single.encode(*tile) for tile in tiles]
    encoder, module = crowded(2, batch=5)
    found = encoder.encode_batch(tiles)
    for a, b in zip(found, expected, strict=True):
        assert a[0].dtype == np.float16  # as a store keeps it
        np.testing.assert_allclose(a[0], b[0], atol=1e-5, rtol=2**-10)
    assert module.seen == [5, 2, 2, 1]
    assert encoder.batch == 2
    assert "5 tiles at once do not fit into memory, going on with 2" in caplog.text
    assert encoder.encode_batch([]) == []


class Scaled(torch.nn.Module):
    """Returns its maps larger where a tile is bright."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(m * (1e6 if raw.max() > 1e3 else 1.0) for m in self.module(raw))


def test_values_beyond_float16_are_named(cell: NDArray[np.float32], tmp_path: Path) -> None:
    """They come in float32, so that the message has the value itself; other tiles of the batch stay as they are."""
    encoder = cyto3(tile=136, maps=["s8"])
    encoder = DeepEncoder(encoder.spec, Scaled(encoder.module), plan_run(network_of("cellpose_cyto3"), batch=2))
    core = (slice(0, 8), slice(0, 8))
    bright = np.full_like(cell[:, :136, :136], 2e3)
    [[plain], [scaled]] = [encoder.encode_batch([(tile, core)])[0] for tile in (cell[:, :136, :136], bright)]
    assert plain.dtype == np.float16
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() > np.finfo(np.float16).max
    largest = np.abs(encoder.encode(bright, core)[0]).max()
    np.testing.assert_array_equal(np.abs(scaled).max(), largest)
    with pytest.raises(
        StoreError, match=r"expected features up to 65504, the largest float16.*, found \d+ values beyond, up to"
    ):
        extract(bright[0], encoder, tmp_path / "a.features.ome.zarr")
    assert list(tmp_path.iterdir()) == []


def test_no_memory_for_one_tile(cell: NDArray[np.float32]) -> None:
    encoder, _ = crowded(0, batch=4)
    with pytest.raises(ResourceError, match=r"expected enough memory on cpu for one tile of cellpose_cyto3"):
        encoder.encode(cell[:, :8, :8], (slice(0, 8), slice(0, 8)))


@pytest.mark.parametrize(
    ("shape", "core"),
    [
        ((2, 16, 16), (slice(0, 16), slice(0, 16))),
        ((1, 200, 16), (slice(0, 200), slice(0, 16))),
        ((1, 16, 16), (slice(0, 17), slice(0, 16))),
        ((1, 16, 16), (slice(3, 3), slice(0, 16))),
        ((16, 16), (slice(0, 16), slice(0, 16))),
    ],
)
def test_tiles_that_do_not_fit(shape: tuple[int, ...], core: tuple[slice, ...]) -> None:
    encoder = cyto3(tile=144, maps=["s8"])
    with pytest.raises(ValueError, match=r"expected a tile of 1 channel\(s\) and a core of at most \(16, 16\) pixels"):
        encoder.encode(np.zeros(shape, np.float32), core)


def test_half_precision(cell: NDArray[np.float32]) -> None:
    """The maps stay float32 and near; bfloat16 is too coarse for these weights (a third of the coarsest map), so nobody gets it unasked."""
    core = (slice(64, 80), slice(64, 80))
    exact = cyto3(tile=144)
    expected = exact.encode(cell[:, :144, :144], core)
    errors = {}
    for precision in ("float16", "bfloat16"):
        half = cyto3(tile=144, precision=precision)
        assert half.spec == exact.spec
        found = half.encode(cell[:, :144, :144], core)
        assert {m.dtype for m in found} == {np.dtype(np.float32)}
        errors[precision] = [np.abs(a - b).mean() / np.abs(b).mean() for a, b in zip(found, expected, strict=True)]
    assert 0 < max(errors["float16"]) < 0.07  # measured 0.050
    assert max(errors["bfloat16"]) > 0.2  # measured 0.334


def test_edited_spec() -> None:
    spec = cyto3().spec
    with pytest.raises(ValueError, match=r"expected cellpose_cyto3 version 1 .* found version 2"):
        encoder_from_spec(replace(spec, version=2))
    with pytest.raises(ValueError, match=r"incomplete or was edited \('low'\)"):
        encoder_from_spec(replace(spec, intensity={"rule": "raw"}))


def test_store_has_its_maps(tmp_path: Path, cell: NDArray[np.float32]) -> None:
    """The whole way: a store in float16 at native strides, and features that belong to a shifted image's pixels."""
    encoder = cyto3(tile=192)
    store = fb.extract(cell[0, :90, :60], encoder, tmp_path / "cell.features.ome.zarr")
    assert store.spec == encoder.spec
    expected = joined(cell[:, :90, :60], encoder)
    place = np.array([[77, 31]])
    found = store.at(place)
    assert found.shape == (1, 480)
    np.testing.assert_allclose(found[0, :32], expected[0][:, 77, 31].astype(np.float16), rtol=1e-6)
