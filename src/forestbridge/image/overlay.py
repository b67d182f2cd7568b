"""A picture for people: a plane in grey or colour with its labels laid over it, as PNG."""

from collections.abc import Iterable, Mapping
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from forestbridge.files import new_file

DISPLAY_PERCENTILES = (0.5, 99.5)
"""Intensities shown as black and white."""

GOLDEN = 0.618033988749895
"""By how much of a circle the hue of an object differs from that of the one before."""


def draw_overlay(
    plane: NDArray, labels: NDArray, colours: Mapping[int, str], *, alpha: float = 0.4, contour: int = 0
) -> NDArray[np.uint8]:
    """Return a plane with its labels laid over it.

    Parameters
    ----------
    plane
        (C, Y, X): one channel is shown grey; of more the first three are shown as red, green, blue.
    labels
        (Y, X) integers; 0 stays transparent.
    colours
        "#rrggbb" of every label.
    alpha
        Opacity of the labels, from 0 to 1.
    contour
        Width in pixels of an opaque line inside the border of each labelled area; 0 draws none.

    Returns
    -------
    picture
        (Y, X, 3) uint8.

    Raises
    ------
    ValueError
        If shapes do not fit, a label has no colour, or `alpha` or `contour` is out of range.
    """
    if plane.ndim != 3 or labels.shape != plane.shape[1:]:
        raise ValueError(f"expected a plane (C, Y, X) and labels (Y, X), found {plane.shape} and {labels.shape}")
    if not 0 <= alpha <= 1 or contour < 0:
        raise ValueError(f"expected alpha from 0 to 1 and contour of 0 or more, found {alpha} and {contour}")
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    missing = [v for v in values.tolist() if v and v not in colours]
    if missing:
        raise ValueError(f"expected a colour for every label, found none for {missing}")
    picture = _display(plane)  # (Y, X, 3) float32
    outline = _outline(labels, contour)
    of_value = [colours[v] if v else "#000000" for v in values.tolist()]
    table = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in of_value], np.float32)  # (V, 3)
    area = labels != 0
    picture[area] = (1 - alpha) * picture[area] + alpha * table[index[area]]
    picture[outline] = table[index[outline]]
    return np.rint(picture).astype(np.uint8)


def write_overlay(
    path: str | Path,
    plane: NDArray,
    labels: NDArray,
    colours: Mapping[int, str],
    *,
    alpha: float = 0.4,
    contour: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write what `draw_overlay` returns as a PNG file.

    Raises
    ------
    ValueError
        As `draw_overlay`, or if the path does not end in .png.
    OutputExistsError, ResourceError
        If the path exists and `overwrite` is False, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"expected an overlay named .png, found {path.name}")
    picture = draw_overlay(plane, labels, colours, alpha=alpha, contour=contour)
    with new_file(path, overwrite=overwrite) as temporary:
        Pillow.fromarray(picture).save(temporary, format="PNG")
    return path


def object_colours(values: Iterable[int]) -> dict[int, str]:
    """Return "#rrggbb" of objects: the same for the same number in every picture, and unlike those of the numbers beside it.

    Hues go round by the golden ratio, which keeps any few in a row far apart; saturation and brightness alternate.
    """
    colours = {}
    for value in values:
        rgb = hsv_to_rgb(value * GOLDEN % 1, (0.95, 0.6)[value % 2], (1.0, 0.8, 0.9)[value % 3])
        colours[value] = "#" + "".join(f"{round(255 * c):02x}" for c in rgb)
    return colours


def _display(plane: NDArray) -> NDArray[np.float32]:
    """Return (Y, X, 3) from 0 to 255: one stretch for all channels, so that colours keep their hue."""
    pixels = np.asarray(plane[:3], np.float32)
    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, DISPLAY_PERCENTILES) if finite.size else (0.0, 1.0)
    stretched = np.clip((np.nan_to_num(pixels, nan=low) - low) / ((high - low) or 1), 0, 1) * 255  # constant: black
    channels = list(stretched) if len(stretched) != 1 else [stretched[0]] * 3
    channels += [np.zeros_like(channels[0])] * (3 - len(channels))
    return np.stack(channels, axis=-1).astype(np.float32)


def _outline(labels: NDArray, width: int) -> NDArray[np.bool_]:
    """Return the pixels of labelled areas within `width` (in city-block steps) of a pixel with another label."""
    outline = np.zeros(labels.shape, bool)
    if width:
        vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
        outline[1:] |= vertical
        outline[:-1] |= vertical
        outline[:, 1:] |= horizontal
        outline[:, :-1] |= horizontal
    for _ in range(width - 1):
        grown = outline.copy()
        grown[1:] |= outline[:-1]
        grown[:-1] |= outline[1:]
        grown[:, 1:] |= outline[:, :-1]
        grown[:, :-1] |= outline[:, 1:]
        outline = grown
    return outline & (labels != 0)
