"""Measure what runs on a GPU and write docs/gpu_benchmarks.md: `scripts/bench_gpu`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "benchmark"))

from report import spread, table  # noqa: E402

from forestbridge.devices import triton_runs_on  # noqa: E402

NAMES = ("cellpose_cyto3", "mobile_sam", "dinov2", "sam2_base", "sam2_large", "micro_sam_lm", "sam_vit_h")


def job(figures: Path, script: str, *arguments: str) -> None:
    """Run a script of this folder in a process of its own and keep what it prints, line by line."""
    command = [sys.executable, HERE / f"{script}.py", *arguments]
    with figures.open("a", encoding="utf-8") as file:
        subprocess.run(command, stdout=file, check=True)


def encoder_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each encoder."""
    rows = []
    for f in figures:
        rounds = np.array(f["extract"]) / np.array(f["bare"])
        ms = 1000 * median(f["bare"])
        rows.append(
            [
                f"{f['name']}, {f['side']}²",
                f"{f['precision']}, {f['batch']}",
                f"{f['flops'] / 1e12:.2f}",
                f"{ms:.2f}",
                f"{f['flops'] / 1e9 / ms:.0f}",
                spread(1000 * np.array(f["extract"]), ".2f"),
                spread(rounds, ".2f"),
                f"{f['written'] / 1e6:.1f}",
                f"{1000 * f['disk']:.1f}",
                f"{f['memory_mib']:.0f}",
                ", ".join(f"{n} {d:.1e}" if d else f"{n} 0" for n, d in f["differences"].items()),
            ]
        )
    head = [
        "",
        "precision, batch",
        "TFLOP a tile",
        "bare pass, ms",
        "TFLOP/s",
        "extraction, ms",
        "extraction / bare",
        "MB a tile",
        "one thread writes it in, ms",
        "GPU MiB",
        "off float32 by",
    ]
    return table(head, rows)


PAGE = """# Benchmarks on a GPU

Written by `scripts/bench_gpu`; no number on this page was put in by hand.

{machine}. {date}.

## Deep encoders

From an image in memory to a finished store, for each of {tiles} tiles, beside the bare forward passes of the network on tiles
that lie on the GPU already. Both took turns; ratios are of one round; figures are medians, with the smallest and largest in brackets.
Weights are random: they cost the same. Precision and batch are those that forestbridge chooses. FLOP are counted by torch in what ran.
*one thread writes it* is what files of the size of a tile's maps cost there, one after the other. *off float32* is the norm of the
default precision's difference from float32 over the norm of the map.

{encoders}

## Filter bank and forests

Milliseconds per 2²⁰ pixels. The forests have 100 trees. Triton's kernels run by default; *gathers* are torch's own operations.

{forests}
"""

PREDICTION = """
A prediction from an image took {memory_mib:.0f} MiB of the GPU's memory. {different} of {pixels} pixels differ from the CPU's.
"""


def gpu() -> dict[str, Any]:
    """Return what the machine is."""
    if not torch.cuda.is_available():
        sys.exit(f"expected a GPU, found none that torch {torch.__version__} can use; run this on a machine with one")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    triton = "with" if triton_runs_on(torch.device("cuda", 0)) else "without"
    text = (
        f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, {os.cpu_count()} CPU cores, torch {torch.__version__} {triton} Triton, "
        f"Python {sys.version.split()[0]}; stores in {tempfile.gettempdir()}"
    )
    return {"machine": text, "date": date.today().isoformat()}


def page(figures: Path) -> str:
    """Return the page of what was measured."""
    lines = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    encoders = [line for line in lines if "flops" in line]
    predictions = [PREDICTION.format(**line) for line in lines if "different" in line]  # none if the run was cut
    return "".join([_tables(lines, encoders), *predictions])


def _tables(lines: Sequence[Mapping[str, Any]], encoders: Sequence[Mapping[str, Any]]) -> str:
    return PAGE.format(
        **next(line for line in lines if "machine" in line),
        tiles=encoders[0]["tiles"],
        encoders=encoder_table(encoders),
        forests=table(["", "ms"], [[line["row"], f"{line['ms']:.2f}"] for line in lines if "row" in line]),
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="scripts/bench_gpu", description=__doc__)
    parser.add_argument(
        "--figures", type=Path, default=Path("gpu_figures.jsonl"), help="where figures are kept on the way"
    )
    parser.add_argument("--write", action="store_true", help="only write the page, from the figures of a run elsewhere")
    parser.add_argument("names", nargs="*", default=NAMES, help="encoders; all by default")
    asked = parser.parse_args()
    if not asked.write:
        asked.figures.write_text(json.dumps(gpu()) + "\n", encoding="utf-8")
        job(asked.figures, "encoders", *asked.names)
        job(asked.figures, "forests")
    (ROOT / "docs" / "gpu_benchmarks.md").write_text(page(asked.figures), encoding="utf-8")


if __name__ == "__main__":
    main()
