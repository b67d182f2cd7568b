"""Results to files: labels and probabilities, block by block or at once; the format follows the suffix."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import OutputExistsError, ResourceError
from forestbridge.files import check_output, new_file
from forestbridge.image.hdf5_result import create_hdf5
from forestbridge.image.mapped_results import check_space, create_imagej_tiff, create_npy, create_nrrd, create_ome_tiff
from forestbridge.image.png_result import create_png
from forestbridge.image.result_info import CheckedWriter, ResultInfo, ResultWriter, Target, label_dtype
from forestbridge.image.source import shown
from forestbridge.image.zarr_result import create_ome_zarr, create_ome_zarr_04, new_folder

__all__ = ["ResultInfo", "ResultWriter", "create_result", "label_dtype", "write_labels", "write_probabilities"]

FORMATS = {
    "ome-tiff": (".ome.tif", ".ome.tiff"),
    "imagej-tiff": (".tif", ".tiff"),
    "ome-zarr-0.5": (".ome.zarr",),
    "ome-zarr-0.4": (".ome.zarr",),
    "hdf5": (".h5", ".hdf5"),
    "npy": (".npy",),
    "nrrd": (".nrrd",),
    "png": (".png",),
}
"""Suffixes of each format of results; a suffix means the first format that has it."""

SUFFIXES = tuple(dict.fromkeys(suffix for suffixes in FORMATS.values() for suffix in suffixes))
"""Suffixes of results; the longest that fits counts."""


@contextmanager
def create_result(
    path: str | Path, info: ResultInfo, *, overwrite: bool = False, format: str | None = None
) -> Iterator[ResultWriter]:
    """Make a result that is written block by block in bounded memory; it appears under its name when it is complete.

    Parameters
    ----------
    path
        .tif or .tiff: ImageJ TIFF. .ome.tif, .ome.zarr (0.5), .h5 (as ilastik writes it), .npy, .nrrd. .png: one plane of labels up
        to 255.
    info
        What stands beside the pixels.
    overwrite
        Whether an existing result may be replaced.
    format
        One of `FORMATS`, where the suffix leaves a choice: "ome-zarr-0.4" for .ome.zarr, which ilastik reads.

    Yields
    ------
    writer
        Takes blocks in the axes of `info`; every pixel must be written once.

    Raises
    ------
    OutputExistsError
        If the path exists and `overwrite` is False.
    ResourceError
        If the folder is missing or not writable, or the disk is full.
    ValueError
        If the format is not known or has no place for such pixels, or if pixels are missing at the end.
    """
    path = check_output(path, overwrite=overwrite)
    chosen = result_format(path, format)
    if path.is_dir() and not chosen.startswith("ome-zarr"):
        raise OutputExistsError(
            f"expected a file to overwrite, found that {shown(path)} is a folder; give another name"
        )
    with ExitStack() as stack:
        stack.enter_context(_full_disk(path))
        if chosen.startswith("ome-zarr"):
            temporary = stack.enter_context(new_folder(path, overwrite=overwrite))
        else:
            check_space(path, info)
            temporary = stack.enter_context(new_file(path, overwrite=overwrite))
        target = _create(temporary, chosen, info)
        writer = CheckedWriter(info, target)
        yield writer
        writer.check_complete()
        target.finish()


def result_suffix(path: str | Path) -> str:
    """Return the suffix that decides the format.

    Raises
    ------
    ValueError
        If no format has it.
    """
    name = Path(path).name.lower()
    found = [s for s in SUFFIXES if name.endswith(s) and len(name) > len(s)]
    if not found:
        raise ValueError(
            f"expected a result named with one of {', '.join(SUFFIXES)}, found {shown(path)}; add a suffix"
        )
    return max(found, key=len)


def result_format(path: str | Path, format: str | None = None) -> str:
    """Return the format of a result: the one that was asked for, or the one that the suffix means.

    Raises
    ------
    ValueError
        If there is no such format, or the name has another one's suffix.
    """
    suffix = result_suffix(path)
    if format is None:
        return next(name for name, suffixes in FORMATS.items() if suffix in suffixes)
    if format not in FORMATS:
        raise ValueError(f"expected one of the formats {', '.join(FORMATS)}, found {format!r}; choose one of these")
    if suffix not in FORMATS[format]:
        raise ValueError(
            f"expected a result named with {' or '.join(FORMATS[format])} for the format {format}, found {shown(path)}; give another name "
            "or format"
        )
    return format


def write_labels(
    path: str | Path,
    labels: NDArray,
    *,
    classes: tuple[int, ...],
    names: tuple[str, ...],
    colours: tuple[str, ...],
    axes: str | None = None,
    pixel_size: Mapping[str, float] | None = None,
    frame_interval: float | None = None,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write labels at once, in the smallest unsigned dtype that holds the largest class.

    Parameters
    ----------
    path
        As in `create_result`.
    labels
        (Y, X) integers, or with the axes named by `axes`; 0 and the values of `classes`.
    classes, names, colours, pixel_size, frame_interval, provenance
        As in `ResultInfo`.
    axes
        A subset of "TZYX" in this order; needed for more than two dimensions.

    Returns
    -------
    path
        The file.

    Raises
    ------
    OutputExistsError, ResourceError, ValueError
        As `create_result`; also if a label is no class.
    """
    strange = sorted(set(np.unique(labels).tolist()) - {0, *classes})
    if strange:
        raise ValueError(f"expected labels 0 and {', '.join(map(str, classes))}, found {strange[:10]}")
    shape = np.shape(labels)
    info = ResultInfo(
        axes=_axes_of(shape, axes, {2: "YX"}),
        shape=shape,
        dtype=label_dtype(classes),
        pixel_size=pixel_size or {},
        frame_interval=frame_interval,
        classes=classes,
        names=names,
        colours=colours,
        provenance=provenance or {},
    )
    return _write_whole(path, labels, info, overwrite=overwrite)


