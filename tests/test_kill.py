"""Fifty runs of `extract` killed at a random instant with SIGKILL: nothing that the journal names is lost or torn.

Run as a script, this file is the victim: it imports once, then forks a child for each line it reads, so that a kill
hits the extraction and not Python's start.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from forestbridge.extract import extract
from forestbridge.stores import open_store, verify_store
from forestbridge.stores.journal import read_journal
from small_encoders import local_encoder, noise_image, whole_maps

KILLS = 50
IMAGE = noise_image("YX", (160, 150), seed=3)
ENCODER = local_encoder(4)
"""With tiles of 32 pixels: 5 × 5 shards."""

SHARDS = 25


class Victim:
    """A process whose children extract and are killed."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, path: Path, *, kill_after: float | None) -> int:
        """Extract in a child, kill it after so many seconds, return its exit status: -9 if the kill came in time."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        pid = self._read()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # at worst it is a zombie: its parent does not collect it before the next line
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def victim() -> None:
    """Read paths from standard input; for each one print the child's pid, wait for the go-ahead, print its status."""
    logging.disable(logging.WARNING)
    import zarr  # noqa: F401 - before the forks, so that no child spends its time on it

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                extract(IMAGE, ENCODER, line.strip())
            except BaseException:  # noqa: BLE001 - the child must not return into its parent's loop
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


@pytest.fixture
def runner():
    """A victim process."""
    process = Victim()
    yield process
    process.close()


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs os.fork, to kill extractions without waiting for Python's start"
)
def test_fifty_kills_lose_nothing(tmp_path, runner):
    (expected,) = whole_maps(IMAGE, ENCODER, 0, 0)
    rng = np.random.default_rng(0)
    reference = tmp_path / "reference.zarr"
    assert runner.run(tmp_path / "warm.zarr", kill_after=None) == 0
    start = time.perf_counter()
    assert runner.run(reference, kill_after=None) == 0
    duration = time.perf_counter() - start

    kills = mid_write = stores = 0
    path = tmp_path / "0.zarr"
    known: set[str] = set()
    while kills < KILLS or not known:
        status = runner.run(path, kill_after=rng.uniform(0, 0.5 * duration))
        assert status in (0, -9), "the run failed in place of being killed"
        if status == -9:
            kills += 1
        if not path.exists():
            continue
        report = verify_store(path)
        assert report.problems == ()
        entries, _ = read_journal(path)
        assert known <= set(entries), "a shard that was done is gone"
        mid_write += 0 < len(entries) < SHARDS
        known = set(entries)
        store = open_store(path, allow_partial=True)
        region = store.read_map("local", spatial=(slice(0, 160), slice(0, 150)))
        there = np.isfinite(region)
        np.testing.assert_array_equal(region[there], expected[there])
        assert there.all(axis=0).sum() >= len(entries) * 22 * 32  # the smallest shards have 22 × 32 pixels
        if store.done:
            assert compare(path, reference)
            stores += 1
            path, known = tmp_path / f"{stores}.zarr", set()
    print(f"{kills} kills, {mid_write} in mid-write, {stores} stores done, {duration:.2f} s for one")
    assert mid_write >= KILLS // 4, "too few kills hit a run in mid-write for this test to mean anything"
    assert runner.run(path, kill_after=None) == 0
    assert open_store(path).done
    assert compare(path, reference)
    left = [f for f in tmp_path.rglob("*.partial") if path in f.parents]
    assert left == []


def compare(path: Path, reference: Path) -> bool:
    """Return whether two stores have the same files with the same bytes, journals and run.json aside."""

    def files(root: Path) -> dict[Path, bytes]:
        inside = (f for f in root.rglob("*") if f.is_file() and f.suffix != ".partial")
        return {f.relative_to(root): f.read_bytes() for f in inside if f.parent.name != "forestbridge"}

    return files(path) == files(reference)


if __name__ == "__main__":
    victim()
