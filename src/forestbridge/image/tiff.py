"""Pixels of TIFF files, read page by page and strip by strip: from a region to its array, the rest stays on disk."""

import functools
import itertools
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from forestbridge.errors import ImageError, MissingExtraError
from forestbridge.image.lazy import remember
from forestbridge.image.source import Source, cut_off, open_source, shown
from forestbridge.image.tiff_metadata import calibration

DAMAGE = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError, ArithmeticError),
    *(OSError, EOFError, SyntaxError, MemoryError, struct.error, zlib.error, tifffile.TiffFileError),
)
"""What tifffile and its decoders raise on damaged files."""

_Shape5 = tuple[int, int, int, int, int]
"""A page as (separate samples, depth, length, width, samples of one pixel)."""


@dataclass(frozen=True)
class TiffPixels:
    """One series of a TIFF file.

    Attributes
    ----------
    shape
        Axes of the series; the last ones are those of a page.
    dtype
        As in the file, with its byte order.
    files
        The file, or the files of an OME-TIFF in parts.
    page_shape
        A page as (separate samples, depth, length, width, samples of one pixel).
    page_file
        For each page, which file it lies in.
    offsets, counts
        (pages, segments) int64: where the strips or tiles of each page lie, and their bytes. Without `keyframe` one
        segment per page: its pixels, as they are.
    keyframe
        Where the description of the first page lies in the first file, which says how strips and tiles are decoded;
        None for pixels that can be mapped.
    jpeg_tables
        For each page its own JPEG tables, where it has some.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    files: tuple[Source, ...]
    page_shape: _Shape5
    page_file: NDArray[np.intp] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    keyframe: int | None
    jpeg_tables: tuple[bytes | None, ...] = ()

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region, one slice with start and stop per axis of `shape`."""
        if any(s.start >= s.stop for s in region):
            return np.zeros([s.stop - s.start for s in region], self.dtype)
        starts = [s.start for s in region]
        lengths = [s.stop - s.start for s in region]
        # Axes of length 1 carry no place: what is left of the series' axes are the page numbers, then the axes of a
        # page.
        long_page = [n for n in self.page_shape if n > 1]
        long = [i for i, n in enumerate(self.shape) if n > 1]
        page_axes, inner_axes = long[: len(long) - len(long_page)], long[len(long) - len(long_page) :]
        inside = iter(inner_axes)
        bounds: list[slice] = []
        for n in self.page_shape:
            axis = next(inside) if n > 1 else None
            bounds.append(slice(0, 1) if axis is None else slice(starts[axis], starts[axis] + lengths[axis]))
        inner_shape = tuple(s.stop - s.start for s in bounds)
        pages = list(itertools.product(*(range(starts[i], starts[i] + lengths[i]) for i in page_axes)))
        result = np.zeros((len(pages), *inner_shape), self.dtype.newbyteorder("="))
        page_counts = [self.shape[i] for i in page_axes]
        for target, place in zip(result, pages, strict=True):
            page = int(np.ravel_multi_index(place, page_counts)) if place else 0
            (self._map if self.keyframe is None else self._decode)(page, bounds, target)
        return result.reshape(lengths)

    def _map(self, page: int, bounds: list[slice], target: NDArray) -> None:
        """Copy a region of a page whose pixels lie in the file as they are."""
        file = self.files[self.page_file[page]]
        mapped = np.memmap(file.path, np.uint8, mode="r")  # unmapped, with its handle, when this function returns
        pixels = np.ndarray(self.page_shape, self.dtype, buffer=mapped.data, offset=int(self.offsets[page, 0]))
        target[...] = pixels[tuple(bounds)]

    def _decode(self, page: int, bounds: list[slice], target: NDArray) -> None:
        """Copy a region of a page from its strips or tiles."""
        assert self.keyframe is not None
        file = self.files[self.page_file[page]]
        try:
            decode, segment_shape = _decoder(self.files[0], self.keyframe)
        except DAMAGE as error:
            raise ImageError(
                f"{self.files[0].name}: expected strips or tiles that can be decoded, found {error}; save the image "
                "again"
            ) from error
        grid = [math.ceil(n / s) for n, s in zip(self.page_shape[:4], segment_shape, strict=True)]
        touched = [range(b.start // s, (b.stop - 1) // s + 1) for b, s in zip(bounds, segment_shape)]
        with Path(file.path).open("rb") as handle:
            for cell in itertools.product(*touched):
                index = int(np.ravel_multi_index(cell, grid))
                segment = remember(
                    (file, self.keyframe, page, index),
                    functools.partial(self._segment, handle, decode, page, index, file.name),
                )
                if not segment.size:
                    continue  # a tile that the writer left out: zeros
                origin = [c * s for c, s in zip(cell, segment_shape)]
                low = [max(b.start, o) for b, o in zip(bounds, origin)]
                high = [min(b.stop, o + n) for b, o, n in zip(bounds, origin, _segment_size(segment))]
                to = tuple(slice(a - b.start, z - b.start) for a, z, b in zip(low, high, bounds))
                at = tuple(slice(a - o, z - o) for a, z, o in zip(low, high, origin))
                target[to] = segment[at[1:]][
                    ..., bounds[4]
                ]  # (depth, length, width, samples); separate samples are cells

    def _segment(self, handle: Any, decode: Callable[..., Any], page: int, index: int, name: str) -> NDArray:
        """Return a decoded strip or tile as (depth, length, width, samples), of no size if it is not in the file."""
        count = int(self.counts[page, index])
        if count == 0:
            return np.empty(0, self.dtype)
        handle.seek(int(self.offsets[page, index]))
        encoded = handle.read(count)
        tables = {"jpegtables": self.jpeg_tables[page]} if self.jpeg_tables else {}
        try:
            segment, *_ = decode(encoded, index, **tables)
        except ImportError as error:
            raise MissingExtraError(f"{name}: reading TIFF with this compression", "formats") from error
        except DAMAGE as error:
            raise ImageError(
                f"{name}: expected compressed pixels in strip or tile {index} of page {page}, found damaged ones "
                f"({error}); the file is cut off or damaged, copy or export it again"
            ) from error
        return np.asarray(segment, self.dtype.newbyteorder("="))


def _segment_size(segment: NDArray) -> tuple[int, int, int, int]:
    """Return (1, depth, length, width) of a decoded segment."""
    return 1, *segment.shape[:3]


@functools.lru_cache(maxsize=32)
def _decoder(file: Source, keyframe: int) -> tuple[Callable[..., Any], tuple[int, int, int, int]]:
    """Return the function that decodes segments, and their shape (separate samples, depth, length, width)."""
    with tifffile.TiffFile(file.path) as tif:
        tif.filehandle.seek(keyframe)
        page = tifffile.TiffPage(tif, index=0)
        if page.is_tiled:
            return page.decode, (1, page.tiledepth, page.tilelength, page.tilewidth)
        return page.decode, (1, 1, page.rowsperstrip, page.imagewidth)


def series_pixels(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, source: Source) -> TiffPixels:
    """Return the pixels of an open file's series, after a look at where each page lies.

    Raises
    ------
    ImageError
        If pages are missing, the file is shorter than they need, or its layout is not known.
    MissingExtraError
        If its compression needs a package that is not installed.
    """
    page = series.keyframe
    shape = series.get_shape(squeeze=True)
    if page.dtype is None or series.dtype is None:
        raise ImageError(
            f"{source.name}: expected integer or float pixels, found {page.bitspersample}-bit ones of sample format "
            f"{page.sampleformat}; convert the image to 8, 16 or 32 bit"
        )
    pages = [p for p in series if p is not None] if series.dataoffset is None else [page]
    n_pages = math.prod(shape) // max(1, math.prod(page.shape))
    long_page = [n for n in page.shaped if n > 1]
    if series.transform is not None or [n for n in shape if n > 1][-len(long_page) or 99 :] != long_page:
        raise ImageError(
            f"{source.name}: expected pages that make up the last axes of the image {shape}, found pages of "
            f"{page.shape}; save it as plain or OME-TIFF"
        )
    if series.dataoffset is None and len(pages) != n_pages:
        raise ImageError(
            f"{source.name}: expected {n_pages} planes of an image {shape}, found {len(pages)}: the file is cut off, "
            "or other files of the image are not beside it; copy or export it again"
        )
    _check_compression(page, source.name)
    paths = list(dict.fromkeys(_path_of(p) for p in [page, *pages]))
    mapped = page.is_final and all(p.is_final and p.shaped == page.shaped for p in pages)
    if series.dataoffset is not None:
        starts = series.dataoffset + np.arange(n_pages, dtype=np.int64)[:, None] * page.nbytes
    else:
        starts = np.array([p.dataoffsets[:1] if mapped else p.dataoffsets for p in pages], np.int64)
    tables = tuple(p.jpegtables for p in pages)
    result = TiffPixels(
        shape=shape,
        dtype=page.dtype.newbyteorder(page.parent.byteorder),
        files=tuple(source if Path(p).samefile(source.path) else open_source(p) for p in paths),
        page_shape=page.shaped,
        page_file=np.zeros(n_pages, np.intp)
        if len(paths) == 1
        else np.array([paths.index(_path_of(p)) for p in pages]),
        offsets=starts,
        counts=np.full_like(starts, page.nbytes) if mapped else np.array([p.databytecounts for p in pages], np.int64),
        keyframe=None if mapped else page.offset,
        jpeg_tables=tables if any(tables) and not mapped else (),
    )
    _check_complete(result)
    return result


def _path_of(page: Any) -> str:
    handle = page.parent.filehandle
    return str(Path(handle.dirname, handle.name))


def _check_complete(pixels: TiffPixels) -> None:
    """Refuse a file that ends before its pixels do."""
    ends = np.where(pixels.counts > 0, pixels.offsets + pixels.counts, 0).max(axis=1)  # (pages,)
    for number, file in enumerate(pixels.files):
        mine = ends[pixels.page_file == number]
        if mine.size and mine.max() > file.size:
            raise cut_off(
                file.name,
                f"{mine.size} planes that end at byte {mine.max()}",
                f"{file.size} bytes, {(mine <= file.size).sum()} whole planes",
            )


def _check_compression(page: tifffile.TiffPage, name: str) -> None:
    """Refuse a compression that cannot be decoded here, and say which package could."""
    for codes, code in ((tifffile.TIFF.DECOMPRESSORS, page.compression), (tifffile.TIFF.UNPREDICTORS, page.predictor)):
        try:
            codes[code]
        except KeyError as error:
            label = getattr(code, "name", str(code))
            if "imagecodecs" in str(error):
                raise MissingExtraError(f"{name}: reading TIFF with {label} compression", "formats") from error
            raise ImageError(
                f"{name}: expected a TIFF compression in use, found {label}; save it uncompressed or with zlib"
            ) from error


def open_tiff(source: Source, scene: int | None) -> tuple[TiffPixels, str, bool, dict[str, Any]]:
    """Return what a TIFF file holds, and close it again.

    Parameters
    ----------
    source
        The file.
    scene
        Which of its images; None if it has one only.

    Returns
    -------
    pixels
        Not read yet.
    axes
        One letter per axis of the pixels, as the file says: I, Q and others are not known.
    alpha
        Whether the last sample is an alpha channel.
    calibration
        `pixel_size`, `frame_interval` and `channel_names` as in `Image`.

    Raises
    ------
    ImageError
        If the file is damaged or cut off, holds several images and no scene is given, or colours by number.
    MissingExtraError
        If its compression needs a package that is not installed.
    """
    try:
        with tifffile.TiffFile(source.path) as tif:
            if not len(tif.pages):
                raise cut_off(source.name, "at least one page", "none")
            _check_declared(tif, source)
            series = _chosen_series(tif, scene, source.name)
            pixels = series_pixels(tif, series, source)
            page = series.keyframe
            # ImageJ writes grey values with a lookup table as a palette image: those are intensities.
            if page.photometric == tifffile.PHOTOMETRIC.PALETTE and tif.imagej_metadata is None:
                raise ImageError(
                    f"{source.name}: expected intensities, found colours by number (a palette image); convert it to RGB"
                )
            alpha = (
                bool(page.extrasamples)
                and int(page.extrasamples[-1]) in (1, 2)
                and "S" in series.get_axes(squeeze=True)
            )
            found = calibration(tif, series, scene or 0)
            return pixels, series.get_axes(squeeze=True), alpha, found
    except DAMAGE as error:
        raise ImageError(
            f"{source.name}: expected a TIFF file, found one that cannot be read ({shown(str(error))}); "
            "it is cut off or damaged, copy or export it again"
        ) from error


def _check_declared(tif: tifffile.TiffFile, source: Source) -> None:
    """Refuse a file with fewer pages than it says; tifffile goes on with those that are there.

    The chain of page descriptions must end with a zero, and ImageJ writes the number of images into the first
    description.
    """
    metadata = tif.imagej_metadata or {}
    page = tif.pages.first
    declared = int(metadata.get("images", 1))
    missing = declared > 1 and tif.series[0].kind != "imagej"
    if page.is_contiguous and declared > 1 and missing:
        found = (source.size - page.dataoffsets[0]) // max(page.nbytes, 1)
        raise cut_off(
            source.name, f"{declared} images of {page.nbytes} bytes, as ImageJ wrote", f"{max(found, 0)} whole ones"
        )
    if tif.is_ndpi:  # its offsets wrap at 4 GB
        return
    place = tif.pages.next_page_offset
    handle = tif.filehandle
    if place is None or place + tif.tiff.offsetsize > source.size:
        raise cut_off(
            source.name, f"a description of page {len(tif.pages)}", f"the end of the file at byte {source.size}"
        )
    handle.seek(place)
    following = struct.unpack(tif.tiff.offsetformat, handle.read(tif.tiff.offsetsize))[0]
    if following >= source.size:
        raise cut_off(
            source.name,
            f"page {len(tif.pages) + 1} at byte {following}",
            f"{len(tif.pages)} pages and {source.size} bytes",
        )


def _chosen_series(tif: tifffile.TiffFile, scene: int | None, name: str) -> tifffile.TiffPageSeries:
    """Return the series of a scene."""
    series = tif.series
    if scene is None and len(series) == 1:
        return series[0]
    if scene is None or not 0 <= scene < len(series):
        listed = ", ".join(f"{i}: {s.name or s.kind} {'x'.join(map(str, s.shape))}" for i, s in enumerate(series[:8]))
        wanted = "the number of one image" if scene is None else f"a scene from 0 to {len(series) - 1}"
        raise ImageError(
            f"{name}: expected {wanted}, found {len(series)} images in the file ({listed}); choose with --scene 0 "
            "(scene=0)"
        )
    return series[scene]
