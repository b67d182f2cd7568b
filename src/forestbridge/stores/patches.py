"""FeatureForest's HDF5 file of features: its geometry, what is in it, and its patches one by one.

The file holds a group for each slice with one dataset (patches, s, s, F) float16, a chunk for each patch. Patches overlapped when the
encoder saw them; of each the inner s × s pixels are kept, s = patch size - overlap, so that the kept parts lie side by side::

    0        s       2s       3s        pixel (y, x) lies in patch (y // s) · columns + x // s, at (y % s, x % s) of it;
    +--------+--------+--------+        patches at the right and the bottom reach beyond the image
    | patch 0| patch 1| patch 2|
    +--------+--------+--------+        columns = (width + 2 · (overlap // 2) - patch size) // s + 2
    | patch 3| patch 4| patch 5|        and rows likewise; one patch where it is the image
    +--------+--------+--------+
"""

import threading
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from math import log2, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import StoreError
from forestbridge.image.hdf5_nodes import Kind, Node, open_hdf5
from forestbridge.image.source import shown

if TYPE_CHECKING:
    import h5py

PATCH = 512
"""FeatureForest's patch size for images of at least twice that length."""

CACHE_BYTES = 2**28
"""Of decoded patches that are kept; two of them in any case, since a patch is the least that can be read."""

AGAIN = "extract it again with FeatureForest"

KIND = Kind("a feature store of FeatureForest", StoreError, AGAIN)

_NUMBERS = ("num_slices", "img_height", "img_width", "patch_size", "overlap")
_LARGEST = 2**24


