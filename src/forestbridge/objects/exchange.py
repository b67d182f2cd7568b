"""Objects for other programs: outlines and measurements in; ImageJ ROIs and GeoJSON for QuPath out, object by object.

Both count from the upper left corner of the image, as `forestbridge.objects.outlines` does: read back and filled, they cover the
same pixels.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forestbridge.files import new_file
from forestbridge.image.source import shown
from forestbridge.labels.names import DEFAULT_COLOURS
from forestbridge.objects.labelled import read_plane
from forestbridge.objects.measure import Measured
from forestbridge.objects.outlines import Outline, Ring, outlines
from forestbridge.objects.tables import ObjectTable

NO_CLASS = "object"
"""Class of objects of which none is known."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of the members of a zip: the same objects give the same bytes."""

LARGEST_SHORT = 32_767
"""Coordinate up to which ImageJ keeps outlines as 16-bit integers; beyond, as floats."""


class Drawn(NamedTuple):
    """An object in one plane.

    Attributes
    ----------
    outline
        Number and polygons.
    t, z
        Which plane.
    class_name, class_number
        Name, and number from 1.
    measurements
        Of the whole object.
    """

    outline: Outline
    t: int
    z: int
    class_name: str
    class_number: int
    measurements: Mapping[str, Any]


Draw = Callable[[Drawn], None]


def drawn_objects(measured: Measured, unit: tuple[int, Sequence[int]], table: ObjectTable) -> Iterator[Drawn]:
    """Yield each object in each plane where it is.

    Parameters
    ----------
    measured
        As `open_measured` gives it.
    unit, table
        Frame and planes, and what `measure_units` gives for them.
    """
    t, planes = unit
    rows = {row["id"]: row for row in table.rows()}
    names = list(measured.class_names) or [measured.class_name or NO_CLASS]
    for z in planes:
        for outline in outlines(read_plane(measured.labels, t, z)):
            row = rows[outline.id]
            name = row.get("class", NO_CLASS)
            number = names.index(name) + 1 if name in names else len(names) + 1
            numbers = {k: v for k, v in row.items() if k not in ("id", "class", "t", "z") and v is not None}
            yield Drawn(outline, t, z, name, number, numbers)


@contextmanager
def roi_zip(path: str | Path, measured: Measured, *, overwrite: bool = False) -> Iterator[Draw]:
    """Give a function that appends an object to a zip of ImageJ ROIs, as the ROI Manager opens it.

    A ROI is named by its number; in a time series TRACK_FRAME_NUMBER with frames counted from 0, where an object keeps its number (then
    TRACK and NUMBER are the same); in a stack followed by _zPLANE. Its group is the number of its class, its place the plane.

    Raises
    ------
    ValueError
        If the path does not end in .zip.
    OutputExistsError, ResourceError
        If the path exists and `overwrite` is False, or cannot be written.
    """
    path = check_suffix(path, ".zip")
    axes = measured.labels.axes
    with (
        new_file(path, overwrite=overwrite) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):

        def draw(drawn: Drawn) -> None:
            number = str(drawn.outline.id)
            name = f"{number}_{drawn.t}_{number}" if "T" in axes else number
            name += f"_z{drawn.z}" if "Z" in axes else ""
            archive.writestr(zipfile.ZipInfo(f"{name}.roi", EPOCH), _roi_bytes(name, drawn, axes))

        yield draw


def _roi_bytes(name: str, drawn: Drawn, axes: str) -> bytes:
    import roifile

    rings = [ring for polygon in drawn.outline.polygons for ring in polygon]
    corners = np.concatenate(rings)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if len(rings) == 1 and high.max() <= LARGEST_SHORT:
        roi = roifile.ImagejRoi.frompoints(rings[0], name=name)
        roi.roitype = roifile.ROI_TYPE.TRACED
        roi.right, roi.bottom = int(high[0]), int(high[1])
    else:
        path = np.concatenate([_path(ring) for ring in rings])
        roi = roifile.ImagejRoi()
        roi.roitype, roi.name = roifile.ROI_TYPE.RECT, name
        roi.multi_coordinates, roi.shape_roi_size = path, len(path)
        (roi.left, roi.top), (roi.right, roi.bottom) = low.tolist(), high.tolist()
    roi.version = 228
    roi.group = min(drawn.class_number, 255)
    if "T" in axes and "Z" in axes:
        roi.z_position, roi.t_position, roi.c_position = drawn.z + 1, drawn.t + 1, 1
    elif set(axes) & set("TZ"):
        roi.position = max(drawn.t, drawn.z) + 1
    return roi.tobytes()


def _path(ring: Ring) -> np.ndarray:
    """Return a ring as ImageJ keeps shapes: 0 x y begins it, 1 x y goes on, 4 closes."""
    steps = np.ones((len(ring), 3), np.float32)
    steps[0, 0], steps[:, 1:] = 0, ring
    return np.append(steps.ravel(), np.float32(4))


@contextmanager
def geojson_file(path: str | Path, *, detections: bool = False, overwrite: bool = False) -> Iterator[Draw]:
    """Give a function that appends an object to a GeoJSON file, as QuPath opens it.

    Parameters
    ----------
    detections
        Whether QuPath shall take them for detections, of which it holds many, and not for annotations, which people edit.

    Raises
    ------
    ValueError
        If the path ends neither in .geojson nor in .json.
    OutputExistsError, ResourceError
        If the path exists and `overwrite` is False, or cannot be written.
    """
    path = check_suffix(path, ".geojson", ".json")
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        first = True

        def draw(drawn: Drawn) -> None:
            nonlocal first
            file.write(("\n" if first else ",\n") + json.dumps(_feature(drawn, detections=detections), allow_nan=False))
            first = False

        yield draw
        file.write("\n]}\n")


def _feature(drawn: Drawn, *, detections: bool) -> dict[str, Any]:
    polygons = [[_closed(ring) for ring in polygon] for polygon in drawn.outline.polygons]
    geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": polygons}
    if len(polygons) == 1:
        geometry = {"type": "Polygon", "coordinates": polygons[0]}
    geometry["plane"] = {"c": -1, "z": drawn.z, "t": drawn.t}
    colour = DEFAULT_COLOURS[(drawn.class_number - 1) % len(DEFAULT_COLOURS)]
    properties = {
        "objectType": "detection" if detections else "annotation",
        "name": str(drawn.outline.id),
        "classification": {"name": drawn.class_name, "color": [int(colour[i : i + 2], 16) for i in (1, 3, 5)]},
        "measurements": {k: v for k, v in drawn.measurements.items() if isfinite(v)},
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _closed(ring: Ring) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]


def check_suffix(path: str | Path, *suffixes: str) -> Path:
    """Refuse another suffix.

    Raises
    ------
    ValueError
        If the path has another one.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"expected a name that ends in {' or '.join(suffixes)}, found {shown(path)}; give another name"
        )
    return path
