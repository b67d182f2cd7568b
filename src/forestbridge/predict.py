"""An image or a store, and a forest, to class probabilities: in memory, or tile by tile into a file.

Each thread reads a tile, computes the features that the forest looks at, classifies them, and takes the next tile; meanwhile the
calling thread puts the results together. The features of a whole image are never in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge import engine
from forestbridge.assemble import KINDS, Classes, Kind, Piece, answer_of, assemble
from forestbridge.devices import find_gpu
from forestbridge.encoders.base import BatchEncoder, Encoder, encoder_from_spec
from forestbridge.encoders.features import (
    TileOfImage,
    as_source,
    check_image,
    encode_tile,
    encode_tiles,
    spatial_shape,
    strips_of,
    tiles_of,
)
from forestbridge.encoders.filters import FilterBank
from forestbridge.engine import MapPart
from forestbridge.errors import ForestError, StoreError
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.image import Image, ImageShape
from forestbridge.prune import drop_unused_filters
from forestbridge.spec import EncoderSpec, MapSpec, require_same_spec
from forestbridge.stores import FEATUREFOREST, FeatureStore, featureforest_settings
from forestbridge.threads import ahead, check_threads, in_order
from forestbridge.tiles import cell_window

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles in all."""

Classify = Callable[[Sequence[MapPart], tuple[slice, ...]], NDArray[np.float32]]
"""From the parts of maps around a core, and the core, to its (K, ...) probabilities."""

STRIP = 2**15
"""Pixels of a piece of a store that is read in large blocks; each thread holds the features of one."""

SQUARE = 512
"""Side of a chunk of a result in OME-Zarr."""


def predict(
    source: Image | NDArray | FeatureStore,
    forest: PixelForest,
    *,
    encoder: Encoder | None = None,
    kind: Kind = "probabilities",
    out: str | Path | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    format: str | None = None,
) -> Any:
    """Classify every pixel of an image.

    Parameters
    ----------
    source
        An image, an array (Y, X), (C, Y, X) or (C, Z, Y, X), or a feature store of the forest's encoder.
    forest
        The forest.
    encoder
        The forest's, where it is open already; by default it is made from the forest's spec.
    kind
        "probabilities", "labels" (the painted value of the most probable class) or "uncertainty" (1 minus the distance of the two
        largest probabilities).
    out
        File to write tile by tile; the format follows the suffix (.tif .ome.tif .ome.zarr .h5 .npy .nrrd .png). Without it the
        result is returned.
    overwrite
        Whether `out` may replace a file.
    jobs
        Tiles that are worked on at the same time; all cores by default. The result does not depend on it.
    device
        "cpu"; "cuda" or "cuda:1" for a GPU, which needs torch; "auto": a GPU where there is one, and the log says which it became. The
        forest answers the same to the bit; filters differ in the last bit of a few features in a million.
    progress
        Told after each tile.
    format
        Where the suffix leaves a choice: "ome-zarr-0.4" in place of 0.5, for ilastik.

    Returns
    -------
    result
        Probabilities (K, Y, X) float32, for stacks and series (T, K, Z, Y, X) without the axes that the image does not have;
        labels and uncertainty without K. With `out` its path.

    Raises
    ------
    ImageError, StoreError, ForestError, OutputExistsError
        If the image, store and forest do not fit together, the store is not done, or the output exists.
    ResourceError
        If the device is not there, or torch is not installed.
    ValueError
        If the kind or the device is not known, or `jobs` is below 1.
    SpecMismatchError
        If the encoder is another than the forest's.
    """
    if forest.spec is None:
        raise ForestError(
            "expected a forest with the spec of its features, found one without; use forestbridge.engine.predict on your own features"
        )
    check_threads(jobs)
    if kind not in KINDS:
        raise ValueError(f"expected one of the results {', '.join(KINDS)}, found {kind!r}")
    if encoder is not None:
        remedy = "give the forest's encoder, or leave it out"
        require_same_spec(forest.spec, encoder.spec, expected_by="the forest", found_in="the encoder", remedy=remedy)
    if out is not None:
        check_output(out, overwrite=overwrite)
    source = as_source(source)
    run = _Run(forest, kind, jobs, progress, find_gpu(device))
    if isinstance(source, Image):
        image = source
        check_image(forest.spec, image)
        pieces = _predict_image(image, encoder or _encoder_on(forest.spec, device), run)
    else:
        image = source.image
        _check_store(source, forest.spec)
        pieces = _predict_store(source, run)
    classes = Classes(forest.classes, forest.names, forest.colours)
    provenance = {"encoder": str(forest.spec), "image": image.source}
    if run.device is not None:
        provenance["device"] = str(run.device)
    return assemble(
        pieces, image, classes, kind=kind, out=out, overwrite=overwrite, provenance=provenance, format=format
    )


