"""`predict` with a device gives the CPU's answer on every route: from images, from stores and into files; and says which device it is."""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

from command_line import call, write_line
from forestbridge import predict_torch
from forestbridge.devices import find_gpu, triton_runs_on
from forestbridge.encoders.base import Encoder
from forestbridge.encoders.features import features
from forestbridge.errors import MissingExtraError, ResourceError
from forestbridge.extract import extract
from forestbridge.image import as_image, read_image
from forestbridge.predict import predict, predict_pieces
from forestbridge.train import train
from random_forests import random_forest
from results import whole
from small_encoders import local_encoder, noise_image, pooling_encoder
from small_line import CELLS, STACK, STAINED, noise, run_and_measure, small_encoder, small_forest
from test_predict_maps import Stacked, forest_for
from torch_routes import NO_GPU, ROUTES

FEW = 1e-4
"""Pixels whose probabilities may differ, because a feature differs in its last bit; measured: none of 1.3 million."""


def assert_nearly_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Compare probabilities (..., K, ...): most of them bit by bit, and no feature's last bit decides more than a tree."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert (found != expected).mean() <= FEW


def pretend(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Let every GPU that is asked for be this device."""
    for module in ("forestbridge.predict", "forestbridge.cli.predict"):
        monkeypatch.setattr(sys.modules[module], "find_gpu", lambda name: None if name == "cpu" else device)


@pytest.fixture(params=ROUTES.values(), ids=ROUTES)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU, or torch's CPU in its place."""
    device = request.param.use(monkeypatch)
    pretend(monkeypatch, device)
    return device


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Encoder], None]:
    """Let `predict` find an encoder that forestbridge does not have."""
    return lambda encoder: monkeypatch.setattr(
        sys.modules["forestbridge.predict"], "encoder_from_spec", lambda spec, **_: encoder
    )


CORES = {"yx": (33, 47), "zyx": (5, 40, 23)}


@pytest.mark.parametrize("cores", [predict_torch.CORE, CORES], ids=["large", "small"])
def test_images(cores: dict, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_torch, "CORE", cores)
    encoder = small_encoder(volume=True, compute_in_2d={0.7: True, 1.0: False})
    mixed = train([(STACK.image, STACK.scribbles)], encoder=encoder, n_trees=10, engine="sklearn")
    for image, forest in (
        (CELLS.image, small_forest()),
        (STAINED.image, small_forest("stained")),
        (STACK.image, small_forest("stack")),
        (STACK.image, mixed),
        (noise("TZYX", (2, 3, 40, 50)), small_forest()),
        (noise("TZYX", (2, 7, 30, 40)), small_forest("stack")),
        (noise("YX", (1, 1)), small_forest()),
        (noise("YX", (3, 100)), small_forest()),
    ):
        expected = predict(image, forest)
        for jobs in (1, 3, None):
            assert_nearly_same(predict(image, forest, device="cuda", jobs=jobs), expected)


def test_every_filter(gpu: torch.device) -> None:
    """All filters of the dialog, and thresholds that are features of the image."""
    encoder = small_encoder(selection={f: [0.7, 1.6, 10.0] for f in small_encoder().spec.options["selection"]})
    forest = random_forest(features(CELLS.image, encoder), seed=1, n_trees=50, depth=8, spec=encoder.spec)
    found = predict(CELLS.image, forest, device="cuda")
    print(f"{(found != predict(CELLS.image, forest)).mean():.1e} differ")
    assert np.abs(found - predict(CELLS.image, forest)).max() <= 0.05  # some pixels are thresholds themselves
    assert (found != predict(CELLS.image, forest)).mean() <= 0.02


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
def test_maps_of_images_and_stores(axes: str, gpu: torch.device, tmp_path: Path, known) -> None:
    """Maps go up and the forest runs on the device: to the bit."""
    encoder = pooling_encoder(fine=3, coarse=4)
    known(encoder)
    image = noise_image(axes, (*(2,) * (len(axes) - 2), 130, 65))
    forest, store = forest_for(encoder, image), extract(image, encoder, tmp_path / "a.zarr")
    expected = predict(image, forest)
    for source in (image, store):
        for jobs in (1, 3):
            np.testing.assert_array_equal(predict(source, forest, device="cuda", jobs=jobs), expected)


def test_stacks_of_maps(gpu: torch.device, tmp_path: Path, known) -> None:
    flat = pooling_encoder(fine=2, coarse=2)
    encoder = Stacked(replace(flat.spec, axes="zyx", halo=(0, 0, 0), tile=(2, 64, 64)), flat)
    known(encoder)
    image = noise_image("ZYX", (5, 100, 90))
    forest = replace(forest_for(flat, noise_image("YX", (100, 90))), spec=encoder.spec)
    for source in (image, extract(image, encoder, tmp_path / "a.zarr")):
        np.testing.assert_array_equal(predict(source, forest, device="cuda"), predict(image, forest))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_encoders_of_features_at_every_pixel(dtype, gpu: torch.device, tmp_path: Path, known) -> None:
    encoder = local_encoder(features=4, tile=(32, 32))
    encoder = replace(encoder, spec=replace(encoder.spec, dtype=dtype))
    known(encoder)
    image = noise_image("YX", (70, 80))
    forest = forest_for(encoder, image)
    for source in (image, extract(image, encoder, tmp_path / "a.zarr")):
        np.testing.assert_array_equal(predict(source, forest, device="cuda"), predict(image, forest))


