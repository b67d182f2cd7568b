"""From an image and an encoder to a feature store: plan the shards, compute them, resume what was interrupted."""

import errno
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from numpy.typing import NDArray

from forestbridge.encoders.base import BatchEncoder, Encoder
from forestbridge.encoders.features import check_image
from forestbridge.errors import ImageError, InterruptedRunError, ResourceError, SpecMismatchError, StoreError
from forestbridge.image import Image, as_image
from forestbridge.qc.drift import image_statistics
from forestbridge.shards import ComputedShard, compute_shards, pixels_hash, read_shard, stored_maps
from forestbridge.spec import EncoderSpec, require_same_spec
from forestbridge.stores.base import FeatureStore, ImageFacts
from forestbridge.stores.grid import Shard
from forestbridge.stores.journal import JournalEntry, append_entry, input_hash, read_journal, rewrite_journal
from forestbridge.stores.lock import WriterLock, writer_lock
from forestbridge.stores.ome_writer import create_ome_zarr, mark, write_shard
from forestbridge.stores.ome_zarr import (
    OmeZarrStore,
    damaged_file,
    is_store,
    open_ome_zarr,
    resume_command,
    shorten,
)
from forestbridge.stores.verify import shard_problem, values_hash
from forestbridge.threads import cores, in_order

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of shards that are done and the number of all, first with what was there."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

WAITING_BYTES = 2**30
"""Of shards that several threads write, or that wait for them."""

DISK_MARGIN = 1.1
"""Free space asked for before starting, as a multiple of what is still to be written."""


def extract(
    image: Image | NDArray,
    encoder: Encoder,
    path: str | Path,
    *,
    compress: bool = False,
    overwrite: bool = False,
    repair: bool = False,
    progress: Progress | None = None,
    jobs: int = 1,
    resume: str | None = None,
) -> FeatureStore:
    """Compute the features of an image into a store, or go on with a store that was begun.

    Whatever stops it (Ctrl-C, a full disk, kill -9, a power cut), the shards that are done stay; called again with the
    same arguments it computes the others. The bytes of a store depend neither on interruptions nor on `jobs`.

    Parameters
    ----------
    image
        An `Image`, or an array (Y, X), (C, Y, X) or (C, Z, Y, X).
    encoder
        Any encoder; 2D encoders see every plane of a stack, 3D encoders every stack of a time series.
    path
        Of the store, NAME.features.ome.zarr.
    compress
        zstd with checksum in place of no compression with crc32c, for a new store.
    overwrite
        Start anew where a feature store exists; a path that is something else is refused all the same.
    repair
        Decode what is there first, and compute again whatever is damaged. Shards that are missing are computed in any
        case.
    progress
        Called after each shard with (done, all).
    jobs
        Number of shards computed at the same time, in threads; each takes memory. With one, its blocks are computed in threads.
    resume
        What a user types to go on, for messages; by default a command line with the names of image and store.

    Returns
    -------
    store
        Done.

    Raises
    ------
    ImageError
        If the image does not fit the encoder, or has pixels that do not fit into float32.
    OutputExistsError
        If the path exists and is no feature store.
    SpecMismatchError
        If the store there belongs to another encoder or another image.
    StoreError
        If another process is writing the store, the store is damaged, or the encoder gives values that the store cannot
        hold.
    ResourceError
        If the disk is too small or not writable.
    InterruptedRunError
        If it was stopped; the message names what to type to go on.
    """
    if jobs < 1:
        raise ValueError(f"expected at least one job, found {jobs}")
    image = as_image(image)
    path = Path(path)
    check_image(encoder.spec, image)
    facts = ImageFacts.of(image)
    new = overwrite or not is_store(path)
    if new:
        store = create_ome_zarr(path, encoder.spec, facts, compress=compress, overwrite=overwrite)
    else:
        store = open_ome_zarr(path, allow_partial=True)
        _require_same_run(store, encoder.spec, facts, compress=compress)
    with writer_lock(path) as lock, _removed_if_empty(store, lock, new=new), _told_how_to_resume(store, resume):
        _sweep(path)
        done = _shards_done(store, image, repair=repair)
        todo = [shard for shard in store.grid.shards() if shard.name not in done]
        total = store.grid.n_shards
        _log.info("%s: %d of %d shards were there, %d to compute", path, len(done), total, len(todo))
        if progress is not None:
            progress(len(done), total)
        if todo:
            if store.done:
                mark(store, done=False, input_sha256=None)
            _require_disk(store, todo)
            keep, writers = partial(_keep, store, lock), _writers(encoder, store, todo)
            with (
                closing(compute_shards(image, encoder, store.grid, todo, jobs=jobs)) as results,
                closing(in_order(keep, results, writers)) as entries,
            ):
                for entry in entries:
                    done[entry.shard] = entry
                    if progress is not None:
                        progress(len(done), total)
        if todo or not store.done:
            like = image_statistics(image)
            mark(store, done=True, input_sha256=input_hash(done.values()), image_statistics=like)
    return open_ome_zarr(path)


