"""The writing side of the OME-Zarr store: an empty one in a single rename, its shards one by one, the done mark."""

import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from forestbridge.errors import OutputExistsError, ResourceError
from forestbridge.files import check_output, sync_file, sync_folder
from forestbridge.spec import EncoderSpec
from forestbridge.stores.base import ImageFacts
from forestbridge.stores.chunk_files import shard_content
from forestbridge.stores.grid import Shard, StoreGrid, plan_grid
from forestbridge.stores.journal import FOLDER, RUN, replace_file
from forestbridge.stores.lock import is_alive, writer_lock
from forestbridge.stores.metadata import (
    STORE_FORMAT,
    group_document,
    map_array_document,
    map_document,
    root_document,
    to_bytes,
)
from forestbridge.stores.ome_zarr import OmeZarrStore, is_store, open_ome_zarr, run_key

_log = logging.getLogger(__name__)


def create_ome_zarr(
    path: Path, spec: EncoderSpec, image: ImageFacts, *, compress: bool, overwrite: bool
) -> OmeZarrStore:
    """Make an empty store; see `forestbridge.stores.create_store`. It appears whole, by one rename."""
    grid = plan_grid(spec, image)
    if (path.exists() or path.is_symlink()) and not is_store(path):
        raise OutputExistsError(
            f"expected a new path or a feature store, found that {path} exists and is no feature store; it is left as "
            "it is: give another path"
        )
    check_output(path, overwrite=overwrite)
    _sweep_siblings(path)
    new = _sibling(path)
    try:
        _write_skeleton(new, grid, compress=compress)
        with writer_lock(path) if path.exists() else nullcontext():
            if path.exists():
                old = _sibling(path)
                path.rename(old)  # the lock goes with it
                new.rename(path)
                shutil.rmtree(old)
            else:
                new.rename(path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        raise ResourceError(
            f"expected to make the store {path}, found: {error}; check the disk and its permissions"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return open_ome_zarr(path, allow_partial=True)


def mark(
    store: OmeZarrStore, *, done: bool, input_sha256: str | None, image_statistics: Mapping[str, Any] | None = None
) -> None:
    """Write whether a store is done into its root, and what its image is like."""
    ours = _our_attributes(store.grid, compress=store.compress) | {"done": done, "input_sha256": input_sha256}
    if image_statistics is not None:
        ours["image_statistics"] = dict(image_statistics)
    replace_file(store.path / "zarr.json", to_bytes(root_document(store.grid, ours)))


def write_shard(store: OmeZarrStore, shard: Shard, maps: Sequence[NDArray]) -> dict[str, int]:
    """Write one shard of every map and have it on the disk when this returns; threads may write different shards.

    A file appears whole, by a rename, so that readers of a store that is being written never see a part of a shard.

    Parameters
    ----------
    maps
        (F, y, x) or (F, z, y, x) in the stored dtype, the cells of the shard.

    Returns
    -------
    files
        Map → bytes of the file.
    """
    files = {}
    for m, values in zip(store.grid.maps, maps, strict=True):
        path = store.path / m.shard_file(shard.index)
        _make_folder(path.parent)
        values = values.reshape([n.stop - n.start for n in m.region(shard)])
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with temporary.open("wb", buffering=0) as file:
                for part in shard_content(values, m, compress=store.compress):
                    _write_all(file, part.data)
                os.fsync(file.fileno())
                files[m.spec.name] = file.tell()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return files


def _write_all(file: FileIO, data: memoryview) -> None:
    """Write to an unbuffered file, which may take a part only, on a full disk or beyond 2 GiB."""
    while data:
        data = data[file.write(data) :]


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, and have their names on the disk."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _our_attributes(grid: StoreGrid, *, compress: bool) -> dict[str, Any]:
    return {
        "format": STORE_FORMAT,
        "tool": f"forestbridge {version('forestbridge')}",
        "run_key": run_key(grid),
        "spec": json.loads(grid.spec.to_json()),
        "image": grid.image.document(),
        "core": list(grid.core),
        "compress": compress,
        "done": False,
        "input_sha256": None,
    }


def _write_skeleton(path: Path, grid: StoreGrid, *, compress: bool) -> None:
    """Write all metadata of an empty store and have it on the disk."""
    ours = _our_attributes(grid, compress=compress)
    run = {
        **{key: ours[key] for key in ("run_key", "spec", "image", "core", "compress", "tool")},
        "batch": 1,
        "threads": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "zarr", "numcodecs")},
        "host": socket.gethostname(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    documents = {
        f"{FOLDER}/{RUN}": run,
        "features/zarr.json": group_document(),
        **{f"features/{m.spec.name}/zarr.json": map_document(grid, m) for m in grid.maps},
        **{f"{m.path}/zarr.json": map_array_document(grid, m, compress=compress) for m in grid.maps},
        "zarr.json": root_document(grid, ours),
    }
    for name, document in documents.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(to_bytes(document))
        sync_file(file)
    for folder in [path, *(f for f in path.rglob("*") if f.is_dir())]:
        sync_folder(folder)


def _sibling(path: Path) -> Path:
    """Return a temporary name beside a store; the process in it tells whether it was left behind."""
    return path.absolute().with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _sweep_siblings(path: Path) -> None:
    """Remove what killed runs on this host left beside a store."""
    for left in path.absolute().parent.glob(f".{path.name}.*-*.partial"):
        pid = left.name[len(path.name) + 2 :].split("-")[0]
        if pid.isdigit() and not is_alive(socket.gethostname(), int(pid)):
            _log.info("removing %s, left by a run that was killed", left)
            shutil.rmtree(left, ignore_errors=True)
