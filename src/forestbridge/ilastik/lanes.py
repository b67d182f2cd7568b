"""The images of a project: embedded ones and references to files in, `Image`s out."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from forestbridge.errors import ImageError, ProjectError
from forestbridge.image import Image, read_image
from forestbridge.image.axistags import axes_of_tags
from forestbridge.image.hdf5 import split_internal
from forestbridge.image.hdf5_nodes import Kind, Node
from forestbridge.image.source import shown

_logger = logging.getLogger(__name__)

PROJECT = Kind("an ilastik project (.ilp)", ProjectError, "open the project in ilastik and save it again")

GROUP = "Input Data"
ROLE = "Raw Data"

Where = Literal["embedded", "file", "url"]

_IN_HDF5 = re.compile(r"(.*\.(?:h5|hdf5|hdf))(/.+)", re.IGNORECASE)
_STACK = re.compile("[*;:]")
"""In a path without its drive: a pattern, or several files, which ilastik joins by the system's separator of paths."""

LETTERS = {2: "yx", 3: "zyx", 4: "zyxc", 5: "tzyxc"}
"""Axes by number of dimensions, where an old project does not say; with three, yxc if the last one is short."""


@dataclass(frozen=True)
class Lane:
    """One image of a project.

    Attributes
    ----------
    name
        The name that the project shows (nickname).
    kind
        Whether its pixels are in the project, in a file, or behind an address in the network.
    path
        Place inside the project, or the file as the project names it.
    axes
        Axes of the pixels as they are stored, letters of "tczyx" in their order.
    shape
        Length of each axis; empty where the project does not say.
    """

    name: str
    kind: Where
    path: str
    axes: str
    shape: tuple[int, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each of T, C, Z, Y, X; 1 for an axis that the image does not have."""
        known = dict(zip(self.axes.upper(), self.shape)) if self.shape else {}
        return {a: known.get(a, 1) for a in "TCZYX"}

    def describe(self) -> dict[str, Any]:
        """Return what `forestbridge info` prints, as JSON values."""
        return {"name": self.name, "pixels": self.kind, "path": self.path, "axes": self.axes, "shape": list(self.shape)}


def read_lanes(root: Node) -> tuple[Lane | None, ...]:
    """Return the raw data of each lane, in order; None for a lane without.

    Raises
    ------
    ProjectError
        If an entry is damaged.
    """
    infos = root.node(f"{GROUP}/infos")
    if infos is None:
        return ()
    lanes = []
    for name in infos.members():
        lane = infos.node(name)
        assert lane is not None  # it was listed
        # Projects from before the prediction mask have the entry itself in the lane.
        info = lane if lane.has("location") or lane.has("filePath") else lane.node(ROLE)
        lanes.append(None if info is None or not info.members() else _read_lane(root, info))
    return tuple(lanes)


def _read_lane(root: Node, info: Node) -> Lane:
    path = info.text("filePath", "")
    inner = info.text("inner_path", "")
    kind: Where = "embedded" if info.text("location", "") == "ProjectInternal" else "file"
    if "://" in path and kind == "file":
        kind = "url"
    if kind == "embedded" and not inner:
        inner = f"{GROUP}/local_data/{info.text('datasetId')}"
    shape = tuple(int(n) for n in info.array("shape", kinds="iu", ndim=1, most=5)) if info.has("shape") else ()
    tags = axes_of_tags(info.text("axistags", "")) or info.text("axisorder", "")
    if kind == "embedded":
        dataset = root.dataset(inner)
        if dataset is None:
            raise ProjectError(
                f"{root.file}: expected the image of {info.name} at {inner}, found nothing there; the project is damaged"
            )
        shape = tuple(dataset.shape)
        tags = tags or axes_of_tags(root.attribute_text(inner, "axistags")) or ""
    axes = tags or _likely_axes(shape)
    if shape and len(axes) != len(shape):
        raise ProjectError(
            f"{root.file}: expected one axis for each dimension of {shape} in {info.name}, found {axes!r}; open the project in ilastik, "
            "set the axes in the properties of the image, and save it"
        )
    return Lane(info.text("nickname", Path(path).stem), kind, inner if kind == "embedded" else path, axes, shape)


def _likely_axes(shape: tuple[int, ...]) -> str:
    """Return what ilastik takes for the axes of an image that does not name them."""
    if len(shape) == 3 and shape[-1] <= 4:
        return "yxc"
    return LETTERS.get(len(shape), "")


def open_lane(project: Path, lane: Lane) -> Image:
    """Open the image of a lane.

    A file is looked for where the project says, relative to the project's folder, and then in that folder.

    Raises
    ------
    ProjectError
        If it is behind an address, is a stack of several files, or is not there.
    ImageError
        If it cannot be read, or has another size than when the project was saved.
    """
    if lane.kind == "url":
        raise ProjectError(
            f"{shown(project)}: expected an image in the project or in a file, found the address {lane.path}; save it as a file and "
            "give it yourself"
        )
    if lane.kind == "embedded":
        return _open_embedded(project, lane)
    if _STACK.search(re.sub(r"^[A-Za-z]:", "", lane.path)):
        raise ProjectError(
            f"{shown(project)}: expected one file for the image {lane.name}, found a stack of several ({shown(lane.path)}); save the "
            "stack as one file, and give it yourself"
        )
    path = _find_file(project, lane)
    try:
        image = read_image(path)
        if _same_size(image, lane):
            return image
    except ImageError:
        if not lane.axes:
            raise
    image = read_image(path, axes=_axes_in_file(path, lane))
    if not _same_size(image, lane):
        expected = " ".join(f"{a}={n}" for a, n in lane.sizes.items() if a in lane.axes.upper())
        raise ImageError(
            f"{shown(path)}: expected an image of {expected}, as when the project {shown(project)} was saved, found {image!r}; "
            "give the file that the project was made with"
        )
    return image


def _open_embedded(project: Path, lane: Lane) -> Image:
    image = read_image(project / lane.path.strip("/"), axes=lane.axes)
    return replace(image, source=f"{shown(project)}: {lane.name}")


def _find_file(project: Path, lane: Lane) -> Path:
    # A path of Windows keeps its name when the project has moved to another system; a dataset in HDF5 follows its file.
    stored = lane.path.replace("\\", "/")
    found = _IN_HDF5.match(stored)
    file, inside = found.groups() if found else (stored, "")
    name = file.rsplit("/", 1)[-1] + inside
    for path in (project.parent / lane.path, project.parent / name):
        if Path(split_internal(path)[0]).exists():
            _logger.info("%s: the image %s is %s", shown(project), lane.name, shown(path))
            return path
    raise ProjectError(
        f"{shown(project)}: expected the image {lane.name} at {shown(lane.path)}, found nothing there nor beside the project; put it "
        "into the project's folder"
    )


def _axes_in_file(path: Path, lane: Lane) -> str:
    """Return the axes that the project gives the file, without a channel axis that ilastik added."""
    try:
        read_image(path, axes=lane.axes)
    except ImageError:
        return lane.axes.replace("c", "") if lane.sizes["C"] == 1 else lane.axes
    return lane.axes


def _same_size(image: Image, lane: Lane) -> bool:
    return not lane.shape or image.sizes == lane.sizes