def predict_pieces(
    image: Image,
    forest: PixelForest,
    *,
    kind: Kind,
    region: tuple[slice, ...],
    jobs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Iterator[Piece]:
    """Yield the pieces of an image that have a pixel in a region, for callers that put them together themselves.

    Parameters
    ----------
    image, forest, kind, jobs, device, progress
        As for `predict`.
    region
        (t, z, y, x) slices with start and stop. The values do not depend on it.

    Raises
    ------
    ImageError, ResourceError
        As `predict`.
    """
    assert forest.spec is not None
    check_image(forest.spec, image)
    run = _Run(forest, kind, jobs, progress, find_gpu(device), region)
    yield from _predict_image(image, _encoder_on(forest.spec, device), run)


def _encoder_on(spec: EncoderSpec, device: str) -> Encoder:
    """Return the encoder of a spec; networks run on the device, and the filter bank where `predict` chooses."""
    return (
        encoder_from_spec(spec) if spec.name == "filters" or device == "cpu" else encoder_from_spec(spec, device=device)
    )


def meets(place: TileOfImage, region: tuple[slice, ...]) -> bool:
    """Whether a tile has a pixel in a region (t, z, y, x)."""
    core = place.tile.core if len(place.tile.core) == 3 else (slice(place.z, (place.z or 0) + 1), *place.tile.core)
    tile = (slice(place.t, place.t + 1), *core)
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(tile, region, strict=True))


class _Run(NamedTuple):
    """What is asked of a prediction."""

    forest: PixelForest
    kind: Kind
    jobs: int | None
    progress: Progress | None
    device: "torch.device | None"
    region: tuple[slice, ...] | None = None

    def wanted(self, tiles: list[TileOfImage]) -> list[TileOfImage]:
        """Return the tiles that have a pixel in the region; all without one."""
        return tiles if self.region is None else [place for place in tiles if meets(place, self.region)]

    def piece(self, place: TileOfImage, probabilities: NDArray[np.float32]) -> Piece:
        """Return what is kept of a tile's probabilities."""
        answer = answer_of(probabilities, self.kind, self.forest.classes)
        return Piece(place.t, place.z, place.tile.core, answer)

    def told(self, pieces: Iterator[Piece], total: int) -> Iterator[Piece]:
        """Yield pieces, and tell the progress when the next one is asked for: then the last one is written."""
        for done, piece in enumerate(pieces, 1):
            yield piece
            if self.progress:
                self.progress(done, total)

    def classifier(self) -> Classify:
        """Return what classifies on the device."""
        if self.device is None:
            return partial(_classify, self.forest)
        from forestbridge.predict_torch import DeviceForest

        return DeviceForest(self.forest, self.device).predict_maps


