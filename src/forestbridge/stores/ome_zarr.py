"""The reading side of the OME-Zarr store: from the folder that docs/formats.md describes to features of points or regions."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forestbridge.errors import StoreError
from forestbridge.spec import EncoderSpec
from forestbridge.stores.base import ImageFacts
from forestbridge.stores.chunk_files import read_cells
from forestbridge.stores.grid import MapGrid, Shard, StoreGrid, plan_grid
from forestbridge.stores.journal import FOLDER, RUN, read_document, read_journal
from forestbridge.stores.lookup import chunks_of_cells, corners, distinct, interpolate, split_points
from forestbridge.stores.metadata import STORE_FORMAT, map_array_document

DAMAGE = (ValueError, RuntimeError, OSError, IndexError)
"""What zarr and its codecs raise for chunks that cannot be decoded."""

REPAIR = "recompute them with: forestbridge extract ... --repair (extract(..., repair=True) in Python)"


@dataclass(frozen=True, eq=False)
class OmeZarrStore:
    """A feature store in OME-Zarr 0.5; see `forestbridge.stores.FeatureStore`.

    Attributes
    ----------
    compress
        Whether chunks are compressed.
    input_sha256
        Hash over the input hashes of all shards; None while the store is not done.
    """

    path: Path
    grid: StoreGrid
    done: bool
    compress: bool
    input_sha256: str | None
    image_statistics: Mapping[str, Any] | None = None

    @property
    def spec(self) -> EncoderSpec:
        """The encoder of its features."""
        return self.grid.spec

    @property
    def image(self) -> ImageFacts:
        """The image whose features it holds."""
        return self.grid.image

    @property
    def block(self) -> None:
        """None: small chunks are read alone."""

    def at(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return (N, F) float32 features of (N, 2) or (N, 4) pixel positions, as `FeatureStore.at` says."""
        where = split_points(points, self.image)
        features = np.empty((len(where["y"]), self.spec.n_features), np.float32)
        column = 0
        for m in self.grid.maps:
            cells, weights = corners(m.spec, m.axes, m.shape, where)
            different, which = distinct(cells, m.axes, m.shape)
            values = self._gather(m, different)[which]
            features[:, column : column + len(m.spec.channels)] = interpolate(values, weights)
            column += len(m.spec.channels)
        return features

    def read_map(self, name: str, *, spatial: Sequence[slice], t: int = 0, z: int = 0) -> NDArray:
        """Return (F, y, x) or (F, z, y, x) cells of one map in the stored dtype, as `FeatureStore.read_map` says."""
        m = self._map(name)
        sizes = {**self.image.sizes, **dict(zip(m.axes.upper(), m.shape, strict=True))}
        yx = len(spatial) == 2
        asked = {
            "t": slice(t, t + 1),
            "c": slice(None),
            "z": slice(z, z + 1),
            **dict(zip("yx" if yx else "zyx", spatial, strict=True)),
        }
        bounds = {a: s.indices(sizes[a.upper()]) for a, s in asked.items() if a != "c"}
        if any(step != 1 or start >= stop for start, stop, step in bounds.values()):
            raise ValueError(
                f"expected a frame, a plane and slices inside the map {name!r} with {sizes}, found {asked}"
            )
        region = tuple(slice(None) if a == "c" else slice(*bounds[a][:2]) for a in m.axes)
        touched = [
            (range(r.start // s, (r.stop - 1) // s + 1))
            for a, r, s in zip(m.axes, region, m.shards, strict=True)
            if a != "c"
        ]
        self._require_files(m, np.stack(np.meshgrid(*touched, indexing="ij"), axis=-1).reshape(-1, len(touched)))
        values = self._read(m, region, whole=self.done)
        values = values[0] if "t" in m.axes else values  # (F, z, y, x) or (F, y, x)
        if "z" in m.axes:
            return values[:, 0] if yx else values
        return values if yx else values[:, None]

    def missing(self) -> list[str]:
        """Return the names of the shards that are not journalled, or whose file is absent or of another size."""
        entries, _ = read_journal(self.path)
        return [
            shard.name
            for shard in self.grid.shards()
            if shard.name not in entries or damaged_file(self, shard, entries[shard.name].files)
        ]

    def shard_values(self, m: MapGrid, shard: Shard) -> NDArray:
        """Return the stored features of one shard of one map, (F, y, x) or (F, z, y, x)."""
        values = self._read(m, m.region(shard), whole=True)
        return values.reshape(
            m.shape[m.axes.index("c")], *(n for a, n in zip(m.axes, values.shape, strict=True) if a in self.spec.axes)
        )

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return open_arrays(self.path, self.grid)

    def _map(self, name: str) -> MapGrid:
        for m in self.grid.maps:
            if m.spec.name == name:
                return m
        raise ValueError(f"expected one of the maps {', '.join(m.spec.name for m in self.grid.maps)}, found {name!r}")

    def _read(self, m: MapGrid, region: tuple[slice, ...], *, whole: bool) -> NDArray:
        """Return the cells of a region, NaN in shards that have no file; refuse NaN if it should be `whole`."""
        try:
            values = np.asarray(self._arrays[m.spec.name][region])
        except DAMAGE as error:
            raise self._damaged(m, region, str(error)) from error
        if whole and np.isnan(values).any():  # features are finite: these chunks are not in their shard any more
            raise self._damaged(m, region, "chunks are missing")
        return values

    def _damaged(self, m: MapGrid, region: tuple[slice, ...], reason: str) -> StoreError:
        """Return the error that names the shards of a region that cannot be read."""
        first, last = ([n // s for n, s in ends] for ends in zip(*_ends(m, region), strict=True))
        names = self.grid.shard_name(first)
        found = f"shard {names} of map {m.spec.name!r} damaged (file {m.shard_file(first)}: {reason})"
        if first != last:
            names = f"{names} to {self.grid.shard_name(last)}"
            found = (
                f"one of the shards {names} of map {m.spec.name!r} damaged ({reason}; forestbridge verify says which)"
            )
        return StoreError(f"expected intact features in {self.path}, found {found}; {REPAIR}")

    def _gather(self, m: MapGrid, cells: Mapping[str, NDArray[np.intp]]) -> NDArray[np.float32]:
        """Return the (N, F) float32 values of N cells, reading only their chunks, each once."""
        values = np.empty((len(cells["y"]), len(m.spec.channels)), np.float32)
        absent = np.zeros(len(values), bool)
        for region, rows, within in chunks_of_cells(m.axes, m.shape, m.shards, cells):
            shard = [first // s for (first, s), _ in _ends(m, region)]
            if not self._has_file(m, shard):
                absent[rows] = True
                continue
            try:
                with (self.path / m.shard_file(shard)).open("rb") as file:
                    values[rows] = read_cells(file, m, within, compress=self.compress)
            except DAMAGE as error:
                raise self._damaged(m, region, str(error)) from error
        if absent.any():
            size = {a: s for a, s in zip(m.axes, m.shards, strict=True) if a != "c"}
            shards = np.unique(np.stack([cells[a][absent] // size[a] for a in size], axis=1), axis=0)
            self._require_files(m, shards)
            names = [self.grid.shard_name(index) for index in shards.tolist()]
            raise StoreError(
                f"expected features at all points, found that {len(names)} shard(s) of {self.path} are not extracted "
                f"yet: {shorten(names)}; go on with: {resume_command(self.path, self.image)}"
            )
        return values

    def _has_file(self, m: MapGrid, shard: Sequence[int]) -> bool:
        try:
            return (self.path / m.shard_file(shard)).stat().st_size > 0  # zarr takes an empty file for none
        except FileNotFoundError:
            return False

    def _require_files(self, m: MapGrid, shards: NDArray) -> None:
        """Refuse shards at (N, axes) that were written and have no file: zarr would read them as NaN without a word."""
        gone = [self.grid.shard_name(index) for index in shards.tolist() if not self._has_file(m, index)]
        if gone and not self.done:
            entries, _ = read_journal(self.path)
            gone = [name for name in gone if name in entries]
        if gone:
            raise StoreError(
                f"expected all features that were written to {self.path}, found {len(gone)} shard(s) of map "
                f"{m.spec.name!r} without a file, or with an empty one: {shorten(gone)}; {REPAIR}"
            )


def _ends(m: MapGrid, region: tuple[slice, ...]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return ((first cell, shard size), (last cell, shard size)) for each axis besides c."""
    return [((r.start, s), (r.stop - 1, s)) for a, r, s in zip(m.axes, region, m.shards, strict=True) if a != "c"]


def open_ome_zarr(path: Path, *, allow_partial: bool = False) -> OmeZarrStore:
    """Open a store for reading; see `forestbridge.stores.open_store`."""
    root = read_document(path / "zarr.json", node="the root group of a feature store")
    attributes = root.get("attributes")
    ours = attributes.get("forestbridge") if isinstance(attributes, dict) else None
    if not isinstance(ours, dict):
        raise StoreError(
            f"expected a feature store, found that {path} is another zarr; make a store with: forestbridge extract "
            "IMAGE -o NAME"
        )
    if ours.get("format") != STORE_FORMAT:
        raise StoreError(
            f"expected store format {STORE_FORMAT}, found {ours.get('format')!r} in {path}; update forestbridge to "
            "read it"
        )
    try:
        spec = EncoderSpec.from_json(json.dumps(ours["spec"]))
        image = ImageFacts.from_document(ours["image"])
        planned = plan_grid(spec, image, core=[int(n) for n in ours["core"]])
        found = (ours["run_key"], ours["done"], ours["compress"], ours["input_sha256"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise StoreError(
            f"expected the attributes of a feature store in {path}/zarr.json, found: {error!r}; extract again with "
            "--overwrite"
        ) from error
    maps = tuple(_read_map_grid(path, m, planned, compress=bool(found[2])) for m in planned.maps)
    grid = StoreGrid(spec, image, planned.core, maps)
    if run_key(grid) != found[0]:
        raise StoreError(
            f"expected spec, image and chunks that give the run key {found[0]} of {path}, found {run_key(grid)}: its "
            "metadata was changed; restore it, or extract again with --overwrite"
        )
    statistics = ours.get("image_statistics")
    store = OmeZarrStore(
        path,
        grid,
        done=found[1] is True,
        compress=bool(found[2]),
        input_sha256=found[3],
        image_statistics=statistics if isinstance(statistics, dict) else None,
    )
    if not store.done and not allow_partial:
        missing = store.missing()
        raise StoreError(
            f"expected a store that is done, found {grid.n_shards - len(missing)} of {grid.n_shards} shards in {path}; "
            f"finish it with: {resume_command(path, image)}; or train on what is there with --allow-partial "
            "(allow_partial=True)"
        )
    return store


def is_store(path: Path) -> bool:
    """Return whether a path is a feature store of ours, damaged or not, of any format."""
    if (path / FOLDER / RUN).is_file():
        return True
    try:
        document = json.loads((path / "zarr.json").read_bytes())
        return "forestbridge" in document["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_arrays(path: Path, grid: StoreGrid) -> dict[str, Any]:
    """Open the zarr array of each map for reading."""
    import zarr
    from zarr.storage import LocalStore

    local = LocalStore(path, read_only=True)
    return {m.spec.name: zarr.open_array(local, path=m.path, mode="r") for m in grid.maps}


def damaged_file(store: OmeZarrStore, shard: Shard, files: Mapping[str, int]) -> str | None:
    """Return what is wrong with the files of a journalled shard at first sight: absent, or of another size."""
    for m in store.grid.maps:
        file = store.path / m.shard_file(shard.index)
        try:
            size = file.stat().st_size
        except FileNotFoundError:
            return f"map {m.spec.name!r}: no file {m.shard_file(shard.index)}"
        if size != files.get(m.spec.name):
            return (
                f"map {m.spec.name!r}: {size} bytes in place of {files.get(m.spec.name)} in {m.shard_file(shard.index)}"
            )
    return None


def run_key(grid: StoreGrid) -> str:
    """Return the hash of all that decides where which feature stands: no path, no pixel."""
    document = {
        "shape": grid.image.shape,
        "axes": grid.image.axes,
        "dtype": grid.image.dtype,
        "core": grid.core,
        "chunks": [(m.spec.name, m.axes, m.shape, m.shards, m.chunks) for m in grid.maps],
        "spec": json.loads(grid.spec.to_json()),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def resume_command(path: Path, image: ImageFacts) -> str:
    """Return what a user types to go on with a store."""
    if image.source == "array":
        return f"forestbridge.extract(image, encoder, {str(path)!r})"
    return shlex.join(["forestbridge", "extract", image.source, "-o", str(path), "--like", str(path)])


def shorten(names: Iterable[str], limit: int = 8) -> str:
    """Return names for a message, the first ones of many."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _read_map_grid(path: Path, m: MapGrid, grid: StoreGrid, *, compress: bool) -> MapGrid:
    """Return the geometry of a map as its array has it; only the chunks may differ from what would be chosen today."""
    file = path / m.path / "zarr.json"
    document = read_document(file, node=f"the array of map {m.spec.name!r}")
    try:
        chunks = tuple(int(n) for n in document["codecs"][0]["configuration"]["chunk_shape"])
        found = replace(m, chunks=chunks)
        expected = map_array_document(grid, found, compress=compress)
        differing = [key for key in expected if document[key] != expected[key] and key != "attributes"]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise StoreError(
            f"expected the array of map {m.spec.name!r} in {file}, found: {error!r}; extract again with --overwrite"
        ) from error
    if differing:
        shown = ", ".join(f"{key} {document[key]} in place of {expected[key]}" for key in differing)
        raise StoreError(
            f"expected the array of map {m.spec.name!r} as its store describes it, found in {file}: {shown}; extract "
            "again with --overwrite"
        )
    return found
