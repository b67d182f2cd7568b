"""`extract` where it must stop: values that no store can hold, full disks, vanishing files, a second writer."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extract_runs import IMAGE, stop_after, tree
from forestbridge.errors import (
    ImageError,
    InterruptedRunError,
    ResourceError,
    StoreError,
)
from forestbridge.extract import extract
from forestbridge.image import Image
from forestbridge.stores import open_store
from forestbridge.stores.lock import STALE, writer_lock
from small_encoders import CountingEncoder, local_encoder, pooling_encoder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The files of a store that was written in one go."""
    path = tmp_path_factory.mktemp("reference") / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    return tree(path)


# --- Values that a store cannot hold ---


class BadEncoder(CountingEncoder):
    """An encoder that spoils one value of one shard."""

    def __init__(self, encoder, value: float) -> None:
        super().__init__(encoder)
        self.value = value

    def encode(self, tile, core):
        maps = [np.array(m) for m in super().encode(tile, core)]
        if self.calls == 2:
            maps[-1][1, 2, 1] = self.value
        return tuple(maps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "a.zarr"
    with pytest.raises(
        StoreError,
        match=r"expected finite features from local .*found 1 NaN or infinite values in shard y0.x1 of map 'local', "
        r"the first in feature 'local 1' at cell y=2 x=33",
    ):
        extract(IMAGE, BadEncoder(local_encoder(), value), path)
    assert len(open_store(path, allow_partial=True).missing()) == 11


def test_float16_overflow_is_refused_with_the_count(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(
        StoreError,
        match=r"expected features up to 65504, the largest float16 from pool .*found 1 values beyond, "
        r"up to 70000 in shard y0.x1 of map 'pool.coarse', the first in feature 'coarse 1' at cell y=2 x=5",
    ):
        extract(IMAGE, BadEncoder(pooling_encoder(), 70000.0), path)
    bright = Image(np.full((64, 64), 60000, np.uint16), "YX", pixel_size={})
    with pytest.raises(StoreError, match=r"found 256 values beyond, up to 120000 in shard y0.x0 of map 'pool.fine'"):
        extract(bright, pooling_encoder(), tmp_path / "b.zarr")


def test_maps_of_another_shape_are_refused(tmp_path):
    class Wrong(CountingEncoder):
        def encode(self, tile, core):
            return tuple(m[:, :-1] for m in super().encode(tile, core))

    with pytest.raises(
        ValueError, match=r"expected map 'local' of shard y0.x0 as \(3, 32, 32\) from local .*, found \(3, 31, 32\)"
    ):
        extract(IMAGE, Wrong(local_encoder()), tmp_path / "a.zarr")

    class Few(CountingEncoder):
        def encode(self, tile, core):
            return super().encode(tile, core)[:1]

    with pytest.raises(ValueError, match=r"expected 2 maps from pool .*, found 1"):
        extract(IMAGE, Few(pooling_encoder()), tmp_path / "b.zarr")


def test_pixels_that_are_not_finite_keep_what_is_done(tmp_path):
    pixels = np.zeros((100, 90), np.float32)
    pixels[99, 89] = np.nan
    path = tmp_path / "a.zarr"
    with pytest.raises(ImageError, match="found 1 NaN or infinite ones in a region"):
        extract(pixels, local_encoder(), path)
    assert len(open_store(path, allow_partial=True).missing()) == 1


# --- Disks ---


def test_too_little_disk_is_refused_before(tmp_path):
    encoder = CountingEncoder(local_encoder(180, tile=None))
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    side = int((free / (180 * 4)) ** 0.5) + 1
    image = Image(np.broadcast_to(np.uint8(0), (side, side)), "YX", pixel_size={})
    with pytest.raises(
        ResourceError,
        match=r"expected [\d.]+ GiB free for the \d+ shards still to write to .*, found [\d.]+ GiB; free some",
    ):
        extract(image, encoder, tmp_path / "a.zarr")
    assert encoder.calls == 0


def test_a_disk_that_fills_up_keeps_everything(tmp_path, reference):
    """A limit on the size of files stands for the full disk: both are errors of the write call."""
    path = tmp_path / "a.zarr"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(done, total):
        if done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))

    try:
        with pytest.raises(
            ResourceError,
            match=r"expected room for .*a.zarr, found: File too large; make room: everything done so far is kept",
        ):
            extract(IMAGE, local_encoder(), path, progress=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(open_store(path, allow_partial=True).missing()) == 9
    assert list(path.rglob("*.partial")) == []
    extract(IMAGE, local_encoder(), path)
    assert tree(path) == reference


def test_an_image_that_cannot_be_read_keeps_everything(tmp_path, reference):
    class Vanishing:
        shape, dtype = IMAGE.shape, IMAGE.dtype
        reads = 0

        def __getitem__(self, key):
            Vanishing.reads += 1
            if Vanishing.reads == 4:
                raise OSError(5, "Input/output error")
            return IMAGE.data[key]

    path = tmp_path / "a.zarr"
    with pytest.raises(
        InterruptedRunError,
        match=r"expected to read noise.tif and write .*, found: .*Input/output error; everything done so far is kept",
    ):
        extract(replace(IMAGE, data=Vanishing()), local_encoder(), path)
    extract(IMAGE, local_encoder(), path)
    assert tree(path) == reference


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc, a folder in which nobody can make files")
def test_a_folder_that_cannot_be_written_fails_before_computing():
    encoder = CountingEncoder(local_encoder())
    with pytest.raises(ResourceError, match=r"expected (to make the store|a writable folder)"):
        extract(IMAGE, encoder, "/proc/a.zarr")
    assert encoder.calls == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc, a folder in which nobody can make files")
def test_a_store_that_cannot_be_written_is_named():
    with (
        pytest.raises(ResourceError, match="expected a store that can be written, found /proc"),
        writer_lock(Path("/proc")),
    ):
        pass


# --- One writer ---


def lock_file(path: Path, *, host: str, pid: int, age: float = 0.0) -> Path:
    """Leave a lock in a store."""
    lock = path / "forestbridge/lock"
    lock.write_text(json.dumps({"host": host, "pid": pid, "token": "x"}))
    os.utime(lock, (time.time() - age,) * 2)
    return lock


@pytest.fixture
def begun(tmp_path):
    """A store with one shard."""
    path = tmp_path / "a.zarr"
    with pytest.raises(InterruptedRunError):
        extract(IMAGE, local_encoder(), path, progress=stop_after(1))
    return path


def test_a_second_writer_is_refused(begun):
    with (
        writer_lock(begun),
        pytest.raises(
            StoreError,
            match=rf"expected to be the only writer of .*a.zarr, found process {os.getpid()} on {socket.gethostname()} "
            "writing, last seen 0 s ago; wait",
        ),
    ):
        extract(IMAGE, local_encoder(), begun)
    extract(IMAGE, local_encoder(), begun)


def test_a_writer_on_another_host_counts_as_alive(begun):
    lock_file(begun, host="elsewhere", pid=1, age=30)
    with pytest.raises(StoreError, match=r"found process 1 on elsewhere writing, last seen 3\d s ago"):
        extract(IMAGE, local_encoder(), begun)


@pytest.mark.parametrize("reason", ["dead", "silent", "silent elsewhere", "empty"])
def test_a_lock_that_was_left_behind_is_taken_over(begun, caplog, reason):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    match reason:
        case "dead":
            lock_file(begun, host=socket.gethostname(), pid=int(dead.stdout))
        case "silent":
            lock_file(begun, host=socket.gethostname(), pid=os.getpid(), age=STALE + 1)
        case "silent elsewhere":
            lock_file(begun, host="elsewhere", pid=1, age=STALE + 1)
        case "empty":
            (begun / "forestbridge/lock").touch()  # its owner was killed between making and filling it
    extract(IMAGE, local_encoder(), begun)
    assert "took over the lock of" in caplog.text
    assert not (begun / "forestbridge/lock").exists()


def test_a_writer_that_lost_its_lock_stops(begun):
    def take_over(done, total):
        if done == 4:
            lock_file(begun, host="elsewhere", pid=1)

    with pytest.raises(
        StoreError,
        match="found that process 1 on elsewhere took over while this process stood still; let that one finish",
    ):
        extract(IMAGE, local_encoder(), begun, progress=take_over)
    assert (begun / "forestbridge/lock").exists()  # it belongs to the other one
    assert len(open_store(begun, allow_partial=True).missing()) == 8


def test_only_one_of_many_gets_the_lock(begun):
    """Ten threads meet one stale lock; never do two hold it."""
    lock_file(begun, host="elsewhere", pid=1, age=STALE + 1)
    holders, most, refused = [], [], []

    def run():
        try:
            with writer_lock(begun):
                holders.append(1)
                most.append(len(holders))
                time.sleep(0.02)
                holders.pop()
        except StoreError:
            refused.append(1)

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 10