def test_stores_of_filters(gpu: torch.device, tmp_path: Path) -> None:
    """Their features are those of the CPU, so that the answer is too."""
    for n, (image, volume) in enumerate(
        ((noise("TZYX", (2, 3, 40, 50)), False), (noise("TZYX", (2, 7, 30, 40)), True))
    ):
        forest = small_forest("stack" if volume else "cells")
        store = extract(image, small_encoder(volume=volume), tmp_path / f"{n}.features.ome.zarr")
        np.testing.assert_array_equal(predict(store, forest, device="cuda"), predict(store, forest))


@pytest.mark.parametrize("kind", ["probabilities", "labels", "uncertainty"])
def test_kinds_and_files(kind, gpu: torch.device, tmp_path: Path) -> None:
    image, forest = noise("TZYX", (2, 3, 40, 50)), replace(small_forest(), classes=(2, 7, 300))
    expected = predict(image, forest, kind=kind)
    assert_nearly_same(predict(image, forest, kind=kind, device="cuda"), expected)
    path = predict(image, forest, kind=kind, device="cuda", out=tmp_path / "a.ome.tif")
    assert_nearly_same(whole(path, None), expected)
    assert f'<M K="device">{gpu}</M>'.encode() in path.read_bytes()
    assert read_image(path).axes == ("TCZYX" if kind == "probabilities" else "TZYX")


def test_progress_and_the_order_of_tiles(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_torch, "CORE", CORES)
    told: list[tuple[int, int]] = []
    predict(noise("ZYX", (2, 40, 50)), small_forest(), device="cuda", progress=lambda *done: told.append(done))
    assert told == [(n, 8) for n in range(1, 9)]


