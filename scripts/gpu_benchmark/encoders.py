"""What deep encoders take on a GPU, from image to store and beside their bare forward passes: `python encoders.py NAME...` prints JSON.

The weights are random, which cost the same. The network runs on tiles that lie on the GPU already, in batches of the size that `extract`
chooses, then `extract` runs on an image of so many tiles; both in turns, after a first round that is not counted. TMPDIR names the disk.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS)]

import forestbridge as fb  # noqa: E402
from deep_weights import random_encoder  # noqa: E402
from forestbridge.encoders.coming import exact_convolutions  # noqa: E402
from forestbridge.encoders.deep import DeepEncoder, plan_run  # noqa: E402
from forestbridge.encoders.features import tiles_of  # noqa: E402
from forestbridge.encoders.fixed_tiles import read_whole_tile  # noqa: E402
from forestbridge.encoders.networks import network_of  # noqa: E402
from forestbridge.image import as_image  # noqa: E402
from forestbridge.phantom import phantom  # noqa: E402

TILES = 12
"""Along a side of the image."""

ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes, until the GPU is done."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


class Passes:
    """Bare forward passes over tiles that lie on the GPU."""

    def __init__(self, encoder: DeepEncoder, tiles: torch.Tensor) -> None:
        self.encoder, self.tiles = encoder, tiles

    def __call__(self) -> None:
        """Compute all batches; the maps are thrown away."""
        dtype = self.encoder._dtype
        with (
            exact_convolutions(),
            torch.inference_mode(),
            torch.autocast("cuda", dtype, enabled=dtype != torch.float32),
        ):
            for batch in self.tiles.split(self.encoder.batch or 1):
                self.encoder._call(batch)


def differences(encoder: DeepEncoder, tile: torch.Tensor) -> dict[str, float]:
    """Return, for each map, the norm of the default precision's difference from float32 over the norm of the map."""
    with exact_convolutions(), torch.inference_mode():
        exact = encoder.module(tile)
        with torch.autocast("cuda", encoder._dtype, enabled=encoder._dtype != torch.float32):
            found = encoder.module(tile)
    names = [m.name for m in encoder.spec.maps]
    return {n: float((f - e).norm() / e.norm()) for n, f, e in zip(names, found, exact, strict=True)}


def measure(name: str) -> dict[str, Any]:
    """Return all figures of one encoder."""
    print(name, file=sys.stderr, flush=True)
    network = random_encoder(name)
    encoder = DeepEncoder(network.spec, network.module, plan_run(network_of(name), "cuda"))
    side = TILES * (network.spec.tile or (0,))[0]
    small = phantom((512, 512), classes=3, dtype=np.uint8).image
    image = np.tile(small, (-(-side // 512),) * 2)[:side, :side]
    source = as_image(image)
    places = tiles_of(encoder.spec, source)
    # One row of tiles again and again: what they show does not matter, and they leave memory to the network.
    row = np.stack([read_whole_tile(source, encoder.spec, place) for place in places[:TILES]])
    tiles = torch.from_numpy(row).to("cuda").repeat(TILES, 1, 1, 1)
    bare = Passes(encoder, tiles)
    with FlopCounterMode(display=False) as counter:
        Passes(encoder, tiles[:1])()
    with tempfile.TemporaryDirectory() as folder:
        paths = (Path(folder) / f"{n}.features.ome.zarr" for n in count())
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        stores = [fb.extract(image, encoder, next(paths))]
        memory = torch.cuda.max_memory_allocated() - before
        bare()
        passes, extractions = [], []
        for _ in range(ROUNDS):
            passes.append(seconds(bare))
            extractions.append(seconds(lambda: fb.extract(image, encoder, next(paths))))
        written = sum(f.stat().st_size for f in stores[0].path.rglob("*") if f.is_file())
        disk = disk_seconds(Path(folder), written // len(places), len(places))
    return {
        "name": name,
        "side": tiles.shape[-1],
        "tiles": len(places),
        "precision": str(encoder._dtype).removeprefix("torch."),
        "batch": encoder.batch,
        "flops": counter.get_total_flops(),
        "bare": [p / len(places) for p in passes],
        "extract": [e / len(places) for e in extractions],
        "memory_mib": memory / 2**20,
        "written": written / len(places),
        "disk": disk / len(places),
        "differences": differences(encoder, tiles[:1]),
    }


def disk_seconds(folder: Path, n_bytes: int, files: int) -> float:
    """Return how long a single thread takes to write as many files of zeros, each kept on the disk before the next."""
    content = bytes(n_bytes)
    begin = time.perf_counter()
    for n in range(files):
        with (folder / str(n)).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - begin


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(measure(name)), flush=True)
        torch.cuda.empty_cache()
