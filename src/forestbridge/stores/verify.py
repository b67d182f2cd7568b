"""Judging a store: decode every shard and compare it with its journal; and a summary of what a store holds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import StoreError
from forestbridge.stores.base import FeatureStore
from forestbridge.stores.featureforest import FeatureForestStore, open_featureforest
from forestbridge.stores.grid import Shard
from forestbridge.stores.journal import JournalEntry, input_hash, read_journal
from forestbridge.stores.ome_labels import label_names
from forestbridge.stores.ome_zarr import OmeZarrStore, damaged_file, open_ome_zarr


@dataclass(frozen=True)
class ShardProblem:
    """What is wrong with one shard.

    Attributes
    ----------
    shard
        Its name; empty for the store as a whole.
    reason
        One line.
    """

    shard: str
    reason: str


@dataclass(frozen=True)
class StoreReport:
    """The result of `verify_store`.

    Attributes
    ----------
    path
        Of the store.
    done
        Whether the store says that it is complete.
    shards, shards_done
        Number of shards that the image has, and of those that the journal names.
    n_bytes
        Bytes of features that were decoded and compared.
    problems
        Empty for a good store. Shards that were never computed are no problem in a store that is not done.
    """

    path: Path
    done: bool
    shards: int
    shards_done: int
    n_bytes: int
    problems: tuple[ShardProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that should be there is there and intact."""
        return not self.problems


def verify_store(store: FeatureStore | str | Path) -> StoreReport:
    """Decode every shard that is done and compare its values with the hash in the journal.

    Raises
    ------
    StoreError
        If there is no store, or its metadata is damaged.
    """
    opened = _opened(store)
    if isinstance(opened, FeatureForestStore):
        return _verify_featureforest(opened)
    entries, _ = read_journal(opened.path)
    problems: list[ShardProblem] = []
    n_bytes = 0
    for shard in opened.grid.shards():
        entry = entries.get(shard.name)
        if entry is None:
            if opened.done:
                problems.append(ShardProblem(shard.name, "the journal does not name it, though the store is done"))
            continue
        reason = shard_problem(opened, shard, entry)
        if reason is not None:
            problems.append(ShardProblem(shard.name, reason))
        n_bytes += opened.grid.shard_bytes(shard)
    if opened.done and not problems and input_hash(entries.values()) != opened.input_sha256:
        problems.append(ShardProblem("", "the hash over all inputs differs from the one in zarr.json"))
    return StoreReport(opened.path, opened.done, opened.grid.n_shards, len(entries), n_bytes, tuple(problems))


def _verify_featureforest(store: FeatureForestStore) -> StoreReport:
    """Decode every patch and look for features that are no numbers; the file holds no hashes to compare with."""
    problems, n_bytes = [], 0
    places = [(z, p) for z in range(store.image.sizes["Z"]) for p in range(store.patches.n_patches)]
    present = [place for place in places if place not in store.absent]
    for z, patch in present:
        if reason := store.problem(z, patch):
            problems.append(ShardProblem(f"slice {z} patch {patch}", reason))
        n_bytes += 2 * store.spec.n_features * store.patches.side**2
    if store.absent:
        problems.append(ShardProblem("", f"{len(store.absent)} patches are not there"))
    return StoreReport(store.path, store.done, len(places), len(present), n_bytes, tuple(problems))


def shard_problem(store: OmeZarrStore, shard: Shard, entry: JournalEntry) -> str | None:
    """Return what is wrong with a journalled shard, None if nothing."""
    reason = damaged_file(store, shard, entry.files)
    if reason is not None:
        return reason
    for m in store.grid.maps:
        try:
            values = store.shard_values(m, shard)
        except StoreError as error:
            return f"map {m.spec.name!r}: {error.__cause__ or error}"
        if values_hash(values) != entry.output.get(m.spec.name):
            return f"map {m.spec.name!r}: its values differ from those that were written"
    return None


def values_hash(values: NDArray) -> str:
    """Return the sha256 of values as little-endian bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data).hexdigest()


def store_facts(path: str | Path) -> dict[str, Any]:
    """Return what a store holds, as JSON values; no features are read.

    Raises
    ------
    StoreError
        If there is no store, or its metadata is damaged.
    """
    store = _opened(path)
    if isinstance(store, FeatureForestStore):
        return store.describe()
    return {
        "kind": "store",
        "path": str(store.path),
        "done": store.done,
        "shards": {"done": store.grid.n_shards - len(store.missing()), "total": store.grid.n_shards},
        "encoder": {
            "name": store.spec.name,
            "fingerprint": store.spec.fingerprint(),
            "features": store.spec.n_features,
        },
        "image": store.image.document(),
        "maps": list(_map_facts(store)),
        "labels": label_names(store.path),
        "compress": store.compress,
        "input_sha256": store.input_sha256,
    }


def _map_facts(store: OmeZarrStore) -> Iterator[dict[str, Any]]:
    for m in store.grid.maps:
        folder = store.path / m.path / "c"
        yield {
            "name": m.spec.name,
            "path": m.path,
            "axes": m.axes,
            "shape": list(m.shape),
            "dtype": m.dtype,
            "stride": m.spec.stride,
            "offset": m.spec.offset,
            "chunks": list(m.chunks),
            "shards": list(m.shards),
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        }


def _opened(store: FeatureStore | str | Path) -> OmeZarrStore | FeatureForestStore:
    path = Path(store) if isinstance(store, str | Path) else store.path
    if path.is_file():
        return open_featureforest(path, allow_partial=True)
    if not path.is_dir():
        raise StoreError(
            f"expected the folder of a feature store (NAME.features.ome.zarr), found none at {path}; check the path"
        )
    return open_ome_zarr(path, allow_partial=True)
