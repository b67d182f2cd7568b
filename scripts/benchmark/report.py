"""From figures to the page and its pictures; every number in docs/benchmarks.md comes through here."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from accuracy import Line
from measure import Result, Row
from numpy.typing import NDArray
from peers import Figures

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

OURS, THEIRS = "#2050c8", "#b5651d"

LIBRARIES = ("forestbridge", "numpy", "numba", "scikit-learn", "scipy", "onnxruntime", "torch")


class Scaling(NamedTuple):
    """Figures of one contender by megapixels."""

    label: str
    colour: str
    figures: dict[float, tuple[Figures, ...]]


class Page(NamedTuple):
    """All that was measured."""

    results: Sequence[Result]
    scaling: Sequence[Scaling]
    stack: tuple[Figures, ...]
    first_calls: NDArray[np.float64]
    subsampling: Sequence[Line]
    repeats: int


def spread(values: NDArray[np.float64], form: str) -> str:
    """Return median and range, as "3.2 (3.1 to 3.5)"."""
    low, middle, high = (format(v, form) for v in (values.min(), np.median(values), values.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def digits(ratio: float) -> str:
    """Return the format in which a ratio has two or three digits."""
    return ".0f" if ratio >= 20 else ".1f" if ratio >= 2 else ".2f"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned."""
    rows = [head, ["---", *["--:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def task_section(result: Result) -> str:
    """Return heading, note, table and what was left out of one task."""
    ours = result.rows[0]
    last = "accuracy" if result.task.compare == "accuracy" else "against forestbridge"
    lines = [
        [
            row.label,
            "1" if row is ours else spread(row.ratios(ours), digits(float(np.median(row.ratios(ours))))),
            spread(row.values("cpu"), ".2f"),
            spread(row.values("extra_mib"), ".0f"),
            row.answer,
        ]
        for row in result.rows
    ]
    parts = [f"### {result.task.title}", result.task.note]
    parts.append(table(["", "time, forestbridge = 1", "CPU-seconds", "extra MiB", last], lines))
    parts += [f"Left out: {text}" for text in result.left_out]
    return "\n\n".join(parts)


def machine() -> str:
    """Return processor, cores, memory and systems in a sentence."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu} with {vectors}, two of {os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    )


def peer_versions(results: Sequence[Result]) -> str:
    """Return the versions of the peers in a sentence; a build that has none is named alone."""
    found = {
        name: number
        for result in results
        for row in result.rows
        for name, number in row.versions.items()
        if name not in ("python", "numpy", *LIBRARIES)
    }
    return ", ".join(f"{name} {number}" if number[:1].isdigit() else name for name, number in sorted(found.items()))


def draw_ratios(results: Sequence[Result], path: Path) -> None:
    """Draw how many times longer each contender takes, on a logarithmic axis."""
    bars = [
        (f"{result.task.title}: {row.label.replace('*', '')}", row.ratios(result.rows[0]))
        for result in results
        for row in result.rows[1:]
    ]
    figure, axis = plt.subplots(figsize=(9, 0.27 * len(bars) + 1))
    middle = np.array([np.median(r) for _, r in bars])
    ends = np.array([[np.median(r) - r.min(), r.max() - np.median(r)] for _, r in bars]).T
    axis.barh(range(len(bars)), middle - 1, left=1, xerr=ends, color=THEIRS, ecolor="#444444", height=0.7)
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=7)
    axis.axvline(1, color=OURS)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_yaxis()
    axis.set_xlabel("times as long as forestbridge (median and range)")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def draw_scaling(scaling: Sequence[Scaling], path: Path) -> None:
    """Draw CPU time per megapixel and extra memory by the size of the image."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for line in scaling:
        sizes = list(line.figures)
        cost = [np.array([f.cpu for f in line.figures[s]]) / s for s in sizes]
        memory = [np.array([f.extra_mib for f in line.figures[s]]) for s in sizes]
        for axis, values in zip(axes, (cost, memory), strict=True):
            axis.plot(sizes, [np.median(v) for v in values], "o-", color=line.colour, label=line.label.replace("*", ""))
            axis.fill_between(sizes, [v.min() for v in values], [v.max() for v in values], color=line.colour, alpha=0.2)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            if values is cost:
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_xlabel("image, megapixels")
    axes[0].set_ylabel("CPU-seconds per megapixel")
    axes[1].set_ylabel("extra memory, MiB")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def scaling_table(scaling: Sequence[Scaling]) -> str:
    """Return a table of cost and memory by size."""
    lines = [
        [
            line.label,
            f"{size:g}",
            spread(np.array([f.cpu / size for f in found]), ".2f"),
            spread(np.array([f.extra_mib for f in found]), ".0f"),
        ]
        for line in scaling
        for size, found in line.figures.items()
    ]
    return table(["", "megapixels", "CPU-seconds per megapixel", "extra MiB"], lines)


def subsampling_table(lines: Sequence[Line]) -> str:
    """Return a table of accuracy and nodes per tree by the number of pixels that a tree draws."""
    kinds = list(lines[0].accuracy)
    rows = [[line.drawn, *(f"{line.accuracy[k]:.4f}, {line.nodes[k]:.0f} nodes" for k in kinds)] for line in lines]
    return table(["pixels per tree", *kinds], rows)


PAGE = """# Benchmarks

Written by `scripts/bench`; no number on this page was put in by hand. Its peers are installed where it runs, each in an environment of
its own, and do their own job through their own code. Contenders of a task are processes that stay alive and take turns, {repeats} rounds
after one that is not counted; a figure is the median, with the smallest and largest in brackets. *time* compares wall time within each
round. *CPU-seconds* add up all threads. *extra MiB* is how far the peak of resident memory rises over input and result.

{machine}; {peers}. {date}.

![How many times longer the others take](images/benchmark_ratios.png)

## Tasks

Images of 1024 × 1024 pixels. All forests of a task but FeatureForest's, ilastik's, apoc's and CatBoost's are the same trees, grown by
scikit-learn with its own settings.

{tasks}

## Cost by size of the image

From an image file to labels in an OME-TIFF; scipy and scikit-learn hold the features of the whole image in memory.

![Cost and memory by size](images/benchmark_scaling.png)

{scaling}

A stack of 16 planes of 512 × 512 keeps {cores} of the two cores busy.

## First call

In a fresh process on a warm cache of compiled code, the first prediction takes {first} s longer than the second, imports apart.

## What a tree need not see

Labelled pixels resemble their neighbours, so a tree draws only some of them. Accuracy on a phantom that the forest has not seen, mean of
12 forests, with the filter bank:

{subsampling}

## Not measured here

GPUs: they have [a page of their own](gpu_benchmarks.md).
"""


def write_page(page: Page, folder: Path) -> None:
    """Write benchmarks.md and its pictures into the folder with the documentation."""
    (folder / "images").mkdir(exist_ok=True)
    draw_ratios(page.results, folder / "images" / "benchmark_ratios.png")
    draw_scaling(page.scaling, folder / "images" / "benchmark_scaling.png")
    text = PAGE.format(
        repeats=page.repeats,
        machine=machine(),
        peers=peer_versions(page.results),
        date=date.today().isoformat(),
        tasks="\n\n".join(task_section(result) for result in page.results),
        scaling=scaling_table(page.scaling),
        cores=spread(np.array([f.cpu / f.wall for f in page.stack]), ".2f"),
        first=spread(page.first_calls[:, 0] - page.first_calls[:, 1], ".2f"),
        subsampling=subsampling_table(page.subsampling),
    )
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")


def rows_for_terminal(rows: Sequence[Row]) -> str:
    """Return label, ratio, CPU-seconds and memory of each row in columns."""
    lines = [
        f"  {row.label.replace('*', ''):44} {spread(row.ratios(rows[0]), '.2f'):>22} {spread(row.values('cpu'), '.2f'):>22}"
        f" {np.median(row.values('extra_mib')):7.0f} MiB  {row.answer}"
        for row in rows
    ]
    return "\n".join(lines)