@dataclass(frozen=True)
class PatchGrid:
    """Which patches a slice has.

    Attributes
    ----------
    height, width
        Of the image in pixels.
    patch_size, overlap
        Of the patches that the encoder saw, in pixels.
    """

    height: int
    width: int
    patch_size: int
    overlap: int

    @property
    def side(self) -> int:
        """Pixels of a patch that are kept, along y and along x."""
        return self.patch_size - self.overlap

    @property
    def rows(self) -> int:
        """Number of patches along y."""
        return self._count(self.height)

    @property
    def columns(self) -> int:
        """Number of patches along x."""
        return self._count(self.width)

    @property
    def n_patches(self) -> int:
        """Number of patches of a slice."""
        return self.rows * self.columns

    def _count(self, pixels: int) -> int:
        if self.height == self.width == self.patch_size == self.side:
            return 1
        return (pixels + 2 * (self.overlap // 2) - self.patch_size) // self.side + 2


def patch_size(height: int, width: int) -> int:
    """Return the patch size that FeatureForest takes for an image: 512, or a smaller power of two for smaller images."""
    shorter, size = min(height, width), PATCH
    if shorter < size:
        return 2 ** int(log2(shorter))
    while shorter / size < 2:
        size //= 2
    return size


class Patches:
    """Decoded patches of a file: the ones read last are kept, and one is read at a time."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self._path = path
        self._most = max(2, CACHE_BYTES // max(1, n_bytes))
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], NDArray[np.float16]] = OrderedDict()

    def read(self, z: int, patch: int) -> NDArray[np.float16]:
        """Return the (s, s, F) features of a patch.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        with self._lock:
            if (z, patch) in self._kept:
                self._kept.move_to_end((z, patch))
                return self._kept[z, patch]
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            with open_hdf5(self._path, KIND) as root:
                dataset = _features(root, z)
                if dataset is None or patch >= dataset.shape[0]:
                    raise StoreError(f"{root.file}: expected patch {patch} of slice {z}, found it gone; {AGAIN}")
                try:
                    values = dataset[patch]
                except OSError as error:
                    raise StoreError(
                        f"{root.file}: expected readable features, found patch {patch} of slice {z} damaged ({error}); {AGAIN}"
                    ) from error
            self._kept[z, patch] = np.asarray(values, np.float16)
            return self._kept[z, patch]


class Contents(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    n_slices, n_features
        How many.
    options
        model, patch_size, overlap, no_patching, as FeatureForest names them.
    absent
        (slice, patch) of the patches that are not there.
    """

    n_slices: int
    n_features: int
    grid: PatchGrid
    options: dict[str, Any]
    absent: set[tuple[int, int]]


def read_contents(path: Path) -> Contents:
    """Read what a file holds; no feature is read.

    Raises
    ------
    StoreError
        If it is no such file, is damaged, or contradicts itself.
    """
    with open_hdf5(path, KIND) as root:
        attributes = _attributes(root)
        grid = PatchGrid(*(attributes[name] for name in _NUMBERS[1:]))
        n_slices = attributes["num_slices"]
        _check_groups(root, n_slices)
        n_features, absent = _features_of_slices(root, grid, n_slices)
    options = {name: attributes[name] for name in ("model", "patch_size", "overlap", "no_patching")}
    return Contents(n_slices, n_features, grid, options, absent)


def is_featureforest(path: Path) -> bool:
    """Return whether a file is a feature store of FeatureForest, damaged or not, as long as HDF5 can open it."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return {"patch_size", "no_patching"} & set(file.attrs) != set()
    except OSError:
        return False


def _attributes(root: Node) -> dict[str, Any]:
    """Return the attributes of the file.

    Raises
    ------
    StoreError
        If one is missing or of a wrong kind, or they contradict each other.
    """
    found: dict[str, Any] = {name: root.attribute(name) for name in (*_NUMBERS, "model", "no_patching")}
    bad = [name for name in _NUMBERS if not _is_count(found[name], least=0 if name == "overlap" else 1)]
    bad += [] if isinstance(found["model"], str) and found["model"].strip() else ["model"]
    bad += [] if found["no_patching"] in (0, 1) else ["no_patching"]
    if not bad and found["overlap"] >= found["patch_size"]:
        bad = ["overlap"]
    if bad:
        shown_values = ", ".join(f"{name}={found[name]!r}" for name in bad)
        raise StoreError(
            f"{root.file}: expected the attributes of a feature store of FeatureForest, found {shown(shown_values)}; if FeatureForest "
            f"wrote the file, {AGAIN}"
        )
    return {name: int(found[name]) for name in _NUMBERS} | {
        "model": unicodedata.normalize("NFKC", found["model"]),
        "no_patching": bool(found["no_patching"]),
    }


def _is_count(value: Any, *, least: int) -> bool:
    return isinstance(value, int | float) and float(value).is_integer() and least <= value <= _LARGEST


def _check_groups(root: Node, n_slices: int) -> None:
    """Refuse a file with other slices than it says it has."""
    if unknown := [name for name in root.members() if not name.isdecimal() or int(name) >= n_slices]:
        raise StoreError(
            f"{root.file}: expected the slices 0 to {n_slices - 1}, found also {shown(', '.join(unknown[:5]))}; {AGAIN}"
        )


def _features_of_slices(root: Node, grid: PatchGrid, n_slices: int) -> tuple[int, set[tuple[int, int]]]:
    """Return the number of features, and (slice, patch) of what is missing."""
    shapes, absent = set(), set()
    for z in range(n_slices):
        dataset = _features(root, z)
        if dataset is None:
            absent |= {(z, patch) for patch in range(grid.n_patches)}
            continue
        shape = dataset.shape
        if (
            len(shape) != 4
            or shape[1:3] != (grid.side, grid.side)
            or shape[0] > grid.n_patches
            or dataset.dtype.newbyteorder("=") != "f2"
        ):
            raise StoreError(
                f"{root.file}: expected up to {grid.n_patches} patches of {grid.side} × {grid.side} pixels with float16 features in slice "
                f"{z}, as its attributes say, found {dataset.dtype} {shape}; {AGAIN}"
            )
        shapes.add(shape[3])
        absent |= {(z, patch) for patch in _unwritten(dataset)}
        absent |= {(z, patch) for patch in range(shape[0], grid.n_patches)}
    if len(shapes) != 1 or 0 in shapes:
        found = "no features" if not shapes or 0 in shapes else f"{sorted(shapes)}"
        raise StoreError(f"{root.file}: expected one number of features in all slices, found {found}; {AGAIN}")
    return shapes.pop(), absent


def _features(root: Node, z: int) -> "h5py.Dataset | None":
    group = root.node(str(z))
    return None if group is None else group.dataset("features")


def _unwritten(dataset: "h5py.Dataset") -> list[int]:
    """Return the patches that have a place and no content: HDF5 reads them as zeros without a word."""
    n, *rest = dataset.shape
    if dataset.chunks is None:
        return [] if dataset.id.get_storage_size() else list(range(n))
    if dataset.id.get_num_chunks() >= prod(-(-a // b) for a, b in zip(dataset.shape, dataset.chunks, strict=True)):
        return []
    first = dataset.chunks[0]
    places = [(patch // first * first, *(0 for _ in rest)) for patch in range(n)]
    return [
        patch for patch, place in enumerate(places) if dataset.id.get_chunk_info_by_coord(place).byte_offset is None
    ]
