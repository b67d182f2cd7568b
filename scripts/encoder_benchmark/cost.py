"""What an encoder takes from an image to a store, beside its bare forward passes: `python cost.py NAME SIDE ROUNDS` prints JSON.

The weights are random, which cost the same. In each round the network runs on the tiles of the image, which are in memory already, and
then `extract` runs on the image; a first round is counted only where it is the only one, with 0 ROUNDS. Memory is how far the peak of a
first extraction rises over what is resident with the network loaded.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TESTS = Path(__file__).resolve().parents[2] / "tests"
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmark"
sys.path[:0] = [str(TESTS), str(BENCHMARK)]

from worker import memory_mib  # noqa: E402

import forestbridge as fb  # noqa: E402
from deep_weights import random_encoder  # noqa: E402
from forestbridge.encoders.deep import DeepEncoder  # noqa: E402
from forestbridge.encoders.features import tiles_of  # noqa: E402
from forestbridge.encoders.fixed_tiles import read_whole_tile  # noqa: E402
from forestbridge.image import as_image  # noqa: E402
from forestbridge.phantom import phantom  # noqa: E402
from forestbridge.stores import FeatureStore  # noqa: E402
from forestbridge.stores.featureforest_writer import plan_featureforest  # noqa: E402

STROKES, LENGTH = 60, 50
"""Scribbles whose features are looked up: 3,000 pixels."""

LOOKUPS = 7


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall seconds and CPU-seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def strokes(side: int) -> NDArray[np.intp]:
    """Return (N, 2) pixels along straight strokes that begin anywhere."""
    rng = np.random.default_rng(1)
    along = np.arange(LENGTH)[None, :, None]
    angle = rng.uniform(0, 2 * np.pi, STROKES)
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)[:, None]
    starts = rng.integers(LENGTH, side - LENGTH, (STROKES, 1, 2))
    return np.round(starts + along * direction).astype(np.intp).reshape(-1, 2)


def bare_passes(encoder: DeepEncoder, image: NDArray[np.uint8]) -> Callable[[], None]:
    """Return a call that runs the network once on each tile of the image."""
    source = as_image(image)
    tiles = [
        torch.from_numpy(read_whole_tile(source, encoder.spec, place))[None] for place in tiles_of(encoder.spec, source)
    ]

    def run() -> None:
        with torch.inference_mode():
            for tile in tiles:
                encoder.module(tile)

    return run


def measure(name: str, side: int, rounds: int) -> dict[str, Any]:
    """Return all figures of one encoder."""
    image = phantom((side, side), classes=3).image
    before = memory_mib("VmRSS")
    encoder = random_encoder(name)
    loaded = memory_mib("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        paths = (Path(folder) / f"{n}.features.ome.zarr" for n in count())
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
        stores: list[FeatureStore] = []
        first = timed(lambda: stores.append(fb.extract(image, encoder, next(paths))))
        [store] = stores
        extra = memory_mib("VmHWM") - loaded
        written = sum(f.stat().st_size for f in store.path.rglob("*") if f.is_file())
        bare = bare_passes(encoder, image)
        passes, extractions = [timed(bare)], [first]
        for _ in range(rounds):
            passes.append(timed(bare))
            extractions.append(timed(lambda: fb.extract(image, encoder, next(paths))))
        if rounds:  # what is made ready once is not counted
            del passes[0], extractions[0]
        points = strokes(side)
        lookups = [timed(lambda: fb.open_store(store.path).at(points)) for _ in range(LOOKUPS)]
        featureforest = plan_featureforest(store).n_bytes
    return {
        "name": name,
        "side": side,
        "maps": {m.name: [len(m.channels), m.stride] for m in encoder.spec.maps},
        "features": encoder.spec.n_features,
        "tiles": len(list(tiles_of(encoder.spec, as_image(image)))),
        "network_mib": loaded - before,
        "extra_mib": extra,
        "bytes_per_pixel": written / side**2,
        "featureforest_bytes_per_pixel": featureforest / side**2,
        "bare": passes,
        "extract": extractions,
        "lookup": [wall for wall, _ in lookups],
        "points": len(points),
        "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