def test_features_that_are_not_finite(gpu: torch.device, tmp_path: Path) -> None:
    pixels = np.full((40, 50), 1e20, np.float32)
    pixels[20:] = 3e20  # the structure tensor squares them
    message = r"expected finite features, found \d+ NaN or infinite ones, the first in feature \d+ at \(\d+, \d+\); a forest has no"
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match=message):
            predict(pixels, small_forest(), device=device, out=tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_on_the_device(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr("forestbridge.encoders.torch_filters.encode", encode)
    message = (
        r"expected enough memory on \w+ for a tile, found: tried to allocate 20 GiB; end other programs .* device='cpu'"
    )
    with pytest.raises(ResourceError, match=message):
        predict(CELLS.image, small_forest(), device="cuda")


def test_one_tile_at_a_time_is_on_the_device(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_torch, "CORE", CORES)
    lock, now, most = threading.Lock(), [0], [0]
    encode = predict_torch.torch_filters.encode

    def watched(*arguments):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            return encode(*arguments)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr("forestbridge.encoders.torch_filters.encode", watched)
    predict(noise("YX", (300, 300)), small_forest(), device="cuda", jobs=4)
    assert most == [1]


@NO_GPU
def test_on_a_gpu() -> None:
    """All of the above ran there too."""
    assert set(ROUTES) == {"cpu", "cuda", "cuda-triton"}
    assert find_gpu("cuda") == find_gpu("auto") == torch.device("cuda", 0)


def pretend_gpus(present: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forestbridge.devices.has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU number {number}")


def test_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pretend_gpus(2, monkeypatch)
    caplog.set_level(logging.INFO)
    assert find_gpu("cpu") is None
    assert find_gpu("cuda") == torch.device("cuda", 0)
    assert find_gpu("cuda:1") == torch.device("cuda", 1)
    assert not caplog.text
    assert find_gpu("auto") == torch.device("cuda", 0)
    assert "device='auto' became cuda:0, GPU number 0" in caplog.text
    message = r"expected a GPU for device='cuda:2', found 2 of them that torch \S+ can use; use device='cpu', or choose a smaller"
    with pytest.raises(ResourceError, match=message):
        find_gpu("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_gpus_that_are_not_there(name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pretend_gpus(0, monkeypatch)
    message = rf"expected a GPU for device='{name}', found none that torch \S+ can use; use device='cpu', or check the GPU's driver"
    with pytest.raises(ResourceError, match=message):
        predict(CELLS.image, small_forest(), device=name)
    caplog.set_level(logging.INFO)
    assert find_gpu("auto") is None
    assert "device='auto' became cpu: torch" in caplog.text and "sees no GPU" in caplog.text
    np.testing.assert_array_equal(
        predict(CELLS.image, small_forest(), device="auto"), predict(CELLS.image, small_forest())
    )


def test_without_a_driver_torch_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("forestbridge.devices.has_driver", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    caplog.set_level(logging.INFO)
    assert find_gpu("auto") is None
    assert "device='auto' became cpu: there is no driver of a GPU" in caplog.text


@pytest.mark.parametrize("name", ["gpu", "mps", "CUDA", "cuda:", "cuda:x", "", "cpu:0"])
def test_names_that_are_no_devices(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected the device cpu, cuda, cuda:1 or auto, found .*; give one of these"):
        predict(CELLS.image, small_forest(), device=name)


def test_without_torch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("forestbridge.devices.has_driver", lambda: True)
    monkeypatch.setitem(sys.modules, "torch", None)
    caplog.set_level(logging.INFO)
    expected = predict(CELLS.image, small_forest())
    with pytest.raises(
        MissingExtraError, match=r"prediction on a GPU needs the extra 'torch', .*forestbridge\[torch\]"
    ):
        predict(CELLS.image, small_forest(), device="cuda")
    np.testing.assert_array_equal(predict(CELLS.image, small_forest(), device="auto"), expected)
    assert "device='auto' became cpu: torch is not installed" in caplog.text


def test_triton_that_cannot_compile_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    assert not triton_runs_on(torch.device("cpu"))

    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton.runtime, "driver", Driver())
    triton_runs_on.cache_clear()
    try:
        assert not triton_runs_on(torch.device("cuda", 7))
        assert not triton_runs_on(torch.device("cuda", 7))
    finally:
        triton_runs_on.cache_clear()
    message = (
        "expected Triton to compile for cuda:7, found: Failed to find C compiler; prediction uses torch alone: the same"
    )
    assert caplog.text.count(message) == 1


CLI_ERRORS = [
    ("cuda", 6, "expected a GPU for device='cuda', found none that torch"),
    ("cuda:3", 6, "expected a GPU for device='cuda:3', found none that torch"),
    ("tpu", 2, "expected the device cpu, cuda, cuda:1 or auto, found 'tpu'; give one of these"),
]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(0, monkeypatch)
    write_line(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["predict", "a.tif", "--forest", "a.forest", "-o"]
    for device, code, message in CLI_ERRORS:
        ended = call(*command, "no.npy", "--device", device)
        assert (ended.code, ended.out) == (code, "")
        assert message in ended.err
        assert not Path("no.npy").exists()
    for device in ("cpu", "auto"):
        ended = call(*command, f"{device}.npy", "--device", device)
        assert ended.code == 0, ended.err
        assert ("device='auto' became cpu" in ended.err) == (device == "auto")
    pretend(monkeypatch, torch.device("cpu"))
    for source in ("a.tif", "a.features.ome.zarr"):
        ended = call("predict", source, "--forest", "a.forest", "-o", "gpu.npy", "--device", "cuda", "--overwrite")
        assert ended.code == 0, ended.err
        assert_nearly_same(np.load("gpu.npy"), np.load("cpu.npy"))
    np.testing.assert_array_equal(np.load("auto.npy"), np.load("cpu.npy"))
    ended = call("predict", "a.tif", "b.tif", "--forest", "a.forest", "-o", "out", "--device", "cuda")
    assert ended.code == 0, ended.err
    assert len(list(Path("out").iterdir())) == 2


WITHOUT_TORCH = """
import sys
from forestbridge import load_forest, predict, read_image
predict(read_image(sys.argv[1] + "/a.npy"), load_forest(sys.argv[1] + "/a.forest"), device="cpu")
print(int("torch" in sys.modules), 0)
"""


def test_the_cpu_needs_no_torch(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CELLS.image)
    small_forest().save(tmp_path / "a.forest")
    assert run_and_measure(WITHOUT_TORCH, tmp_path) == [0, 0]


@pytest.mark.parametrize("kind", ["cells", "stack"])
def test_a_region_asks_for_its_tiles_alone(gpu: torch.device, kind: str) -> None:
    picture = {"cells": CELLS, "stack": STACK}[kind]
    image, forest = as_image(picture.image), small_forest(kind)
    places = {"cells": (slice(0, 1), slice(70, 75), slice(3, 60)), "stack": (slice(1, 3), slice(5, 9), slice(3, 60))}
    region = (slice(0, 1), *places[kind])
    for device in ("cpu", "cuda"):
        pieces = list(predict_pieces(image, forest, kind="probabilities", region=region, device=device))
        assert pieces
        whole_image = predict(image, forest)
        for piece in pieces:
            z = slice(piece.z or 0, (piece.z or 0) + 1)
            core = piece.core if len(piece.core) == 3 else (z, *piece.core)
            assert all(a.start < b.stop and b.start < a.stop for a, b in zip(core, region[1:], strict=True))
            assert_nearly_same(piece.answer, whole_image[(slice(None), *piece.core)])
