"""Memory and time of a fused graph in ONNX Runtime: `python fused.py write NAME TILE FILE`, then `python fused.py run FILE CALLS ARENA`.

A network with random weights and a forest of 100 trees, in one graph of a fixed tile, is written by one process and run by another, which
holds nothing but onnxruntime, the session and the tile. `run` prints JSON.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[2] / "tests"
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmark"
sys.path[:0] = [str(TESTS), str(BENCHMARK)]

from worker import memory_mib  # noqa: E402


def write(name: str, tile: int, path: Path) -> dict[str, Any]:
    """Write the graph, and compare it with the network in torch and the engine."""
    from sklearn.ensemble import RandomForestClassifier

    import forestbridge as fb
    from deep_weights import random_encoder
    from forestbridge.encoders.features import features_at
    from forestbridge.forest import PixelForest
    from forestbridge.graphs.fused_deep import export_deep_fused_onnx
    from forestbridge.image import as_image
    from forestbridge.phantom import phantom
    from forestbridge.sklearn_forest import forest_from_sklearn

    encoder = random_encoder(name, tile=tile, exportable=True)
    sample = phantom((tile, tile), classes=3)
    scribbles = fb.as_scribbles(sample.scribbles)
    rows = features_at(as_image(sample.image), encoder, scribbles.points)
    grown = RandomForestClassifier(n_estimators=100, min_samples_leaf=2, random_state=0).fit(rows, scribbles.values)
    forest: PixelForest = forest_from_sklearn(grown, encoder.spec, ["background", "a", "b"])
    halo = encoder.spec.halo[0]
    raw = np.pad(sample.image, halo, mode="reflect")[halo : -halo or None, halo : -halo or None]
    deviation = export_deep_fused_onnx(forest, path, encoder=encoder, image=raw[None].astype(np.float32))
    return {"bytes": path.stat().st_size, "deviation": asdict(deviation), "nodes": len(forest.feature)}


def run(path: Path, calls: int, *, arena: bool) -> dict[str, Any]:
    """Run the graph several times and return the peak of the memory after each; with an arena, memory is kept from call to call."""
    import onnxruntime

    before = memory_mib("VmRSS")
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    raw = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    peaks, seconds = [], []
    loaded = memory_mib("VmHWM")
    for _ in range(calls):
        start = time.perf_counter()
        session.run(None, {"raw": raw})
        seconds.append(time.perf_counter() - start)
        peaks.append(memory_mib("VmHWM"))
    return {
        "before_mib": before,
        "loaded_mib": loaded,
        "peaks_mib": peaks,
        "seconds": seconds,
        "version": onnxruntime.__version__,
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", name, tile, file]:
            print(json.dumps(write(name, int(tile), Path(file))))
        case ["run", file, calls, ("arena" | "none") as arena]:
            print(json.dumps(run(Path(file), int(calls), arena=arena == "arena")))
        case other:
            sys.exit(f"expected write or run, found {other}")
