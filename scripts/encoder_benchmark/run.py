"""Measure the deep encoders and write docs/encoder_benchmarks.md: `scripts/bench_encoders`, or `scripts/bench_encoders --quick`."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "benchmark"))

from measure import pin_to_two_cores  # noqa: E402
from report import machine, spread, table  # noqa: E402


class Size(NamedTuple):
    """How an encoder is measured: side of the image, and rounds beside the first."""

    side: int
    rounds: int


SIZES = {
    "cellpose_cyto3": Size(1024, 3),
    "mobile_sam": Size(1024, 3),
    "dinov2": Size(1024, 3),
    "sam2_base": Size(1024, 1),
    "sam2_large": Size(512, 0),
    "micro_sam_lm": Size(512, 0),
    "sam_vit_h": Size(512, 0),
}
"""The large ones take minutes for a megapixel."""

FUSED = {"cellpose_cyto3": 512, "micro_sam_lm": 512, "sam2_base": 1024}
"""Tile of the fused graphs that are run."""

CALLS = 4

QUICK = "cellpose_cyto3"


def job(script: str, *arguments: object) -> dict[str, Any]:
    """Run a script of this folder in a process of its own and return what it prints."""
    command = [sys.executable, HERE / f"{script}.py", *map(str, arguments)]
    print(" ".join(map(str, (script, *arguments))), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fused(name: str, tile: int) -> list[dict[str, Any]]:
    """Write a fused graph and run it, as programs do by default and without ONNX Runtime's arena."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fused.onnx"
        written = {"name": name, "tile": tile, **job("fused", "write", name, tile, file)}
        return [{**written, "arena": a, **job("fused", "run", file, CALLS, a)} for a in ("arena", "none")]


def ratio(figure: Mapping[str, Any], column: int) -> str:
    """Return how many times an extraction took what the bare passes of the same round took; column 0 is wall, 1 CPU time."""
    passes, extractions = np.array(figure["bare"])[:, column], np.array(figure["extract"])[:, column]
    return spread(extractions / passes, ".2f")


def cost_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each encoder: what a megapixel costs, against the bare passes."""
    lines = [
        [
            f["name"],
            f"{f['tiles']} of {f['side']}²",
            spread(np.array(f["extract"])[:, 1] / (f["side"] ** 2 / 1e6), ".1f"),
            ratio(f, 0),
            ratio(f, 1),
            f"{f['network_mib']:.0f}",
            f"{f['extra_mib']:.0f}",
        ]
        for f in figures
    ]
    head = [
        "",
        "tiles",
        "CPU-seconds per megapixel",
        "time / bare passes",
        "CPU / bare passes",
        "network MiB",
        "beyond it, MiB",
    ]
    return table(head, lines)


def store_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each encoder: bytes a pixel, and how long 3,000 pixels take."""
    lines = [
        [
            f["name"],
            ", ".join(f"{n} at {stride:g}" for n, stride in f["maps"].values()),
            f"{f['bytes_per_pixel']:.1f}",
            f"{f['featureforest_bytes_per_pixel']:.0f}",
            f"{f['featureforest_bytes_per_pixel'] / f['bytes_per_pixel']:.1f}",
            spread(1000 * np.array(f["lookup"]), ".0f"),
        ]
        for f in figures
    ]
    head = ["", "features at stride", "bytes per pixel", "FeatureForest's", "ratio", "3,000 pixels, ms"]
    return table(head, lines)


def fused_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each fused graph: its size, memory after each call, deviation."""
    lines = [
        [
            f"{f['name']}, {f['tile']}²" + (", without arena" if f["arena"] == "none" else ""),
            f"{f['bytes'] / 1e6:.0f}",
            f"{f['loaded_mib'] - f['before_mib']:.0f}",
            f"{f['peaks_mib'][0]:.0f}",
            f"{f['peaks_mib'][-1]:.0f}",
            f"{f['deviation']['max_abs']:.1e}, {f['deviation']['label_flips']} of {f['deviation']['pixels']} labels",
        ]
        for f in figures
    ]
    head = ["", "MB", "loaded, MiB", "peak, first call, MiB", f"peak, {CALLS} calls, MiB", "largest difference"]
    return table(head, lines)


def combination_table(pictures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for each image and encoder: recall with few and with many strokes, and the difference from the better part."""
    lines = []
    splits = len(next(iter(next(iter(pictures.values())).values()))["few"])
    for picture, encoders in pictures.items():
        *parts, both = encoders
        for name, found in encoders.items():
            row = [f"{picture}: {name}", str(found["features"])]
            for amount in ("few", "many"):
                better = max((encoders[p][amount] for p in parts), key=np.mean)
                row.append(f"{np.mean(found[amount]):.3f}")
                row.append(difference(found[amount], better) if name == both else "")
            lines.append(row)
    head = ["", "features"]
    for amount in ("few", "many"):
        head += [f"{amount} strokes, {splits} splits", "against the better part"]
    return table(head, lines)


