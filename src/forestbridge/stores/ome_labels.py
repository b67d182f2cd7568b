"""Label images inside a store: scribbles or predictions that lie over the features, as OME-Zarr labels."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from forestbridge.errors import LabelError, OutputExistsError
from forestbridge.files import sync_file, sync_folder
from forestbridge.stores.grid import check_names
from forestbridge.stores.journal import read_document, replace_file
from forestbridge.stores.lock import writer_lock
from forestbridge.stores.metadata import label_array_document, label_document, labels_document, to_bytes
from forestbridge.stores.ome_zarr import open_ome_zarr

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")

MOST_CLASSES = 255
"""Most labels that are listed one by one; more are instances, whose colours every viewer chooses itself."""


def write_store_labels(
    path: str | Path,
    name: str,
    labels: ArrayLike,
    *,
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a label image into a store.

    Parameters
    ----------
    path
        Of the store, done or not.
    name
        Of the labels; a folder name in the store.
    labels
        Integers ≥ 0 with the axes of the image without its channels, e.g. (Y, X) or (T, Z, Y, X); 0 =
        unlabelled, k = class k.
    names, colours
        Label → name for people; label → "#rrggbb".
    overwrite
        Replace labels of this name.

    Returns
    -------
    folder
        Of the label image.

    Raises
    ------
    LabelError
        If the labels are no integers ≥ 0, or their shape is not the image's.
    OutputExistsError
        If there are labels of this name and `overwrite` is False.
    StoreError
        If the store is damaged, or another process is writing it.
    """
    store = open_ome_zarr(Path(path), allow_partial=True)
    check_names([name], what="label")
    names, colours = dict(names or {}), dict(colours or {})
    if wrong := [c for c in colours.values() if not _COLOUR.fullmatch(c)]:
        raise ValueError(f"expected colours as '#rrggbb', found {wrong}")
    axes = store.image.axes.replace("C", "")
    shape = tuple(store.image.sizes[a] for a in axes)
    values = np.asarray(labels)
    if values.shape != shape:
        raise LabelError(
            f"expected labels of the image's size {dict(zip(axes, shape, strict=True))}, found an array of "
            f"{values.shape}; crop or transpose them"
        )
    if values.dtype.kind not in "bui" or (values.size and int(values.min()) < 0):
        raise LabelError(
            f"expected labels as integers from 0 (unlabelled), found {values.dtype} from {values.min()}; convert or "
            "renumber them"
        )
    values = values.astype(np.min_scalar_type(int(values.max())))
    folder = store.path / "labels" / name
    with writer_lock(store.path):
        if folder.exists() and not overwrite:
            raise OutputExistsError(
                f"expected a new name, found labels {name!r} in {store.path}; give another name or --overwrite "
                "(overwrite=True)"
            )
        folder.parent.mkdir(exist_ok=True)
        new = folder.with_name(f"{name}.partial")
        shutil.rmtree(new, ignore_errors=True)
        (new / "0").mkdir(parents=True)
        painted: list[int] = np.unique(values[values > 0]).tolist()
        listed = painted if len(painted) <= MOST_CLASSES else []
        known = sorted(set(names) | set(colours) | set(listed))
        document = label_document(store.image, name, axes.lower(), values=known, names=names, colours=colours)
        (new / "zarr.json").write_bytes(to_bytes(document))
        (new / "0" / "zarr.json").write_bytes(to_bytes(label_array_document(shape, values.dtype.name, axes.lower())))
        _write_array(new, values)
        _replace_folder(new, folder)
        kept = [other for other in label_names(store.path) if other != name]
        replace_file(store.path / "labels" / "zarr.json", to_bytes(labels_document([*kept, name])))
    return folder


def label_names(path: Path) -> list[str]:
    """Return the names of the label images in a store."""
    file = path / "labels" / "zarr.json"
    if not file.exists():
        return []
    document = read_document(file, node="the list of labels")
    return [str(name) for name in document.get("attributes", {}).get("ome", {}).get("labels", [])]


def _write_array(folder: Path, values: np.ndarray) -> None:
    import zarr
    from zarr.storage import LocalStore

    array = zarr.open_array(LocalStore(folder), path="0", mode="r+", config={"write_empty_chunks": True})
    array[...] = values
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def _replace_folder(new: Path, folder: Path) -> None:
    if folder.exists():
        old = folder.with_name(f"{folder.name}.old.partial")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        new.rename(folder)
    sync_folder(folder.parent)
