"""Contenders take turns: from tasks to figures."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from data import draw_blobs, embed, write_inputs
from numpy.typing import NDArray
from peers import PEERS, Figures, PeerError, Worker, make_environment
from tasks import Contender, Problem, Task

MEGAPIXEL = 2**20


class Row(NamedTuple):
    """What a contender took in each round, and how its answer compares with forestbridge's."""

    label: str
    figures: tuple[Figures, ...]
    answer: str
    versions: dict[str, str]

    def ratios(self, ours: "Row") -> NDArray[np.float64]:
        """Return how many times longer each round took than ours of the same round."""
        return np.array([a.wall / b.wall for a, b in zip(self.figures, ours.figures, strict=True)])

    def values(self, name: str) -> NDArray[np.float64]:
        """Return one figure of all rounds."""
        return np.array([getattr(figure, name) for figure in self.figures])


class Result(NamedTuple):
    """A task and its rows, forestbridge's first; what was left out, and why."""

    task: Task
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]


def inputs(problem: Problem, folder: Path) -> Path:
    """Return the folder with the inputs of a problem, drawn if they are not there yet."""
    place = folder / "-".join(map(str, problem))
    if not (place / "complete").exists():
        write_inputs(place, size=problem.size, classes=problem.classes, pixels=problem.pixels)
        other = draw_blobs(problem.size, problem.classes, 77)
        np.save(place / "other_truth.npy", other)
        np.save(place / "other_embedding.npy", embed(other, 16, 256, 78))
        (place / "complete").touch()
    return place


def python_of(contender: Contender, *, install: bool) -> Path:
    """Return the interpreter that runs a contender.

    Raises
    ------
    PeerError
        If its peer is not there, or would have to be installed and must not.
    """
    if contender.peer is None:
        return Path(sys.executable)
    [peer] = [p for p in PEERS if p.name == contender.peer]
    return make_environment(peer, install=install)


def run_task(task: Task, folder: Path, *, repeats: int, install: bool) -> Result:
    """Measure all contenders of a task in turns, after one run each that is not counted."""
    place = inputs(task.problem, folder)
    left_out = []
    with ExitStack() as stack:
        workers: list[tuple[Contender, Worker]] = []
        for contender in task.contenders:
            try:
                worker = stack.enter_context(Worker(python_of(contender, install=install), contender.name, place))
            except PeerError as error:
                left_out.append(str(error))
            else:
                workers.append((contender, worker))
        rounds = [[worker.run() for _, worker in workers] for _ in range(repeats + 1)][1:]
        answers = []
        for contender, worker in workers:
            worker.save(place / f"{contender.name}.answer.npy")
            answers.append(np.load(place / f"{contender.name}.answer.npy"))
    rows = [
        Row(contender.label, tuple(r[n] for r in rounds), compare(task, answers[n], answers[0]), worker.versions)
        for n, (contender, worker) in enumerate(workers)
    ]
    return Result(task, tuple(rows), tuple(left_out))


def compare(task: Task, answer: NDArray, ours: NDArray) -> str:
    """Return in words how an answer compares with forestbridge's."""
    if task.compare == "accuracy":
        return f"{answer[0]:.4f}"
    if answer is ours:
        return ""
    if answer.shape != ours.shape:
        return "another kind"
    if task.compare == "features":
        deviation = np.abs(answer - ours).reshape(len(ours), -1).max(axis=1)
        largest = np.abs(ours).reshape(len(ours), -1).max(axis=1)
        return f"{(deviation / largest).max():.0e} of the largest value"
    if task.compare == "probabilities":
        answer, ours = answer.argmax(axis=0), ours.argmax(axis=0)
    different = int(np.count_nonzero(answer != ours))
    return f"{different} of {ours.size} labels differ"


def run_alone(contender: str, place: Path, repeats: int) -> tuple[Figures, ...]:
    """Measure one contender of our own environment, after one run that is not counted."""
    with Worker(Path(sys.executable), contender, place) as worker:
        worker.run()
        return tuple(worker.run() for _ in range(repeats))


def write_large(place: Path, megapixels: float) -> None:
    """Write `large.npy`, a square uint8 image without a repeated tile."""
    side = round((megapixels * MEGAPIXEL) ** 0.5)
    base = np.load(place / "image.npy")
    image = np.lib.format.open_memmap(place / "large.npy", "w+", np.uint8, (side, side))
    rng = np.random.default_rng(0)
    for y in range(0, side, len(base)):
        for x in range(0, side, len(base)):
            piece = np.roll(base, rng.integers(len(base), size=2), axis=(0, 1))
            target = image[y : y + len(base), x : x + len(base)]
            target[:] = piece[: target.shape[0], : target.shape[1]]
    del image


FIRST_CALL = """
import sys, time
import numpy as np
import forestbridge as fb
import forestbridge.encoders.filter_engine, forestbridge.engine.loading, forestbridge.engine.walk, zarr
forest = fb.load_forest(sys.argv[1])
image = np.zeros((64, 64), np.uint8)
start = time.perf_counter()
fb.predict(image, forest)
first = time.perf_counter()
fb.predict(image, forest)
print(first - start, time.perf_counter() - first)
"""


def first_calls(forest: Path, repeats: int) -> NDArray[np.float64]:
    """Return (repeats, 2) seconds of the first and the second prediction of a fresh process on a tiny image, imports apart."""
    command = [sys.executable, "-c", FIRST_CALL, str(forest)]
    run = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(repeats + 1)
    ]
    return np.array(run[1:], float)  # the one before compiles if need be


def pin_to_two_cores() -> list[int]:
    """Keep this process and those it starts on two cores, the first two that it may use, and return them."""
    chosen = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, chosen)
    return chosen
