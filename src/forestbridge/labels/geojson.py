"""GeoJSON as QuPath writes it: a file in, one `Shape` per annotation out."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.labels.shapes import Shape

log = logging.getLogger(__name__)

MAX_BYTES = 2**29
"""Larger files are refused: annotations take kilobytes, exports of all detections hundreds of megabytes."""

MAX_DEPTH = 50
"""Of nested geometry collections and child objects."""

NO_ANNOTATIONS = (
    "detection",
    "cell",
    "tile",
    "tmaCore",
    "root",
    "PathDetectionObject",
    "PathCellObject",
    "PathTileObject",
)
"""Types of QuPath objects that nobody drew, as written since 0.3 and before."""

REGION = "Region*"
"""QuPath's class for areas of interest; no class of pixels."""


def read_geojson(path: Path, *, stroke_width: float = 1.0) -> list[Shape]:
    """Read the classified annotations of a GeoJSON file.

    Detections, cells and tiles are results of other programs and left out, as are annotations without a class and those
    of the class "Region*"; their number is logged.

    Parameters
    ----------
    stroke_width
        Width in pixels with which lines are drawn.

    Returns
    -------
    shapes
        In the order of the file; `place` is the plane in the file, None for QuPath's default plane.

    Raises
    ------
    LabelError
        If the file is no GeoJSON, damaged, or too large, or has no classified annotation.
    """
    document = _load(path)
    shapes: list[Shape] = []
    skipped = {"without a class": 0, "of the class Region*": 0, "that are no annotations": 0}
    for number, feature in enumerate(_features(document, path)):
        where = f"{path.name}, feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise LabelError(
                f"{where}: expected a GeoJSON feature, found {_short(feature)}; export the annotations again"
            )
        properties = feature.get("properties") or {}
        kind = properties.get("objectType") or properties.get("object_type") or feature.get("id")
        if kind in NO_ANNOTATIONS:
            skipped["that are no annotations"] += 1
            continue
        name, colour = _classification(properties.get("classification"), where)
        if name is None or name == REGION:
            skipped["without a class" if name is None else "of the class Region*"] += 1
            continue
        geometry = feature.get("geometry")
        place = _place(geometry, where)
        shapes += [
            Shape(shape_kind, rings, name, place, where, stroke_width, colour, first_plane=True)
            for shape_kind, rings in _geometry(geometry, where)
        ]
    left_out = ", ".join(f"{n} {what}" for what, n in skipped.items() if n)
    if left_out:
        log.info("%s: objects left out: %s", path.name, left_out)
    if not shapes:
        raise LabelError(
            f"{path.name}: expected annotations with a class, found none{f' ({left_out})' if left_out else ''}; give "
            "each annotation a class in QuPath and export again"
        )
    return shapes


def _load(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise LabelError(
            f"{path.name}: expected annotations of at most {MAX_BYTES >> 20} MiB, found {size >> 20} MiB; export "
            "annotations only, no detections"
        )
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LabelError(
            f"{path.name}: expected GeoJSON, found a file that is damaged or something else ({error}); export it again"
        ) from error


def _features(document: Any, path: Path) -> Iterator[Any]:
    """Yield all features: of a collection, a list or a single one, each followed by its child objects."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        top = document.get("features")
    else:
        top = [document] if isinstance(document, dict) and document.get("type") == "Feature" else document
    if not isinstance(top, list):
        raise LabelError(
            f"{path.name}: expected a GeoJSON FeatureCollection, found {_short(document)}; in QuPath use File > Export "
            "objects as GeoJSON"
        )
    stack = top[::-1]
    while stack:
        feature = stack.pop()
        yield feature
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if isinstance(properties, dict):
            children = properties.get("childObjects", properties.get("children"))
            stack += children[::-1] if isinstance(children, list) else []


def _classification(found: Any, where: str) -> tuple[str | None, str | None]:
    """Return name and colour of a class, in any form that QuPath wrote since 0.2."""
    if found is None or found == {}:
        return None, None
    if isinstance(found, str):
        return found, None
    name = found.get("name") if isinstance(found, dict) else None
    if isinstance(found, dict) and isinstance(found.get("names"), list):
        name = ": ".join(str(part) for part in found["names"])  # as QuPath shows derived classes
    if not isinstance(name, str) or not name.strip():
        raise LabelError(
            f"{where}: expected a classification with a name, found {_short(found)}; give the annotation a class and "
            "export again"
        )
    colour = found.get("color", found.get("colorRGB"))
    if isinstance(colour, int):
        colour = [colour >> 16 & 255, colour >> 8 & 255, colour & 255]  # packed, with sign
    if isinstance(colour, list) and len(colour) in (3, 4) and all(isinstance(c, int) and 0 <= c <= 255 for c in colour):
        return name, "#" + "".join(f"{c:02x}" for c in colour[:3])
    return name, None


def _place(geometry: Any, where: str) -> tuple[int, int] | None:
    plane = geometry.get("plane") if isinstance(geometry, dict) else None
    if plane is None:
        return None
    t, z = (plane.get("t", 0), plane.get("z", 0)) if isinstance(plane, dict) else (None, None)
    if not isinstance(t, int) or not isinstance(z, int):
        raise LabelError(
            f"{where}: expected a plane with whole numbers z and t, found {_short(plane)}; export it again"
        )
    return t, z


def _geometry(geometry: Any, where: str, depth: int = 0) -> Iterator[tuple[Any, tuple[NDArray[np.float64], ...]]]:
    """Yield the kind and the rings of each part of a geometry."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    try:
        if kind == "GeometryCollection" and depth < MAX_DEPTH:
            for part in geometry["geometries"]:
                yield from _geometry(part, where, depth + 1)
            return
        coordinates: Any = geometry["coordinates"] if isinstance(geometry, dict) else None
        match kind:
            case "Point":
                yield "points", (_ring([coordinates]),)
            case "MultiPoint":
                yield "points", (_ring(coordinates),)
            case "LineString":
                yield "line", (_ring(coordinates),)
            case "MultiLineString":
                yield "line", tuple(_ring(line) for line in coordinates)
            case "Polygon" if geometry.get("isEllipse") is True:
                yield "ellipse", (_ring(coordinates[0]),)
            case "Polygon":
                yield "area", tuple(_ring(ring) for ring in coordinates)
            case "MultiPolygon":
                for polygon in coordinates:
                    yield "area", tuple(_ring(ring) for ring in polygon)
            case _:
                raise LabelError(
                    f"{where}: expected a Point, LineString, Polygon, one of their Multi forms or a GeometryCollection "
                    f"of them, found {_short(kind)}; delete that annotation or draw it again"
                )
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise LabelError(
            f"{where}: expected a {kind} with coordinates [x, y], found {_short(geometry)}; export it again"
        ) from error


def _ring(coordinates: Any) -> NDArray[np.float64]:
    return np.array([(float(point[0]), float(point[1])) for point in coordinates], np.float64).reshape(-1, 2)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