def _predict_image(image: Image, encoder: Encoder, run: _Run) -> Iterator[Piece]:
    forest = run.forest
    if isinstance(encoder, FilterBank):
        encoder, forest = drop_unused_filters(encoder, forest)
        if run.device is not None:
            yield from _filter_on(run.device, image, encoder, forest, run)
            return
    if run.device is not None or not all(m.is_plain for m in encoder.spec.maps):
        yield from _predict_bands(image, encoder, run)
        return

    network = isinstance(encoder, BatchEncoder)  # one tile at a time, of many features

    def work(place: TileOfImage) -> Piece:
        maps = zip(encode_tile(image, encoder, place), encoder.spec.dtypes, strict=True)
        stored = [m.astype(d, copy=False) for m, d in maps]  # as the forest saw them in training
        planes = stored[0] if len(stored) == 1 else np.concatenate(stored)
        return run.piece(place, engine.predict(forest, planes, threads=run.jobs if network else 1))

    tiles = run.wanted(_by_squares(tiles_of(encoder.spec, image)))
    yield from run.told(in_order(work, tiles, min(run.jobs or 2, 2) if network else run.jobs), len(tiles))


def _filter_on(
    device: "torch.device", image: Image, bank: FilterBank, forest: PixelForest, run: _Run
) -> Iterator[Piece]:
    """Predict with filters that are computed on a device."""
    from forestbridge.predict_torch import CORE, READERS, DeviceForest

    on_device = DeviceForest(forest, device)

    def work(place: TileOfImage) -> Piece:
        inside, core = place.tile.inside(spatial_shape(bank.spec, image))
        pixels = image.region(inside, t=place.t, z=place.z)
        return run.piece(place, on_device.predict_filters(bank, pixels, core))

    tiles = run.wanted(tiles_of(bank.spec, image, core=CORE[bank.spec.axes]))
    yield from run.told(in_order(work, tiles, run.jobs or READERS), len(tiles))


