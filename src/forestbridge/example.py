"""Examples to try things on: an image and scribbles, as files that Fiji opens."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from forestbridge.demo import COLOURS, NAMES
from forestbridge.files import check_output, new_file
from forestbridge.image import write_labels
from forestbridge.labels import DEFAULT_COLOURS, read_scribbles
from forestbridge.package.recipe import data_file, sample_image
from forestbridge.phantom import phantom


class Example(NamedTuple):
    """An image with scribbles.

    Attributes
    ----------
    axes
        Of `image`, as tifffile names them; S are the samples of a colour.
    image
        uint8 or uint16.
    labels
        uint8, the spatial axes of the image; 0 is unlabelled.
    names, colours
        Of classes 1, 2, ...
    """

    axes: str
    image: NDArray
    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    colours: tuple[str, ...]


def _tissue() -> Example:
    """Return a section of human colon, stained by immunohistochemistry; it ships with scikit-image."""
    image = sample_image("immunohistochemistry")
    labels = read_scribbles(data_file("tissue_scribbles.png"), names=NAMES, shape=image).at_plane()
    return Example("YXS", np.moveaxis(image.plane(), 0, -1), labels, NAMES, COLOURS)


def _cells() -> Example:
    drawn = phantom((512, 512), classes=2)
    return Example("YX", drawn.image, drawn.scribbles, drawn.names, DEFAULT_COLOURS[:2])


def _stack() -> Example:
    drawn = phantom((12, 160, 192), classes=3)
    return Example("ZYX", drawn.image[0], drawn.scribbles, drawn.names, DEFAULT_COLOURS[:3])


EXAMPLES: dict[str, Callable[[], Example]] = {"tissue": _tissue, "cells": _cells, "stack": _stack}
"""A stained tissue section in colour; synthetic cells of 16 bits; a synthetic stack of 12 planes."""


def write_example(name: str, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write NAME.tif and NAME_labels.tif, as ImageJ TIFF.

    Parameters
    ----------
    name
        One of `EXAMPLES`.
    folder
        Is there already.

    Raises
    ------
    ValueError
        If there is no such example.
    OutputExistsError, ResourceError
        If a file exists, or the folder cannot be written.
    """
    if name not in EXAMPLES:
        raise ValueError(f"expected one of the examples {', '.join(EXAMPLES)}, found {name!r}; give one of these")
    image, labels = Path(folder) / f"{name}.tif", Path(folder) / f"{name}_labels.tif"
    for path in (image, labels):
        check_output(path, overwrite=overwrite)
    example = EXAMPLES[name]()
    with new_file(image, overwrite=overwrite) as temporary:
        tifffile.imwrite(temporary, example.image, imagej=True, metadata={"axes": example.axes})
    write_labels(
        labels,
        example.labels,
        classes=tuple(range(1, len(example.names) + 1)),
        names=example.names,
        colours=example.colours,
        axes=example.axes.removesuffix("S"),
        overwrite=overwrite,
    )
    return image, labels
