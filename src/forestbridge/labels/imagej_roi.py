"""ImageJ ROIs: a .roi file or the .zip of the ROI Manager in, one `Shape` per ROI out."""

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.labels.shapes import Shape

DAMAGE = (ValueError, TypeError, IndexError, OverflowError, RuntimeError, MemoryError, AssertionError, struct.error)
"""What roifile raises for damaged ROIs."""

MAX_ROI_BYTES = 2**24
"""Of one ROI: a freehand outline of a million vertices fits."""

MAX_ROIS = 250_000
MAX_ZIP_BYTES = 2**28
"""Of all ROIs together, unpacked."""


def read_rois(
    path: Path, *, shape: tuple[int, int, int, int], stroke_width: float | None = None, known: Collection[str] = ()
) -> list[Shape]:
    """Read ImageJ ROIs.

    The class of a ROI is its group (Edit > Selection > Properties) if it has one, else its name without the number
    that the ROI
    Manager adds: "nucleus-3" is of the class "nucleus".

    Parameters
    ----------
    shape
        (T, Z, Y, X) of the image: tells what a slice number means.
    stroke_width
        Width of lines in pixels; None takes the width saved with each ROI.
    known
        Class names; a ROI of such a name is of that class, whatever number it ends with.

    Returns
    -------
    shapes
        In the order of the file; `label` is the group or the name, `place` None where the ROI is tied to no slice.

    Raises
    ------
    LabelError
        If the file is damaged or hostile, or a ROI has neither group nor name, or is of a type that marks no pixels.
    """
    import roifile

    shapes: list[Shape] = []
    for name, data in _members(path):
        where = f"{path.name}, ROI {name!r}"
        try:
            roi = roifile.ImagejRoi.frombytes(data)
            parts = list(_parts(roi, where, shape, stroke_width, known))
        except DAMAGE as error:
            raise LabelError(
                f"{where}: expected an ImageJ ROI, found one that is damaged ({error}); save it again in ImageJ"
            ) from error
        shapes += parts
    return shapes


