"""The cover of a package: its test image on the left, the classes drawn over it on the right."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from forestbridge.image.overlay import draw_overlay

HEIGHT = 320
"""Pixels; the cover is twice as wide, the 2:1 that the zoo asks for."""


def draw_cover(plane: NDArray, labels: NDArray, values: Sequence[int], colours: Sequence[str]) -> bytes:
    """Return a PNG, below 500 KB.

    Parameters
    ----------
    plane
        (C, Y, X) intensities; three channels are shown as colours, otherwise the first one in grey.
    labels
        (Y, X) label values.
    values, colours
        Label value and "#rrggbb" of each class.
    """
    size = min(labels.shape)
    square = (slice(size), slice(size))
    table = dict(zip(values, colours, strict=True))
    pictures = [
        draw_overlay(plane[:, *square], labels[square], table, alpha=alpha) for alpha in (0, 0.5)
    ]  # (y, x, 3) uint8
    both = [Pillow.fromarray(p).resize((HEIGHT, HEIGHT), Pillow.Resampling.BILINEAR) for p in pictures]
    file = io.BytesIO()
    Pillow.fromarray(np.concatenate([np.asarray(b) for b in both], axis=1)).save(file, "PNG", optimize=True)
    return file.getvalue()
