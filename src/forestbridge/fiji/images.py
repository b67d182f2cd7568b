"""Arrays to images of ImageJ and back, in any Java that has ImageJ on its class path.

ImageJ keeps a list of planes, Java arrays of 8, 16 or 32 bits, the channel running fastest, then z, then t:

    index of a plane = (t · Z + z) · C + c        (T, Z, C, Y, X); an `Image` has (T, C, Z, Y, X)

Planes are copied some rows at a time through a direct buffer. There is one for all planes: Java frees such buffers late, and with
them the memory they stand for.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes
from forestbridge.errors import ImageError, MissingExtraError, ResourceError
from forestbridge.image import AXES, Image, ResultInfo, as_image
from forestbridge.image.image import EXACT_FLOAT32
from forestbridge.image.tiff_metadata import PRINTER_RESOLUTIONS
from forestbridge.image.units import micrometres, seconds

STACK = "TZCYX"
"""Order of ImageJ's planes, the last axis running fastest."""

PIXELS = 2**20
"""About so many are copied at a time; a direct buffer has less than 2^31 bytes, a plane may have more."""

SIGNED = 32768
"""ImageJ's pixels have no sign: it keeps -32768 as 0 and adds this in its calibration."""


def to_imagej(
    image: Image | NDArray,
    title: str,
    *,
    axes: str | None = None,
    classes: Classes | None = None,
    pixel_size: Mapping[str, float] | None = None,
) -> Any:
    """Return an image, labels or probabilities as an image of ImageJ.

    Parameters
    ----------
    image
        An `Image`, or an array (Y, X), (C, Y, X), (C, Z, Y, X) or with the axes named by `axes`. uint8, uint16 and float32 stay as
        they are; int8 and int16 become 16-bit with ImageJ's calibration for signed pixels; wider integers take the smallest of 8,
        16 and 32 bits that holds them exactly; other floats become float32; bool becomes 0 and 255, as in ImageJ's masks.
    title
        Title of the image.
    axes
        Letters of "TCZYX", one per dimension of the array.
    classes
        Of labels: they get a lookup table, label k in the colour of its class. Of floats: probabilities, named after the classes
        on the axis C, shown from 0 to 1; or, without this axis, one value per pixel, shown from 0 to 1.
    pixel_size
        Micrometres of z, y, x; those of the `Image` by default.

    Returns
    -------
    imp
        ij.ImagePlus, not shown; a hyperstack where it has more than one of channels, slices and frames.

    Raises
    ------
    ImageError
        If integers are larger than 2^24, which no pixel of ImageJ holds exactly, a plane has 2^31 pixels, or there are no pixels.
    ValueError
        If the classes do not fit the array.
    ResourceError
        If no Java with ImageJ is running.
    """
    imagej = _imagej()
    image = as_image(image, axes=axes)
    pixels = np.asarray(image.data[(slice(None),) * len(image.axes)])
    if classes is not None and pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)  # labels 0 and 1
    info = None if classes is None else _result_info(image, pixels.dtype, classes)
    names = image.channel_names if info is None or info.is_labels or "C" not in image.axes else info.names
    pixels, signed = _as_stored(pixels)
    stack = _to_stack(imagej, pixels.reshape([image.sizes[a] for a in AXES]), names)
    shown = _display(imagej, info, stack)
    return _as_image_plus(imagej, title, stack, image, shown, signed, pixel_size)


def from_imagej(imp: Any) -> Image:
    """Return an image of ImageJ, all of it, whatever is selected; its pixels are copied.

    Parameters
    ----------
    imp
        ij.ImagePlus of 8, 16 or 32 bits, or RGB, which becomes three channels. Pixels are as stored, as a TIFF has them; only
        ImageJ's calibration for signed 16-bit pixels is applied.

    Returns
    -------
    image
        Axes longer than 1 of "TCZYX", uint8, uint16, int16 or float32, with pixel size and frame interval where ImageJ's unit
        is known, and the labels of the slices as channel names where they agree on all planes of a channel.

    Raises
    ------
    TypeError
        If it is no ij.ImagePlus.
    ImageError
        If it has no pixels, or is RGB with several channels.
    """
    imagej = _imagej()
    if not isinstance(imp, imagej.ImagePlus):
        raise TypeError(
            f"expected an ij.ImagePlus, found {type(imp).__name__}; convert a Dataset of ImageJ2 with ij.py.to_imageplus"
        )
    title = str(imp.getTitle())
    width, height, n_c, n_z, n_t = (int(n) for n in imp.getDimensions())
    bits = int(imp.getBitDepth())
    if not width * height:
        raise ImageError(f"{title}: expected an image with pixels, found none; it was closed, or never opened")
    if bits == 24 and n_c > 1:
        raise ImageError(
            f"{title}: expected RGB pixels or channels, found {n_c} channels of RGB pixels; split them with Image > Color > Split Channels"
        )
    stack = imp.getStack()
    planes = _from_stack(imagej, stack, bits, (height, width))  # (T*Z*C, Y, X)
    if bits == 24:
        n_c = 3
        planes = np.stack([(planes >> shift).astype(np.uint8) for shift in (16, 8, 0)], axis=1)  # (T*Z, 3, Y, X)
    calibration = imp.getCalibration()
    if bits == 16 and calibration.isSigned16Bit():
        planes = (planes ^ SIGNED).view(np.int16)  # the same as minus 32768
    lengths = dict(zip(STACK, (n_t, n_z, n_c, height, width), strict=True))
    order = tuple(STACK.index(a) for a in AXES)
    pixels = planes.reshape([lengths[a] for a in STACK]).transpose(order)  # (T, C, Z, Y, X)
    axes = "".join(a for a in AXES if a in "YX" or lengths[a] > 1)
    return Image(
        data=pixels.reshape([lengths[a] for a in axes]),
        axes=axes,
        pixel_size=_pixel_size(calibration, axes),
        frame_interval=seconds(float(calibration.frameInterval), str(calibration.getTimeUnit())),
        channel_names=_channel_names(stack, n_c) if "C" in axes and bits != 24 else (),
        source=title,
    )