def _members(path: Path) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of each ROI of a file, read within limits."""
    if path.suffix.lower() == ".roi":
        if (size := path.stat().st_size) > MAX_ROI_BYTES:
            raise LabelError(
                f"{path.name}: expected a ROI of at most {MAX_ROI_BYTES} bytes, found {size}; simplify its outline"
            )
        return [(path.stem, path.read_bytes())]
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
            others = [m.filename for m in members if not m.filename.lower().endswith(".roi")]
            if others or not members:
                raise LabelError(
                    f"{path.name}: expected a zip of ImageJ ROIs (.roi), found {others[:3] or 'nothing'} in it; save "
                    "it with the ROI Manager's More > Save, or unpack it and give its files"
                )
            total = sum(m.file_size for m in members)
            if len(members) > MAX_ROIS or total > MAX_ZIP_BYTES or max(m.file_size for m in members) > MAX_ROI_BYTES:
                raise LabelError(
                    f"{path.name}: expected at most {MAX_ROIS} ROIs of together {MAX_ZIP_BYTES} bytes and "
                    f"{MAX_ROI_BYTES} bytes each, found {len(members)} of together {total} bytes; save fewer ROIs per "
                    "file"
                )
            for member in members:
                if member.flag_bits & 1:
                    raise LabelError(
                        f"{path.name}: expected ROIs without a password, found {member.filename!r} encrypted; save it "
                        "without"
                    )
                with archive.open(member) as file:
                    found.append((member.filename[:-4], file.read(MAX_ROI_BYTES)))
    # NotImplementedError is what zipfile raises for a compression it does not know.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise LabelError(
            f"{path.name}: expected a zip of ImageJ ROIs, found a damaged file ({error}); save it again"
        ) from error
    return found


def _parts(
    roi: Any, where: str, shape: tuple[int, int, int, int], stroke_width: float | None, known: Collection[str]
) -> list[Shape]:
    """Return the shapes of one ROI: one, or one per slice for points on several slices."""
    label = _label(roi, where, known)
    colour = roi.hexcolor(roi.stroke_color)
    width = stroke_width or max(1.0, float(roi.float_stroke_width or roi.stroke_width))
    kind, rings = _outline(roi, where)
    positions = roi.counter_positions
    if kind == "points" and positions is not None and positions.any():
        # each point remembers its slice
        return [
            Shape(kind, (rings[0][positions == p],), label, _stack_place(int(p), shape, where), where, width, colour)
            for p in np.unique(positions)
        ]
    if roi.t_position > 0 or roi.z_position > 0:
        place = (max(roi.t_position, 1) - 1, max(roi.z_position, 1) - 1)
    else:
        place = _stack_place(roi.position, shape, where)
    return [Shape(kind, rings, label, place, where, width, colour)]


def _label(roi: Any, where: str, known: Collection[str]) -> str | int:
    if roi.group > 0:
        return int(roi.group)
    if roi.name in known:
        return roi.name
    name = re.sub(r"[\s_\-#.]+\d+$", "", roi.name).strip()
    if not name or re.fullmatch(r"[\d\s_\-#.]*", name):
        raise LabelError(
            f"{where}: expected a ROI with a group number, or named after its class, found the name {roi.name!r}; set "
            "its group (Edit > Selection > Properties…) or rename it"
        )
    return name


def _stack_place(position: int, shape: tuple[int, int, int, int], where: str) -> tuple[int, int] | None:
    """Return the (t, z) of a slice number counted from 1 through the whole stack; None for 0, "on all slices"."""
    frames, planes = shape[:2]
    if position <= 0:
        return None
    if frames > 1 and planes > 1:
        raise LabelError(
            f"{where}: expected a position with z and frame, since the image has {frames} frames of {planes} planes, "
            f"found slice number {position}; open the image as a hyperstack, then update and save the ROIs"
        )
    if frames == planes == 1:
        return 0, 0  # the number counts channels
    return (position - 1, 0) if frames > 1 else (0, position - 1)


def _outline(roi: Any, where: str) -> tuple[Any, tuple[NDArray[np.float64], ...]]:
    """Return kind and rings; coordinates of lines and points count from pixel centres, those of areas from corners."""
    import roifile

    types, subtypes = roifile.ROI_TYPE, roifile.ROI_SUBTYPE
    areas = (types.POLYGON, types.FREEHAND, types.TRACED)
    lines: Mapping[Any, str] = {
        types.LINE: "line",
        types.POLYLINE: "line",
        types.FREELINE: "line",
        types.POINT: "points",
    }
    if roi.options & roifile.ROI_OPTIONS.SPLINE_FIT:
        raise LabelError(
            f"{where}: expected straight segments, found a spline; use Edit > Selection > Interpolate and save it again"
        )
    if roi.subtype not in (subtypes.UNDEFINED, subtypes.ELLIPSE, subtypes.ROTATED_RECT) or roi.rounded_rect_arc_size:
        raise LabelError(
            f"{where}: expected an area, a line or points, found {_type_name(roi)}; delete it, or draw it as an area"
        )
    if roi.composite and roi.roitype == types.RECT:
        return "area", tuple(np.asarray(part, np.float64) for part in roi.coordinates(multi=True))
    if roi.roitype in (types.RECT, types.OVAL):
        box = (roi.left, roi.top, roi.right, roi.bottom)
        if roi.subpixelrect:
            box = (roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd)
        x0, y0, x1, y1 = (float(v) for v in box)
        if roi.roitype == types.OVAL:
            return "ellipse", (np.array([[x0, y0], [x1, y1]]),)
        return "area", (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),)
    if roi.roitype in areas:
        return "area", (np.asarray(roi.coordinates(), np.float64),)
    if roi.roitype in lines:
        return lines[roi.roitype], (np.asarray(roi.coordinates(), np.float64) + 0.5,)
    raise LabelError(
        f"{where}: expected an area, a line or points, found {_type_name(roi)}; delete it, or draw it as an area"
    )


def _type_name(roi: Any) -> str:
    return (
        f"type {roi.roitype.name}, subtype {roi.subtype.name}{', rounded corners' if roi.rounded_rect_arc_size else ''}"
    )
