"""The simplest segmentation: blur, threshold; an image in, labels 0 and 1 out. What a forest must be better than."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes
from forestbridge.errors import ImageError
from forestbridge.files import check_output
from forestbridge.image import Image, as_image, read_image
from forestbridge.objects.output import Progress, label_info, put_together
from forestbridge.objects.segmentation import Unit, read_unit, units_of

_logger = logging.getLogger(__name__)

Baseline = Literal["otsu"]
"""otsu: a Gaussian filter, then Otsu's threshold."""

OBJECT = Classes((1,), ("object",), ("#e69f00",))
"""What a baseline finds; 0 is background."""


def baseline(
    image: str | os.PathLike[str] | Image | NDArray,
    *,
    method: Baseline = "otsu",
    sigma: float = 3.0,
    channel: int | None = None,
    invert: bool = False,
    plane_by_plane: bool = False,
    axes: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> NDArray[np.uint8] | Path:
    """Segment an image in the simplest way that may work.

    The same bits as ``gaussian(pixels, sigma) > threshold_otsu(gaussian(pixels, sigma))`` with scikit-image's functions: of a volume as
    a whole, of a time series frame by frame, so each frame has its own threshold.

    Parameters
    ----------
    image
        A file, an image, or an array as for `predict` (a volume with ``axes="ZYX"``).
    method
        See `Baseline`.
    sigma
        Of the Gaussian filter, in pixels along every axis; 0 does not blur.
    channel
        Which channel, from 0; needed where there are several.
    invert
        Whether objects are darker than the background.
    plane_by_plane
        Whether each plane of a volume is blurred and thresholded on its own.
    axes
        Of arrays, and of files that do not say.
    out, overwrite, format, progress
        As for `instances`.

    Returns
    -------
    labels
        uint8, 1 for objects, 0 elsewhere: the axes of the image without C. With `out` its path.

    Raises
    ------
    ImageError
        If the image cannot be read, has several channels and none is chosen, or is not finite.
    OutputExistsError, ResourceError
        If the output exists or cannot be written.
    ValueError
        If the method is not known or sigma is below 0.

    References
    ----------
    Otsu 1979, doi:10.1109/TSMC.1979.4310076
    """
    if method != "otsu":
        raise ValueError(f"expected the baseline 'otsu', found {method!r}")
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"expected a sigma of 0 or more pixels, found {sigma}")
    if out is not None:
        check_output(out, overwrite=overwrite)
    one = one_channel(image, channel, axes=axes)
    units = units_of(one, plane_by_plane=plane_by_plane)
    text = f"otsu sigma={sigma:g}{' invert' if invert else ''}{' plane by plane' if plane_by_plane else ''}"
    info = label_info(one, dtype=np.dtype(np.uint8), classes=OBJECT, provenance={"baseline": text, "image": one.source})

    def found() -> Iterator[tuple[Unit, NDArray]]:
        for done, unit in enumerate(units, 1):
            yield unit, _otsu(_finite(one, unit), sigma, one.source) != invert
            if progress:
                progress(done, len(units))

    return put_together(found(), info, out=out, overwrite=overwrite, format=format)  # bool becomes uint8


def one_channel(
    image: str | os.PathLike[str] | Image | NDArray, channel: int | None, *, axes: str | None = None
) -> Image:
    """Return the channel of an image that is looked at, as an image with the axis C of length 1 or without.

    Raises
    ------
    ImageError
        If there are several channels and none is chosen, or there is no such channel.
    """
    opened = read_image(image, axes=axes) if isinstance(image, str | os.PathLike) else as_image(image, axes=axes)
    if channel is None and opened.n_channels > 1:
        names = f" ({', '.join(opened.channel_names)})" if opened.channel_names else ""
        hint = "" if isinstance(image, str | os.PathLike | Image) else ", or say axes='ZYX' for a volume"
        raise ImageError(
            f"{opened.source}: expected one channel, found {opened.n_channels}{names}; choose one of 0 to "
            f"{opened.n_channels - 1} with --channel (channel=){hint}"
        )
    return opened if channel is None else opened.select_channels([channel])


def _finite(image: Image, unit: Unit) -> NDArray:
    """Return the (Y, X) or (Z, Y, X) pixels of a unit in their own dtype."""
    pixels = read_unit(image, unit)
    if "C" in image.axes:
        pixels = pixels[0]  # (1, ...) -> (...)
    if pixels.dtype.kind == "f" and not (finite := np.isfinite(pixels)).all():
        if image.nan is None:
            raise ImageError(
                f"{image.source}: expected finite pixels, found {int((~finite).sum())} NaN or infinite ones at t={unit.t}; "
                "replace them with --nan VALUE (nan=VALUE of read_image)"
            )
        pixels = np.where(finite, pixels, pixels.dtype.type(image.nan))
    return pixels


def _otsu(pixels: NDArray, sigma: float, name: str) -> NDArray[np.bool_]:
    """Return where the blurred pixels are brighter than Otsu's threshold."""
    from skimage.filters import gaussian, threshold_otsu

    blurred = gaussian(pixels, sigma)
    if blurred.min() == blurred.max():
        _logger.info("%s: all pixels have one value, so no threshold can part them", name)
    return np.asarray(blurred > threshold_otsu(blurred))