class _ImageJ(NamedTuple):
    """The Java classes in use."""

    jpype: Any
    ImagePlus: Any
    ImageStack: Any
    CompositeImage: Any
    LUT: Any


def _imagej() -> _ImageJ:
    """Return ImageJ's classes; never starts Java, which cannot be done twice."""
    try:
        import jpype
    except ImportError as error:
        raise MissingExtraError("Fiji from Python", "fiji") from error
    if not jpype.isJVMStarted():
        raise ResourceError(
            "expected a running ImageJ, found no Java in this process; call forestbridge.fiji.start first"
        )
    try:
        names = ("ij.ImagePlus", "ij.ImageStack", "ij.CompositeImage", "ij.process.LUT")
        return _ImageJ(jpype, *(jpype.JClass(name) for name in names))
    except TypeError as error:
        raise ResourceError(
            "expected a Java with ImageJ, found one without the class ij.ImagePlus; start it with forestbridge.fiji.start, or "
            "with ij.jar on the class path"
        ) from error


def _result_info(image: Image, dtype: np.dtype, classes: Classes) -> ResultInfo:
    """Check classes against the array, and return them as results have them."""
    return ResultInfo(image.axes, image.shape, dtype, {}, None, classes.values, classes.names, classes.colours)


def _as_stored(pixels: NDArray) -> tuple[NDArray, bool]:
    """Return pixels as uint8, uint16 or float32, and whether ImageJ is to take `SIGNED` off them."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype.kind == "b":
        return pixels * np.uint8(255), False
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False), False
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels, False
    low, high = int(pixels.min()), int(pixels.max())
    if pixels.dtype.itemsize <= 2 or (low < 0 and low >= -SIGNED and high < SIGNED):
        return pixels.astype(np.int16).view(np.uint16) ^ np.uint16(SIGNED), True
    furthest = max(low, high, key=abs)
    if abs(furthest) > EXACT_FLOAT32:
        raise ImageError(
            f"expected integers up to 2^24 = {EXACT_FLOAT32}, which ImageJ's 32-bit pixels hold exactly, found {furthest}; number the "
            "labels anew, or write them with forestbridge.write_labels as .ome.zarr"
        )
    return pixels.astype(np.float32 if low < 0 or high > 65535 else np.uint8 if high < 256 else np.uint16), False


def _to_stack(imagej: _ImageJ, pixels: NDArray, names: tuple[str, ...]) -> Any:
    """Return (T, C, Z, Y, X) pixels as an ij.ImageStack, with the names of the channels as labels of the slices."""
    n_t, n_c, n_z, height, width = pixels.shape
    if height * width >= 2**31:
        raise ImageError(
            f"expected planes of less than 2^31 pixels, which ImageJ holds, found {height} x {width}; cut it"
        )
    through = _Rows(imagej, pixels.dtype, (height, width))
    stack = imagej.ImageStack(width, height)
    for t, z, c in np.ndindex(n_t, n_z, n_c):
        stack.addSlice(names[c] if len(names) == n_c else None, through.to_java(pixels[t, c, z]))
    return stack


def _from_stack(imagej: _ImageJ, stack: Any, bits: int, shape: tuple[int, int]) -> NDArray:
    """Return all planes of a stack, (T*Z*C, Y, X) as they are stored: uint8, uint16, float32, or int32 for RGB."""
    dtype = {8: np.uint8, 16: np.uint16, 24: np.int32, 32: np.float32}[bits]
    planes = np.empty((int(stack.getSize()), *shape), dtype)
    through = _Rows(imagej, planes.dtype, shape)
    for n, plane in enumerate(planes):
        through.from_java(stack.getPixels(n + 1), plane)
    return planes


class _Rows:
    """Memory of a few rows of a plane that numpy and Java both have; it holds the Java buffer."""

    def __init__(self, imagej: _ImageJ, dtype: np.dtype, shape: tuple[int, int]) -> None:
        jpype = imagej.jpype
        self._width = shape[1]
        self._rows = np.empty((max(1, min(shape[0], PIXELS // shape[1])), shape[1]), dtype)
        bytes_of = jpype.nio.convertToDirectBuffer(self._rows.reshape(-1).view(np.uint8))
        bytes_of.order(jpype.JClass("java.nio.ByteOrder").nativeOrder())
        match dtype.kind, dtype.itemsize:
            case "u", 1:
                self._buffer, self._array = bytes_of, jpype.JArray(jpype.JByte)
            case "u", 2:
                self._buffer, self._array = bytes_of.asShortBuffer(), jpype.JArray(jpype.JShort)
            case "i", 4:
                self._buffer, self._array = bytes_of.asIntBuffer(), jpype.JArray(jpype.JInt)
            case _:
                self._buffer, self._array = bytes_of.asFloatBuffer(), jpype.JArray(jpype.JFloat)

    def to_java(self, plane: NDArray) -> Any:
        """Return a plane (Y, X) as a new Java array."""
        array = self._array(plane.size)
        for y in range(0, len(plane), len(self._rows)):
            part = plane[y : y + len(self._rows)]
            self._rows[: len(part)] = part
            self._buffer.rewind()
            self._buffer.get(array, y * self._width, part.size)
        return array

    def from_java(self, array: Any, plane: NDArray) -> None:
        """Copy a Java array into a plane (Y, X)."""
        for y in range(0, len(plane), len(self._rows)):
            part = plane[y : y + len(self._rows)]
            self._buffer.rewind()
            self._buffer.put(array, y * self._width, part.size)
            part[...] = self._rows[: len(part)]


class _Display(NamedTuple):
    """How an image is shown; None as ImageJ shows it by itself."""

    limits: tuple[float, float] | None
    text: str | None


def _display(imagej: _ImageJ, info: ResultInfo | None, stack: Any) -> _Display:
    """Return how a result is shown, as create_imagej_tiff has it, and give labels their lookup table."""
    if info is None:
        return _Display(None, None)
    text = "".join(f"{key}: {value}\n" for key, value in info.facts().items())
    if not info.is_labels:
        return _Display(info.limits, text)
    highest = max(info.classes)
    if highest > 255:
        return _Display((0.0, float(highest)), text)
    to_bytes = imagej.jpype.JArray(imagej.jpype.JByte)
    stack.setColorModel(imagej.LUT(*(to_bytes(colour.view(np.int8)) for colour in info.lookup_table())))
    return _Display((0.0, 255.0), text)  # then label k is shown in colour k of the table


def _as_image_plus(
    imagej: _ImageJ,
    title: str,
    stack: Any,
    image: Image,
    shown: _Display,
    signed: bool,
    pixel_size: Mapping[str, float] | None,
) -> Any:
    """Return a stack as an ij.ImagePlus with dimensions, calibration and display."""
    n_c, n_z, n_t = (image.sizes[a] for a in "CZT")
    imp = imagej.ImagePlus(title, stack)
    imp.setDimensions(n_c, n_z, n_t)
    if n_c > 1:
        imp = imagej.CompositeImage(imp, imagej.CompositeImage.GRAYSCALE)
    if n_c * n_z * n_t > 1:
        imp.setOpenAsHyperStack(True)
    if shown.limits is not None:
        for c in range(n_c):
            imp.setPositionWithoutUpdate(c + 1, 1, 1)
            imp.setDisplayRange(*shown.limits)
        imp.setPositionWithoutUpdate(1, 1, 1)
    if shown.text:
        imp.setProperty("Info", shown.text)
    calibration = imp.getCalibration()
    size = image.pixel_size if pixel_size is None else pixel_size
    if size:
        calibration.setUnit("micron")
        calibration.pixelWidth, calibration.pixelHeight = float(size.get("x", 1)), float(size.get("y", 1))
        calibration.pixelDepth = float(size.get("z", 1))
    if image.frame_interval is not None:
        calibration.frameInterval = float(image.frame_interval)
        calibration.setTimeUnit("sec")
    if signed:
        calibration.setSigned16BitCalibration()
    return imp


def _pixel_size(calibration: Any, axes: str) -> dict[str, float]:
    """Return micrometres of the axes whose size is known; sizes that printers and screens have are none."""
    x_unit, width = str(calibration.getXUnit()), float(calibration.pixelWidth)
    if x_unit == "inch" and width and round(1 / width, 6) in PRINTER_RESOLUTIONS:
        return {}
    sizes = {
        "z": micrometres(abs(float(calibration.pixelDepth)), str(calibration.getZUnit())) if "Z" in axes else None,
        "y": micrometres(float(calibration.pixelHeight), str(calibration.getYUnit())),
        "x": micrometres(width, x_unit),
    }
    return {axis: size for axis, size in sizes.items() if size is not None}


def _channel_names(stack: Any, n_c: int) -> tuple[str, ...]:
    """Return the labels of the slices where all planes of a channel have the same one, else none."""
    labels = [str(stack.getSliceLabel(n + 1) or "").split("\n")[0] for n in range(int(stack.getSize()))]
    names = tuple(labels[:n_c])
    return names if all(names) and all(label == names[n % n_c] for n, label in enumerate(labels)) else ()
