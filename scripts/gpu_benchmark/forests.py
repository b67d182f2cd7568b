"""How long the filter bank and a forest take on a GPU, and a whole prediction beside the CPU's: `python forests.py` prints lines of JSON.

All images are synthetic, forests are trained on them, and a time is the median of several after a first one that compiles.
"""

import json
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import RandomForestClassifier

import forestbridge as fb
from forestbridge import engine
from forestbridge.devices import triton_runs_on
from forestbridge.encoders import torch_filters
from forestbridge.encoders.filters import open_filter_bank
from forestbridge.engine import torch_forest
from forestbridge.engine.torch_forest import TorchForest

RUNS = 5
"""Of which the median is printed."""

MEGAPIXEL = 2**20

STRIDE = 16
"""Of the deep encoders' maps."""


def milliseconds(work: Callable[[], object], device: torch.device, pixels: int) -> float:
    """Return how long `work` takes per 2²⁰ pixels; until the device is done."""

    def once() -> float:
        begin = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - begin

    once()
    return 1000 * median(once() for _ in range(RUNS)) * MEGAPIXEL / pixels


def cells_and_forest(side: int, n_classes: int) -> tuple[NDArray[np.float16], fb.PixelForest]:
    """Return a (256, side / 16, side / 16) map that looks like a deep encoder's, and a forest of 100 trees over it."""
    rng = np.random.default_rng(0)
    n = max(side // STRIDE, 8)
    kinds = gaussian_filter(rng.normal(size=(n_classes, n, n)), (0, 3, 3)).argmax(axis=0)
    signal = rng.normal(size=(256, n_classes))[:, kinds]  # (256, n, n)
    noise = 8 * gaussian_filter(rng.normal(size=(256, n, n)), (0, 4, 4)) + 0.5 * rng.normal(size=(256, n, n))
    cells = (signal + noise).astype(np.float16)
    rows, labels = cells.reshape(256, -1).T, kinds.ravel()  # (n², 256)
    chosen = rng.permutation(len(rows))[:3000]
    trees = RandomForestClassifier(100, random_state=0, n_jobs=-1).fit(rows[chosen], labels[chosen] + 1)
    return cells, fb.forest_from_sklearn(trees)


def add_row(name: str, time: float) -> None:
    """Print a figure, in ms per 2²⁰ pixels."""
    print(json.dumps({"row": name, "ms": time}), flush=True)


def time_forest(
    name: str, forest: fb.PixelForest, run: Callable[[TorchForest], object], device: torch.device, pixels: int
) -> None:
    """Time the gathers, and the Triton kernel where it runs."""
    module = TorchForest(forest).to(device)
    runs = triton_runs_on(device)
    for route in (False, True) if runs else (False,):
        torch_forest.triton_runs_on = lambda device, route=route: route
        add_row(f"{name}, {'Triton' if route else 'gathers'}", milliseconds(lambda: run(module), device, pixels))
    torch_forest.triton_runs_on = triton_runs_on


SIDE = 1024
"""Pixels along an image's side."""


def main() -> None:
    """Print the rows, and at last how much of the GPU's memory a prediction took."""
    side, cpu, device = SIDE, torch.device("cpu"), torch.device("cuda", 0)
    bank, whole = open_filter_bank(), (slice(0, side),) * 2
    picture = fb.phantom((side, side), classes=2, seed=1)
    image = picture.image.reshape(1, side, side).astype(np.float32)
    tile = torch.from_numpy(image).to(device)
    add_row("filter bank, 49 features", milliseconds(lambda: torch_filters.encode(bank, tile, whole), device, side**2))
    volume = torch.from_numpy(np.ascontiguousarray(np.resize(image, (1, 16, side // 4, side // 4)))).to(device)
    bank_3d, box = open_filter_bank(compute_in_2d=False), tuple(slice(0, n) for n in volume.shape[1:])
    add_row(
        "filter bank in 3D, 61 features",
        milliseconds(lambda: torch_filters.encode(bank_3d, volume, box), device, volume.numel()),
    )

    forest = fb.train([(picture.image, picture.scribbles)], encoder=bank, n_trees=100, engine="sklearn")
    features = torch_filters.encode(bank, tile, whole)
    host = features.cpu().numpy()
    add_row("forest on 49 features, CPU", milliseconds(lambda: engine.predict(forest, host), cpu, side**2))
    time_forest("forest on 49 features", forest, lambda module: module(features), device, side**2)
    for n_classes in (2, 4):
        cells, deep = cells_and_forest(side, n_classes)
        maps, title = [torch.from_numpy(cells).to(device)], f"forest on a map of 256 features, {n_classes} classes"
        add_row(
            f"{title}, CPU",
            milliseconds(lambda: engine.predict(deep, [cells], shape=(side, side)), cpu, side**2),  # noqa: B023
        )
        time_forest(title, deep, lambda module: module.predict_maps(maps, (side, side)), device, side**2)  # noqa: B023

    large = np.tile(picture.image.reshape(side, side), (4, 4))
    add_row("image to probabilities, CPU", milliseconds(lambda: fb.predict(large, forest), cpu, large.size))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    add_row(
        "image to probabilities, GPU",
        milliseconds(lambda: fb.predict(large, forest, device="cuda"), device, large.size),
    )
    memory = torch.cuda.max_memory_allocated(device) / 2**20
    different = (fb.predict(large, forest) != fb.predict(large, forest, device="cuda")).any(axis=0)
    print(json.dumps({"memory_mib": memory, "different": int(different.sum()), "pixels": different.size}))


if __name__ == "__main__":
    main()
