"""Measure forestbridge against its peers and write docs/benchmarks.md: `scripts/bench`, or `scripts/bench --quick`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import measure_subsampling
from measure import first_calls, inputs, pin_to_two_cores, run_alone, run_task, write_large
from peers import ROOT, Figures
from report import OURS, THEIRS, Page, Scaling, rows_for_terminal, write_page
from tasks import SCALING, SCALING_PEER_LIMIT, TASKS, Problem

REPEATS, QUICK_REPEATS = 5, 2


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="some tasks, two rounds, no peer installed; prints and writes no page"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", help=f"some tasks, printed: {' '.join(t.key for t in TASKS)}"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"counted rounds; {REPEATS} by default")
    parser.add_argument("--folder", type=Path, help="where inputs are kept; a temporary folder by default")
    return parser.parse_args()


def main() -> None:
    """Measure, and print or write."""
    asked = arguments()
    print(f"on the cores {pin_to_two_cores()}", file=sys.stderr)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="forestbridge-bench-"))
    try:
        if asked.quick or asked.only:
            chosen = [t for t in TASKS if (t.key in asked.only if asked.only else t.quick)]
            for task in chosen:
                repeats = QUICK_REPEATS if asked.quick else asked.repeats
                result = run_task(task, folder, repeats=repeats, install=not asked.quick)
                print(f"\n{task.title}\n{rows_for_terminal(result.rows)}", flush=True)
                print("".join(f"  left out: {text}\n" for text in result.left_out), end="")
        else:
            write_page(measure_all(folder, asked.repeats), ROOT / "docs")
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)


def measure_all(folder: Path, repeats: int) -> Page:
    """Measure everything that the page shows."""
    results = []
    for task in TASKS:
        print(f"{task.title}", file=sys.stderr)
        results.append(run_task(task, folder, repeats=repeats, install=True))
        print(rows_for_terminal(results[-1].rows), file=sys.stderr)
    place = inputs(Problem(), folder)
    ours: dict[float, tuple[Figures, ...]] = {}
    theirs: dict[float, tuple[Figures, ...]] = {}
    for megapixels in SCALING:
        print(f"{megapixels} megapixels", file=sys.stderr)
        write_large(place, megapixels)
        ours[megapixels] = run_alone("scaling_forestbridge", place, repeats)
        if megapixels <= SCALING_PEER_LIMIT:
            theirs[megapixels] = run_alone("scaling_scipy_sklearn", place, repeats)
    scaling = [Scaling("**forestbridge**", OURS, ours), Scaling("scipy + scikit-learn", THEIRS, theirs)]
    return Page(
        results=results,
        scaling=scaling,
        stack=run_alone("stack_forestbridge", place, repeats),
        first_calls=first_calls(write_forest(place), repeats),
        subsampling=measure_subsampling(),
        repeats=repeats,
    )


def write_forest(place: Path) -> Path:
    """Write a forest over ilastik's features of a problem's image."""
    import forestbridge as fb

    image, y, x, k = (np.load(place / f"{n}.npy") for n in ("image", "scribble_y", "scribble_x", "scribble_class"))
    labels = np.zeros_like(image)
    labels[y, x] = k + 1
    forest = fb.train([(image, labels)], encoder=fb.open_encoder("filters"))
    return forest.save(place / "first.forest", overwrite=True)


if __name__ == "__main__":
    main()