def _require_same_run(store: OmeZarrStore, spec: EncoderSpec, facts: ImageFacts, *, compress: bool) -> None:
    """Refuse to go on with a store of another encoder or of an image of another shape."""
    remedy = (
        f"give another path for the store, or replace it with --overwrite (overwrite=True); --like {store.path} uses "
        "the store's encoder"
    )
    require_same_spec(spec, store.spec, expected_by="extract", found_in=f"store {store.path}", remedy=remedy)
    asked, there = facts.document(), store.image.document()
    differing = [key for key in asked if asked[key] != there[key]]
    if strange := [key for key in ("axes", "shape", "dtype") if key in differing]:
        shown = "; ".join(f"{key}: {asked[key]} against {there[key]}" for key in strange)
        raise SpecMismatchError(
            f"expected the image of store {store.path} ({there['source']}), found another one, {asked['source']} "
            f"({shown}); give another path for the store, or replace it with --overwrite (overwrite=True)"
        )
    for key in differing:
        _log.warning(
            "%s: the store keeps its image's %s %s; this image says %s", store.path, key, there[key], asked[key]
        )
    if compress and not store.compress:
        _log.warning("%s: the store was begun without compression and stays so", store.path)


def _shards_done(store: OmeZarrStore, image: Image, *, repair: bool) -> dict[str, JournalEntry]:
    """Return the journal's entries that hold and belong to this image; bring the journal into line with them.

    Raises
    ------
    SpecMismatchError
        If a shard was computed from other pixels.
    """
    entries, clean = read_journal(store.path)
    kept: dict[str, JournalEntry] = {}
    for shard in store.grid.shards():
        entry = entries.get(shard.name)
        if entry is None:
            continue
        found = pixels_hash(read_shard(image, store.grid, shard)[0])
        if found != entry.input:
            raise SpecMismatchError(
                f"expected the image whose features are in {store.path} ({store.image.source}), found other pixels in "
                f"shard {shard.name} of {image.source}: sha256 {found[:16]} against {entry.input[:16]}; give another "
                "path for the store, or replace it with --overwrite (overwrite=True)"
            )
        reason = shard_problem(store, shard, entry) if repair else damaged_file(store, shard, entry.files)
        if reason is None:
            kept[shard.name] = entry
        else:
            _log.warning("%s: shard %s will be computed again: %s", store.path, shard.name, reason)
    if len(kept) < len(entries) or not clean:
        if store.done and len(kept) < store.grid.n_shards:
            mark(store, done=False, input_sha256=None)
        rewrite_journal(store.path, kept.values())
    return kept


def _require_disk(store: OmeZarrStore, todo: Sequence[Shard]) -> None:
    needed = sum(store.grid.shard_bytes(shard) for shard in todo)
    free = shutil.disk_usage(store.path).free
    if free < DISK_MARGIN * needed:
        raise ResourceError(
            f"expected {DISK_MARGIN * needed / 2**30:.2f} GiB free for the {len(todo)} shards still to write to "
            f"{store.path}, found {free / 2**30:.2f} GiB; free some, or give a path on another disk"
        )


def _writers(encoder: Encoder, store: OmeZarrStore, todo: Sequence[Shard]) -> int:
    """Return how many threads write shards: a GPU is faster than one; elsewhere the cores are for the encoder."""
    if not isinstance(encoder, BatchEncoder) or encoder.batch == 1:
        return 1
    return max(1, min(cores(), WAITING_BYTES // (2 * max(store.grid.shard_bytes(shard) for shard in todo))))


def _keep(store: OmeZarrStore, lock: WriterLock, result: ComputedShard) -> JournalEntry:
    """Write a shard, have it on the disk, and only then name it in the journal."""
    start = time.perf_counter()
    maps = stored_maps(result, store.grid)
    lock.check()
    files = write_shard(store, result.shard, maps)
    entry = JournalEntry(
        shard=result.shard.name,
        input=result.input,
        output={m.spec.name: values_hash(values) for m, values in zip(store.grid.maps, maps, strict=True)},
        files=files,
        seconds=round(result.seconds + time.perf_counter() - start, 3),
        host=socket.gethostname(),
        pid=os.getpid(),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    append_entry(store.path, entry)
    return entry


def _sweep(path: Path) -> None:
    """Remove the temporary files that a killed writer left inside the store; the caller holds the lock."""
    left = list(path.rglob("*.partial"))
    for file in left:
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)
    if left:
        _log.info(
            "%s: removed %d temporary file(s) of an interrupted run: %s", path, len(left), shorten(f.name for f in left)
        )


@contextmanager
def _removed_if_empty(store: OmeZarrStore, lock: WriterLock, *, new: bool) -> Iterator[None]:
    """Take a new store away again when an image or encoder is refused before the first shard: it holds nothing."""
    try:
        yield
    except (ImageError, StoreError, ValueError):
        if new and not read_journal(store.path)[0]:
            lock.check()
            shutil.rmtree(store.path)
        raise


@contextmanager
def _told_how_to_resume(store: OmeZarrStore, resume: str | None) -> Iterator[None]:
    """Turn what stops a run from outside into an error that says how to go on."""
    go_on = f"everything done so far is kept; go on with: {resume or resume_command(store.path, store.image)}"
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"expected to finish {store.path}, found an interruption (Ctrl-C); {go_on}"
        ) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(
                f"expected room for {store.path}, found: {error.strerror}; make room: {go_on}"
            ) from error
        raise InterruptedRunError(
            f"expected to read {store.image.source} and write {store.path}, found: {error}; {go_on}"
        ) from error
