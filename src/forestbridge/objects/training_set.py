"""Training sets with dense masks, as Cellpose and VLabApp keep them: a folder of NAME.tif and NAME_masks.tif in, scribbles out.

A mask gives every object a number; a pixel classifier needs a class for each pixel. As a dense mask has millions of pixels, and
neighbours tell the same, so many of each class are drawn at random.
"""

import logging
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from forestbridge.errors import LabelError
from forestbridge.image import Image, base_name, is_named_like_image
from forestbridge.image.source import shown
from forestbridge.labels import DEFAULT_COLOURS, Scribbles
from forestbridge.objects.labelled import Source, open_labelled, read_plane

log = logging.getLogger(__name__)

Masks = Literal["foreground", "border"]
"""What becomes of objects: "foreground", one class; "border", one class for the inside and one for the rim, so that touching objects
come apart."""

NAMES: dict[Masks, tuple[str, ...]] = {
    "foreground": ("background", "object"),
    "border": ("background", "object", "border"),
}
"""Names of the classes 1, 2, …"""

MAX_PIXELS = 5000
"""Pixels of each class that are drawn from each image."""

SUFFIX = "_masks"


class TrainingPair(NamedTuple):
    """An image and its scribbles."""

    image: Path
    scribbles: Scribbles


def read_training_set(
    folder: str | Path,
    *,
    masks: Masks = "foreground",
    suffix: str = SUFFIX,
    max_pixels: int = MAX_PIXELS,
    seed: int = 0,
    axes: str | None = None,
) -> list[TrainingPair]:
    """Read a folder of images with dense masks.

    Parameters
    ----------
    folder
        With NAME.tif and NAME_masks.tif, in any format that `read_image` reads; images without masks are left out, and told.
    masks
        See `Masks`; 0 is background.
    suffix
        What follows the name of the image in that of its masks.
    max_pixels
        Of each class and image.
    seed
        Of the choice.
    axes
        Of the masks, where their files do not say.

    Returns
    -------
    pairs
        By name; their paths go to `read_image`, and image and scribbles to `train`.

    Raises
    ------
    LabelError
        If there is no such folder, or no masks in it, or masks without an image.
    ImageError
        If masks cannot be read.
    """
    pairs = _pairs(Path(folder), suffix)
    draws = np.random.default_rng(seed).spawn(len(pairs))
    return [
        TrainingPair(image, scribbles_of_masks(mask, masks=masks, max_pixels=max_pixels, seed=draw, axes=axes))
        for (image, mask), draw in zip(pairs, draws, strict=True)
    ]


def scribbles_of_masks(
    source: Source,
    *,
    masks: Masks = "foreground",
    max_pixels: int = MAX_PIXELS,
    seed: int | np.random.Generator = 0,
    axes: str | None = None,
) -> Scribbles:
    """Draw pixels of each class from a label image of objects, read plane by plane; see `read_training_set`."""
    if masks not in NAMES:
        raise ValueError(f"expected masks as one of {', '.join(NAMES)}, found {masks!r}")
    if max_pixels < 1:
        raise ValueError(f"expected at least one pixel of each class, found {max_pixels}")
    image = open_labelled(source, axes=axes)
    random = np.random.default_rng(seed)
    drawn: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for t, z in image.planes():
        classes = _classes(read_plane(image, t, z), masks)
        for value in range(1, len(NAMES[masks]) + 1):
            y, x = np.nonzero(classes == value)
            points = np.stack([np.full(len(y), t), np.full(len(y), z), y, x], axis=1).astype(np.int64)
            drawn[value] = _lowest(drawn.get(value), points, random.random(len(points)), max_pixels)
    return _as_scribbles(image, drawn, masks)


def _classes(labels: NDArray[np.integer], masks: Masks) -> NDArray[np.uint8]:
    """Return (Y, X) classes: 1 background, 2 object, 3 its rim, one pixel wide."""
    classes = np.where(labels > 0, 2, 1).astype(np.uint8)
    if masks == "border":
        low, high = (f(labels, size=3, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
        classes[(labels > 0) & (low != high)] = 3
    return classes


def _lowest(
    kept: tuple[NDArray[np.int64], NDArray[np.float64]] | None,
    points: NDArray[np.int64],
    lots: NDArray[np.float64],
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the points with the n lowest lots of those kept and new ones: each pixel of a stack has the same chance."""
    if kept is not None:
        points, lots = np.concatenate([kept[0], points]), np.concatenate([kept[1], lots])
    if len(lots) > n:
        chosen = np.argpartition(lots, n - 1)[:n]
        points, lots = points[chosen], lots[chosen]
    return points, lots


def _as_scribbles(
    image: Image, drawn: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]], masks: Masks
) -> Scribbles:
    points = np.concatenate([p for p, _ in drawn.values()])
    values = np.concatenate([np.full(len(p), value, np.int64) for value, (p, _) in drawn.items()])
    order = np.lexsort(points.T[::-1])
    painted = [value for value, (p, _) in drawn.items() if len(p)]
    t, _, z, y, x = image.sizes.values()  # T, C, Z, Y, X
    return Scribbles(
        points[order],
        values[order],
        image.axes.replace("C", ""),
        (t, z, y, x),
        {value: NAMES[masks][value - 1] for value in painted},
        {value: DEFAULT_COLOURS[value - 1] for value in painted},
        Path(image.source).name,
    )


def _pairs(folder: Path, suffix: str) -> list[tuple[Path, Path]]:
    if not folder.is_dir():
        raise LabelError(f"expected a folder of images with masks, found none at {shown(folder)}; check the path")
    if not suffix:
        raise ValueError("expected a suffix that tells masks from images, found none; give _masks")
    files = sorted(p for p in folder.iterdir() if is_named_like_image(p) and not p.name.startswith("."))
    images = {base_name(p): p for p in files if not base_name(p).endswith(suffix)}
    masks = {base_name(p).removesuffix(suffix): p for p in files if base_name(p).endswith(suffix)}
    if not masks:
        raise LabelError(
            f"expected images NAME.tif with masks NAME{suffix}.tif in {shown(folder)}, found no masks; check the folder, or say what "
            "follows the names of images with --masks-suffix (suffix=)"
        )
    if lonely := [shown(masks[name].name) for name in sorted(masks.keys() - images.keys())]:
        raise LabelError(
            f"expected an image for each of the masks in {shown(folder)}, found none for {', '.join(lonely)}; "
            "put the images beside them"
        )
    if left_out := sorted(images.keys() - masks.keys()):
        log.info("%s: images without masks are left out: %s", shown(folder), ", ".join(left_out))
    return [(images[name], masks[name]) for name in sorted(masks)]
