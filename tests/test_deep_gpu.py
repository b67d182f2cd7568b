"""Deep encoders on a GPU: the maps of the CPU, in batches, in low precision, compiled, and with too little memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import forestbridge as fb
from forestbridge.errors import ResourceError
from forestbridge.image import as_image
from forestbridge.phantom import phantom
from forestbridge.stores import FeatureStore

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

from deep_weights import random_encoder
from forestbridge.encoders import coming
from forestbridge.encoders.deep import DeepEncoder, plan_run
from forestbridge.encoders.features import encode_tile, tiles_of
from forestbridge.encoders.networks import network_of
from torch_routes import NO_GPU

pytestmark = NO_GPU

ROUNDING = {"cellpose_cyto3": 1e-4, "mobile_sam": 3e-2, "dinov2": 2e-2, "sam2_base": 3e-2, "micro_sam_lm": 3e-2}
"""Norm of the difference from the CPU in the default precision, over the norm: bfloat16 has 8 bits, layers add up."""


def on_gpu(encoder: DeepEncoder, **options: object) -> DeepEncoder:
    """Return the same network there."""
    run = plan_run(network_of(encoder.spec.name), "cuda", **options)  # pyright: ignore[reportArgumentType]
    return DeepEncoder(encoder.spec, encoder.module, run)


def relative(found: NDArray, expected: NDArray) -> float:
    """Return the norm of a difference over the norm."""
    difference = np.subtract(found, expected, dtype=np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def maps_of(store: FeatureStore) -> list[NDArray]:
    """Return (F, y, x) of each map of a store."""
    everything = slice(None)
    return [store.read(m.name, (everything, everything)) for m in store.spec.maps]


@pytest.mark.parametrize("name", ROUNDING)
def test_maps_are_those_of_the_cpu(name: str) -> None:
    """In float32 to rounding, in the default precision as far as its bits go; the same ones each time."""
    image = as_image(phantom((300, 300), classes=2, dtype=np.uint8).image)
    encoder = random_encoder(name)
    piece = tiles_of(encoder.spec, image)[0]
    expected = encode_tile(image, encoder, piece)
    exact = encode_tile(image, on_gpu(encoder, precision="float32"), piece)
    fast = on_gpu(encoder)
    found, again = (encode_tile(image, fast, piece) for _ in range(2))
    for m, e, x, f, a in zip(encoder.spec.maps, expected, exact, found, again, strict=True):
        print(f"{name} {m.name}: float32 {relative(x, e):.1e}, default {relative(f, e):.1e}")
        assert relative(x, e) <= 1e-4  # rounded to float16, where a few values fall to the other side
        assert relative(f, e) <= ROUNDING[name]
        np.testing.assert_array_equal(f, a)


@pytest.mark.parametrize("name", ["cellpose_cyto3", "sam2_base", "filters+mobile_sam"])
def test_stores_in_batches(name: str, tmp_path: Path) -> None:
    """A store from batches of tiles, written by several threads, holds what single tiles give."""
    from forestbridge.encoders.combined import CombinedEncoder
    from forestbridge.encoders.filters import open_filter_bank

    image = as_image(phantom((900, 1000), classes=3, dtype=np.uint8).image)
    deep = random_encoder(name.split("+")[-1])
    single, many = on_gpu(deep, precision="float32", batch=1), on_gpu(deep, precision="float32")
    encoders = [CombinedEncoder([open_filter_bank(), e]) for e in (single, many)] if "+" in name else [single, many]
    stores = [fb.extract(image, e, tmp_path / f"{n}.features.ome.zarr") for n, e in enumerate(encoders)]
    assert many.batch is not None
    assert 1 < many.batch <= coming.MOST_TILES
    assert [store.done for store in stores] == [True, True]
    points = np.random.default_rng(0).integers(0, 900, (2000, 2))
    a, b = (store.at(points) for store in stores)
    assert relative(a, b) <= 2e-3  # other sizes of a batch take other kernels


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """Return a function that lets this process take only so many bytes of the GPU."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    yield lambda n_bytes: torch.cuda.set_per_process_memory_fraction(n_bytes / whole)
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_halves_the_batch(little_memory, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Really: 2.5 GB are left, in which eight tiles do not fit."""
    image = phantom((900, 1000), classes=2, dtype=np.uint8).image
    roomy, tight = (on_gpu(random_encoder("sam2_base"), precision="float32", batch=batch) for batch in (1, 8))
    expected = fb.extract(image, roomy, tmp_path / "a.features.ome.zarr")
    del roomy
    torch.cuda.empty_cache()
    little_memory(5 * 2**29)
    found = fb.extract(image, tight, tmp_path / "b.features.ome.zarr")
    assert found.done
    assert tight.batch in (1, 2, 4)
    assert "8 tiles at once do not fit into memory, going on with 4" in caplog.text
    points = np.random.default_rng(0).integers(0, 900, (500, 2))
    assert relative(found.at(points), expected.at(points)) <= 2e-3


def test_no_room_for_one_tile(little_memory) -> None:
    encoder = on_gpu(random_encoder("sam2_base"), precision="float32")
    little_memory(torch.cuda.memory_allocated() + 2**26)
    image = as_image(phantom((300, 300), classes=2, dtype=np.uint8).image)
    with pytest.raises(ResourceError, match=r"expected enough memory on cuda:0 for one tile of sam2_base, found: "):
        encode_tile(image, encoder, tiles_of(encoder.spec, image)[0])


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_low_precision_on_demand(precision: str) -> None:
    image = as_image(phantom((300, 300), classes=2, dtype=np.uint8).image)
    encoder = random_encoder("mobile_sam")
    piece = tiles_of(encoder.spec, image)[0]
    expected, found = (
        encode_tile(image, encoder, piece),
        encode_tile(image, on_gpu(encoder, precision=precision), piece),
    )
    for e, f in zip(expected, found, strict=True):
        assert 0 < relative(f, e) <= (3e-2 if precision == "bfloat16" else 5e-3)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler warns of torch
def test_compiled() -> None:
    image = as_image(phantom((300, 300), classes=2, dtype=np.uint8).image)
    encoder = random_encoder("dinov2")
    piece = tiles_of(encoder.spec, image)[0]
    expected, found = (
        encode_tile(image, on_gpu(encoder, precision="float32", compile=c), piece) for c in (False, True)
    )
    for e, f in zip(expected, found, strict=True):
        assert relative(f, e) <= 2e-3


def test_threads_share_an_encoder(tmp_path: Path) -> None:
    """Tiles that several threads encode at the same time are those of one thread, though one computes while the other fetches."""
    from forestbridge.threads import in_order

    encoder = on_gpu(random_encoder("mobile_sam"), precision="float32", batch=2)
    rng = np.random.default_rng(0)
    core = (slice(64, 448),) * 2
    tiles = [(rng.integers(0, 256, (1, 512, 512)).astype(np.float32), core) for _ in range(12)]
    pairs = [tiles[n : n + 2] for n in range(0, 12, 2)]
    alone = [encoder.encode_batch(pair) for pair in pairs]
    together = list(in_order(encoder.encode_batch, pairs, 4))
    for a, b in zip(alone, together, strict=True):
        for x, y in zip(a, b, strict=True):
            for m, n in zip(x, y, strict=True):
                np.testing.assert_array_equal(m, n)


def test_from_image_to_labels(tmp_path: Path) -> None:
    """The forest is the CPU's to the bit; features of other batches, or of the CPU, differ in a last bit here and there."""
    picture = phantom((500, 600), classes=2, dtype=np.uint8)
    encoder = random_encoder("cellpose_cyto3")
    gpu = on_gpu(encoder)
    store = fb.extract(picture.image, gpu, tmp_path / "a.features.ome.zarr")
    forest = fb.train([(store, picture.scribbles)], n_trees=20, engine="sklearn")
    on_cpu = fb.predict(store, forest, kind="labels")
    np.testing.assert_array_equal(fb.predict(store, forest, kind="labels", device="cuda"), on_cpu)
    for other, device in ((gpu, "cpu"), (gpu, "cuda"), (encoder, "cpu")):
        found = fb.predict(picture.image, forest, encoder=other, kind="labels", device=device)
        assert (found != on_cpu).mean() <= 1e-4