def _by_squares(tiles: list[TileOfImage]) -> list[TileOfImage]:
    """Order tiles so that squares of `SQUARE` pixels become complete one after the other, as chunked results want them."""

    def square(place: TileOfImage) -> tuple[int, ...]:
        *z, y, x = (pixels.start for pixels in place.tile.core)
        return (place.t, place.z or 0, *z, y // SQUARE, x // SQUARE, y, x)

    return sorted(tiles, key=square)


class _Band(NamedTuple):
    """A row of tiles: its pixels, and for each map its (F, rows, columns) or (F, z, rows, columns) cells in the stored dtype."""

    core: tuple[slice, ...]
    maps: tuple[NDArray, ...]


def _predict_bands(image: Image, encoder: Encoder, run: _Run) -> Iterator[Piece]:
    """Predict from maps with a stride. A pixel at the end of a tile lies between cells of two tiles: three rows of tiles are kept."""
    tiles, classify = tiles_of(encoder.spec, image), run.classifier()
    n_wanted = len(run.wanted(tiles))

    def pieces() -> Iterator[Piece]:
        for _, slab in groupby(tiles, key=lambda place: (place.t, place.z, place.tile.core[:-2])):
            rows = [list(row) for _, row in groupby(slab, key=lambda place: place.tile.core[:-1])]
            bands = ahead(_encode_band(image, encoder, row, run.jobs) for row in rows)
            for row, neighbours in zip(rows, _windows(encoder.spec, bands), strict=True):
                work = partial(_classify_in_bands, image, encoder.spec, run, classify, neighbours)
                yield from in_order(work, run.wanted(row), run.jobs)

    yield from run.told(pieces(), n_wanted)


def _encode_band(image: Image, encoder: Encoder, row: Sequence[TileOfImage], jobs: int | None) -> _Band:
    maps = encode_tiles(image, encoder, row, jobs)  # per tile, one array per map
    return _Band(row[0].tile.core, tuple(np.concatenate(m, axis=-1) for m in zip(*maps, strict=True)))


def _windows(spec: EncoderSpec, bands: Iterator[_Band]) -> Iterator[list[_Band]]:
    """Yield each band, for maps with a stride with the one above and the one below it, as far as there are any."""
    if all(m.is_plain for m in spec.maps):
        yield from ([band] for band in bands)
        return
    window = [next(bands)]
    for band in bands:
        window.append(band)
        yield window[:]
        window = window[-2:]
    yield window


def _classify_in_bands(
    image: Image,
    spec: EncoderSpec,
    run: _Run,
    classify: Classify,
    neighbours: Sequence[_Band],
    place: TileOfImage,
) -> Piece:
    """Classify a tile from the cells of its row of tiles and of the rows beside it, as far as its pixels lie between them."""
    top, core = neighbours[0].core[-2].start, place.tile.core
    parts = []
    for n, m in enumerate(spec.maps):
        _, columns = _cells_around(m, image, core)
        cells = np.concatenate([band.maps[n][..., columns] for band in neighbours], axis=-2)
        parts.append(_part(m, cells, image, (m.n_cells(top), columns.start)))
    return run.piece(place, classify(parts, core))


def _predict_store(store: FeatureStore, run: _Run) -> Iterator[Piece]:
    classify = run.classifier()

    def work(place: TileOfImage) -> Piece:
        parts = [_read_part(store, m, place) for m in store.spec.maps]
        return run.piece(place, classify(parts, place.tile.core))

    tiles = strips_of(store, most=STRIP) or _by_squares(tiles_of(store.spec, store.image))
    yield from run.told(in_order(work, tiles, run.jobs), len(tiles))


def _cells_around(m: MapSpec, image: ImageShape, core: tuple[slice, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of cells that the pixels of a core lie between."""
    rows, columns = (
        cell_window(pixels, m.stride, m.offset, m.n_cells(image.sizes[axis]))
        for pixels, axis in zip(core[-2:], "YX", strict=True)
    )
    return rows, columns


def _read_part(store: FeatureStore, m: MapSpec, piece: TileOfImage) -> MapPart:
    """Read the cells that the pixels of a tile lie between."""
    core = piece.tile.core
    rows, columns = _cells_around(m, store.image, core)
    cells = store.read_map(m.name, t=piece.t, z=piece.z or 0, spatial=(*core[:-2], rows, columns))
    return _part(m, cells, store.image, (rows.start, columns.start))


def _part(m: MapSpec, cells: NDArray, image: ImageShape, first: tuple[int, int]) -> MapPart:
    """Return a part of a map, (F, rows, columns) or (F, z, rows, columns), with its place in the image."""
    size = (m.n_cells(image.sizes["Y"]), m.n_cells(image.sizes["X"]))
    return MapPart(cells, (m.stride, m.stride), (m.offset, m.offset), size, first)


def _classify(forest: PixelForest, parts: Sequence[MapPart], core: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return the (K, y, x) or (K, z, y, x) probabilities of a core."""
    engine.require_finite(parts, threads=1)
    *planes, y, x = core
    result = np.empty((forest.n_classes, y.stop - y.start, x.stop - x.start), np.float32)
    if not planes:
        engine.predict_block(forest, parts, (y, x), result)
        return result
    stack = []
    for z in range(planes[0].stop - planes[0].start):
        engine.predict_block(forest, [p._replace(cells=p.cells[:, z]) for p in parts], (y, x), result)
        stack.append(result.copy())
    return np.stack(stack, axis=1)


def _remedy(spec: EncoderSpec) -> str:
    if spec.name != FEATUREFOREST:
        return "extract the features again with the forest's encoder, or train on this store"
    return f"extract the features again with {featureforest_settings(spec)}, or train on this store"


def _check_store(store: FeatureStore, spec: EncoderSpec) -> None:
    """Refuse a store of another encoder, or one without all features."""
    found, remedy = f"store {store.path}", _remedy(spec)
    require_same_spec(spec, store.spec, expected_by="the forest", found_in=found, remedy=remedy)
    if not store.done and (missing := store.missing()):
        raise StoreError(
            f"expected the features of the whole image in {store.path}, found {len(missing)} shards missing, the first "
            f"{missing[0]}; run extract again, it computes the rest"
        )