def write_probabilities(
    path: str | Path,
    probabilities: NDArray,
    *,
    classes: tuple[int, ...],
    names: tuple[str, ...],
    colours: tuple[str, ...],
    axes: str | None = None,
    pixel_size: Mapping[str, float] | None = None,
    frame_interval: float | None = None,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write class probabilities at once, as float32.

    Parameters
    ----------
    path
        As in `create_result`.
    probabilities
        (K, Y, X) with one class per `classes`, or with the axes named by `axes`.
    classes, names, colours, pixel_size, frame_interval, provenance
        As in `ResultInfo`.
    axes
        A subset of "TCZYX" in this order, C being the classes; needed for more than three dimensions.

    Returns
    -------
    path
        The file.

    Raises
    ------
    OutputExistsError, ResourceError, ValueError
        As `create_result`.
    """
    shape = np.shape(probabilities)
    info = ResultInfo(
        axes=_axes_of(shape, axes, {3: "CYX"}),
        shape=shape,
        dtype=np.dtype(np.float32),
        pixel_size=pixel_size or {},
        frame_interval=frame_interval,
        classes=classes,
        names=names,
        colours=colours,
        provenance=provenance or {},
    )
    return _write_whole(path, probabilities, info, overwrite=overwrite)


def _axes_of(shape: tuple[int, ...], axes: str | None, known: Mapping[int, str]) -> str:
    """Return the axes that were named, or those that the number of dimensions leaves no doubt about."""
    if axes is None and len(shape) not in known:
        raise ValueError(f"expected axes for an array of shape {shape}, found none; name them, for example axes='TZYX'")
    return axes if axes is not None else known[len(shape)]


def _write_whole(path: str | Path, array: NDArray, info: ResultInfo, *, overwrite: bool) -> Path:
    with create_result(path, info, overwrite=overwrite) as writer:
        writer.write(tuple(slice(0, n) for n in info.shape), array)
    return Path(path)


def _create(path: Path, format: str, info: ResultInfo) -> Target:
    """Make an empty result of a format."""
    match format:
        case "ome-tiff":
            return create_ome_tiff(path, info)
        case "imagej-tiff":
            return create_imagej_tiff(path, info)
        case "npy":
            return create_npy(path, info)
        case "nrrd":
            return create_nrrd(path, info)
        case "png":
            return create_png(path, info)
        case "hdf5":
            return create_hdf5(path, info)
        case "ome-zarr-0.4":
            return create_ome_zarr_04(path, info)
        case _:
            return create_ome_zarr(path, info)


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Turn the system's error for a full disk into ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ResourceError(
            f"expected room on the disk for {shown(path)}, found it full ({error.strerror}); make room or write "
            "elsewhere"
        ) from error