def difference(found: Sequence[float], other: Sequence[float]) -> str:
    """Return mean and standard error of paired differences."""
    d = np.subtract(found, other)
    return f"{d.mean():+.3f} ± {d.std(ddof=1) / len(d) ** 0.5:.3f}"


PAGE = """# Benchmarks of the deep encoders

Written by `scripts/bench_encoders`; no number on this page was put in by hand. Figures are medians, with the smallest and largest in
brackets. Weights are random unless it says otherwise: they cost the same.

{machine}. {date}.

## Extraction

From an image in memory to a finished store, beside the bare forward passes of the network on the same tiles, which are in memory already;
both in turns, ratios within a round. *network* is what the loaded network takes, *beyond it* how far the peak of a first extraction rises
over that.

{cost}

## Stores

Bytes on disk for each pixel of the image, all files counted, next to what FeatureForest's layout takes for the same features: it keeps
every feature of every pixel of its patches. The features of 3,000 pixels in 60 strokes are looked up in a store that is opened anew.

{store}

## Fused packages

Network and a forest of 100 trees in one ONNX graph, run by a process that holds onnxruntime and the graph alone. Memory is that of the
whole process. Programs keep an arena of memory from call to call by default; forestbridge's runner does without. The difference is that of
a probability from the network in torch and forestbridge's engine.

{fused}

## Several encoders in one

Forests on the filter bank, on the network and on both, judged on strokes that they have not seen: mean over the classes of the share of
pixels that are right, mean of random splits; differences with their standard errors. *Few* is one stroke of each class, *many* half of
them. The network is Cellpose's cyto3 with its published weights. The classes of `cell` are those of the smoothed
brightness, which a filter shows directly.

{combination}

## Not measured here

GPUs: they have [a page of their own](gpu_benchmarks.md).
"""


def replaced(page: str, title: str, table: str) -> str:
    """Return a page with another table under a title, which says when it was measured."""
    before, section = page.split(f"## {title}\n", 1)
    text, rest = section.split("\n|", 1)
    after = rest.split("\n\n", 1)[1]
    text = re.sub(r"\nMeasured on [0-9-]+\.\n", "", text)
    return f"{before}## {title}\n{text}\nMeasured on {date.today().isoformat()}.\n\n{table}\n\n{after}"


def measure_again(parts: Sequence[str]) -> None:
    """Measure some tables of the page and leave the others as they are."""
    path = ROOT / "docs" / "encoder_benchmarks.md"
    page = path.read_text(encoding="utf-8")
    if "fused" in parts:
        figures = [figure for name, tile in FUSED.items() for figure in fused(name, tile)]
        page = replaced(page, "Fused packages", fused_table(figures))
    if "combination" in parts:
        page = replaced(page, "Several encoders in one", combination_table(job("combination")))
    path.write_text(page, encoding="utf-8")


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(prog="scripts/bench_encoders", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest network alone; prints and writes no page")
    parser.add_argument("--only", choices=("fused", "combination"), nargs="+", help="these tables of the page alone")
    asked = parser.parse_args()
    print(f"on the cores {pin_to_two_cores()}", file=sys.stderr)
    if asked.only:
        measure_again(asked.only)
        return
    if asked.quick:
        costs = [job("cost", QUICK, 512, 2)]
        print(cost_table(costs), store_table(costs), fused_table(fused(QUICK, 512)), sep="\n\n")
        return
    costs = [job("cost", name, *size) for name, size in SIZES.items()]
    fused_figures = [figure for name, tile in FUSED.items() for figure in fused(name, tile)]
    pictures = job("combination")
    page = PAGE.format(
        machine=machine(),
        date=date.today().isoformat(),
        cost=cost_table(costs),
        store=store_table(costs),
        fused=fused_table(fused_figures),
        combination=combination_table(pictures),
    )
    (ROOT / "docs" / "encoder_benchmarks.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
