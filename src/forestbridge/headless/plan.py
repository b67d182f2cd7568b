"""From an export to what it writes and where: the array's axes, shape and dtype, and the path."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forestbridge.assemble import Kind
from forestbridge.encoders.features import check_image
from forestbridge.forest import PixelForest
from forestbridge.headless.export import FIVE, FORMATS, SOURCES, Export
from forestbridge.image import Image
from forestbridge.image.hdf5 import split_internal

WORKING_AXES = "tzyxc"

_FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")


class Plan(NamedTuple):
    """One export, ready to run.

    Attributes
    ----------
    path
        The file or folder.
    axes, shape, dtype
        Of the array in it.
    region
        (t, c, z, y, x) slices of the result that go into it.
    limits
        Range of the values, where it is known.
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    region: tuple[slice, ...]
    limits: tuple[float, float] | None


def plan_export(forest: PixelForest, image: Image, export: Export) -> Plan:
    """Work out what an export writes and where; no pixel is read.

    Raises
    ------
    ImageError
        If the image does not fit the project.
    ValueError
        If the region, axes or format do not fit the image, or a placeholder is not known.
    """
    assert forest.spec is not None  # of a project
    check_image(forest.spec, image)
    kind = SOURCES[export.source]
    n = {"probabilities": forest.n_classes, None: forest.n_features}.get(kind, 1)
    sizes = {**{a.lower(): length for a, length in image.sizes.items()}, "c": n}
    working = "".join(a for a in WORKING_AXES if a in "yxc" or sizes[a] > 1)
    region = _region(export, sizes, working)
    axes = export.axes or _with_channels(image.stored_axes.lower())
    if lost := [a for a, s in region.items() if s.stop - s.start > 1 and a not in axes]:
        raise ValueError(
            f"{image.source}: expected an order of axes with {', '.join(lost)}, which has more than one value, found {axes!r}; add it to "
            "--output_axis_order"
        )
    dtype = np.dtype(export.dtype or ("uint8" if kind == "labels" else "float32"))
    limits = export.export_range or _limits(kind, image)
    shape = tuple(region[a].stop - region[a].start for a in axes)
    _check_format(export, dict(zip(axes, shape, strict=True)), dtype, image)
    path = _path(export, image, region, working)
    return Plan(path, axes, shape, dtype, tuple(region[a] for a in FIVE), limits)


def _region(export: Export, sizes: Mapping[str, int], working: str) -> dict[str, slice]:
    """Return what is exported along each of t, c, z, y, x; beyond the end it is cut off, as ilastik does."""
    whole = {a: slice(0, sizes[a]) for a in FIVE}
    if export.region is None:
        return whole
    start, stop = export.region
    axes = working if len(start) == len(working) else FIVE if len(start) == len(FIVE) else ""
    if not axes or len(stop) != len(start):
        raise ValueError(
            f"expected a subregion with start and stop along {', '.join(working)} (or t, c, z, y, x), found {len(start)} and {len(stop)} "
            f'numbers; write for example --cutout_subregion "[({", ".join("0" * len(working))}), '
            f'({", ".join(str(sizes[a]) for a in working)})]"'
        )
    cut = {
        a: slice(max(0, low or 0), min(sizes[a], high or sizes[a]))
        for a, low, high in zip(axes, start, stop, strict=True)
    }
    if empty := [a for a, s in cut.items() if s.start >= s.stop]:
        raise ValueError(
            f"expected a subregion inside the image, found nothing along {', '.join(empty)}; the image has "
            f"{', '.join(f'{a}={sizes[a]}' for a in axes)}"
        )
    return {**whole, **cut}


def _with_channels(axes: str) -> str:
    return axes if "c" in axes else axes + "c"


def _limits(kind: Kind | None, image: Image) -> tuple[float, float] | None:
    if kind is not None:
        return (0.0, 1.0)
    return (0.0, 255.0) if image.dtype == np.uint8 else None


def _check_format(export: Export, sizes: Mapping[str, int], dtype: np.dtype, image: Image) -> None:
    """Refuse a format that has no place for such an array."""
    long = [a for a, n in sizes.items() if n > 1 and a not in "yx"]
    if export.format in ("tif", "tiff", "png") and [a for a in long if a != "c"]:
        raise ValueError(
            f"{image.source}: expected one plane for the format {export.format}, found {sizes}; take 'multipage tiff' or 'compressed hdf5'"
        )
    channels = sizes.get("c", 1)
    if export.format == "png" and (dtype not in (np.uint8, np.uint16) or channels > (4 if dtype == np.uint8 else 1)):
        raise ValueError(
            f"{image.source}: expected up to 4 channels of uint8, or one of uint16, for PNG, found {channels} of {dtype}; take tiff, or "
            'convert: --export_dtype uint8 --pipeline_result_drange "(0.0,1.0)" --export_drange "(0,255)"'
        )
    if export.format == "multipage tiff" and dtype.itemsize > 4:
        raise ValueError(f"{image.source}: expected up to 32 bits for TIFF, found {dtype}; take float32 or hdf5")


def _path(export: Export, image: Image, region: Mapping[str, slice], working: str) -> Path:
    """Return the path of the file: placeholders filled in, and the format's suffix in place of what follows the last dot."""
    file, inside = split_internal(image.source)
    nickname = Path(file).stem
    if inside is not None:
        nickname += f"-{inside.replace('/', '-')}"
    known: dict[str, Any] = {
        "dataset_dir": str(Path(file).absolute().parent),
        "nickname": nickname.replace("*", ""),
        "result_type": export.source,
        "roi": [tuple(region[a].start for a in working), tuple(region[a].stop for a in working)],
    }
    for a in working:
        known |= {f"{a}_start": region[a].start, f"{a}_stop": region[a].stop}

    def filled(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise ValueError(
                f"expected the placeholders {', '.join('{' + name + '}' for name in known)} in --output_filename_format, found "
                f"{found[0]}; leave it out"
            )
        return format(known[found[1]], found[2] or "")

    text = _FIELD.sub(filled, str(Path(export.filename).expanduser()))
    return Path(text).with_suffix(f".{FORMATS[export.format]}")
