"""Pixel size, frame interval and channel names of TIFF files: from OME-XML, ImageJ's description or the tags."""

from typing import Any
from xml.etree import ElementTree

import tifffile

from forestbridge.image.units import micrometres, seconds

PRINTER_RESOLUTIONS = {1.0, 72.0, 96.0, 150.0, 300.0, 600.0}
"""Dots per inch that programs write when they know no pixel size."""


def calibration(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, scene: int) -> dict[str, Any]:
    """Return `pixel_size`, `frame_interval` and `channel_names` as in `Image`.

    Parameters
    ----------
    tif
        An open file.
    series
        The image in it, for its number of channels.
    scene
        Its number.
    """
    sizes = dict(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
    channels = sizes.get("C", 1) * sizes.get("S", 1)
    if tif.ome_metadata and series.kind == "ome":
        return _from_ome(tif.ome_metadata, scene, channels)
    if tif.imagej_metadata is not None:
        return _from_imagej(tif.imagej_metadata, series, sizes)
    return {"pixel_size": _from_tags(series.keyframe), "frame_interval": None, "channel_names": ()}


def _from_ome(xml: str, scene: int, channels: int) -> dict[str, Any]:
    """Read the `Pixels` element of an image; OME's default units are micrometres and seconds."""
    images = [e for e in ElementTree.fromstring(xml) if e.tag.endswith("}Image") or e.tag == "Image"]
    pixels = next((e for e in images[scene] if e.tag.endswith("Pixels")), None) if scene < len(images) else None
    if pixels is None:
        return {"pixel_size": {}, "frame_interval": None, "channel_names": ()}
    pixel_size = {}
    for axis in "zyx":
        length = _number(pixels.get(f"PhysicalSize{axis.upper()}"))
        size = None if length is None else micrometres(length, pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        if size is not None:
            pixel_size[axis] = size
    interval = _number(pixels.get("TimeIncrement"))
    names = tuple(e.get("Name", "") for e in pixels if e.tag.endswith("Channel"))
    return {
        "pixel_size": pixel_size,
        "frame_interval": None if interval is None else seconds(interval, pixels.get("TimeIncrementUnit", "s")),
        "channel_names": names if len(names) == channels and all(names) else (),
    }


def _from_imagej(metadata: dict[str, Any], series: tifffile.TiffPageSeries, sizes: dict[str, int]) -> dict[str, Any]:
    """Read ImageJ's description: x and y in the resolution tags, z as spacing, all in its unit."""
    unit = str(metadata.get("unit", ""))
    pixel_size = {}
    for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
        per_unit = _resolution(series.keyframe, tag)
        size = (
            micrometres(1 / per_unit, str(metadata.get("yunit", unit)) if axis == "y" else unit) if per_unit else None
        )
        if size is not None:
            pixel_size[axis] = size
    spacing = _number(metadata.get("spacing"))
    depth = None if spacing is None else micrometres(abs(spacing), str(metadata.get("zunit", unit)))
    if depth is not None:
        pixel_size = {"z": depth, **pixel_size}
    interval = _number(metadata.get("finterval"))
    labels = metadata.get("Labels") or ()
    labels = (labels,) if isinstance(labels, str) else tuple(map(str, labels))
    n = sizes.get("C", 1)
    # A label stands on each plane, channels running fastest: they name channels where all planes of a channel agree.
    names = labels[:n] if labels and all(label == labels[i % n] for i, label in enumerate(labels)) else ()
    return {
        "pixel_size": pixel_size,
        "frame_interval": None if interval is None else seconds(interval, str(metadata.get("tunit", "s"))),
        "channel_names": names if len(names) == n and all(names) else (),
    }


def _from_tags(page: tifffile.TiffPage) -> dict[str, float]:
    """Read the resolution tags, unless they have no unit or are what printers and screens have."""
    unit = page.tags.valueof("ResolutionUnit")
    name = {2: "inch", 3: "cm", 4: "mm", 5: "um"}.get(int(unit)) if unit is not None else None
    pixel_size = {}
    for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
        per_unit = _resolution(page, tag)
        if not per_unit or name is None or (name == "inch" and per_unit in PRINTER_RESOLUTIONS):
            return {}
        size = micrometres(1 / per_unit, name)
        if size is None:
            return {}
        pixel_size[axis] = size
    return pixel_size


def _resolution(page: tifffile.TiffPage, tag: str) -> float | None:
    """Return pixels per unit."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0] or not value[1]:
        return None
    return value[0] / value[1]


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
