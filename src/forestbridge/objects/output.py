"""Units of labels in, one array or file out; memory holds one unit at a time where a file is written."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes
from forestbridge.image import Image, ResultInfo, create_result
from forestbridge.objects.segmentation import Unit, in_place, place_of

Progress = Callable[[int, int], None]
"""Called with the units done and the units in all."""

Units = Iterator[tuple[Unit, NDArray]]
"""Units with their labels, (Y, X) or (Z, Y, X)."""


def label_info(
    image: Image,
    *,
    dtype: np.dtype,
    classes: Classes | None = None,
    n_objects: int | None = None,
    provenance: Mapping[str, str] | None = None,
) -> ResultInfo:
    """Return what stands beside a label image of an image's size: of classes, or of objects."""
    axes = image.axes.replace("C", "")
    values, names, colours = classes or Classes((), (), ())
    return ResultInfo(
        axes=axes,
        shape=tuple(image.sizes[a] for a in axes),
        dtype=dtype,
        pixel_size={a: size for a, size in image.pixel_size.items() if a.upper() in axes},
        frame_interval=image.frame_interval,
        classes=values,
        names=names,
        colours=colours,
        provenance=provenance or {},
        n_objects=n_objects,
    )


def put_together(
    units: Units,
    info: ResultInfo,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | None = None,
) -> NDArray | Path:
    """Return the label image of units that cover it, or write it unit by unit and return the path.

    Raises
    ------
    OutputExistsError, ResourceError, ValueError
        As `create_result`.
    """
    if out is None:
        result = np.empty(info.shape, info.dtype)
        for unit, labels in units:
            result[place_of(unit, info.axes, info.shape)] = in_place(labels, unit, info.axes)
        return result
    with create_result(out, info, overwrite=overwrite, format=format) as writer:
        for unit, labels in units:
            writer.write(place_of(unit, info.axes, info.shape), in_place(labels, unit, info.axes))
    return Path(out)


class Spool:
    """Keeps units of labels until it is known how large their values are: in a file, or in memory without one."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file
        self._shapes: list[tuple[Unit, tuple[int, ...]]] = []
        self._arrays: list[NDArray] = []

    def put(self, unit: Unit, labels: NDArray[np.uint32]) -> None:
        """Keep a unit."""
        self._shapes.append((unit, labels.shape))
        if self._file is None:
            self._arrays.append(labels)
        else:
            self._file.write(np.ascontiguousarray(labels).reshape(-1).data)

    def units(self, dtype: np.dtype) -> Units:
        """Yield the units in the order in which they came, in another dtype."""
        if self._file is None:
            for (unit, _), labels in zip(self._shapes, self._arrays, strict=True):
                yield unit, labels.astype(dtype)
            return
        self._file.seek(0)
        for unit, shape in self._shapes:
            stored = self._file.read(4 * int(np.prod(shape, dtype=np.int64)))
            yield unit, np.frombuffer(stored, np.uint32).reshape(shape).astype(dtype)


@contextmanager
def spool(out: str | Path | None) -> Iterator[Spool]:
    """Give a `Spool`: for a result in memory, or for one that is written to `out`."""
    if out is None:
        yield Spool(None)
        return
    with tempfile.TemporaryFile(dir=Path(out).absolute().parent, prefix=".forestbridge-", suffix=".partial") as file:
        yield Spool(file)
