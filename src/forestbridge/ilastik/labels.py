"""The labels of a project: blocks in, points and values out.

Each lane has a group ``labelsNNN`` with blocks, uint8 arrays cropped to what is painted; the attribute ``blockSlice`` says where, as
"[10:40,20:90,0:1]". Which axes these are depends on the version that saved them (ilastik `pixelClassificationSerializer.py`).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ProjectError
from forestbridge.ilastik.lanes import Lane
from forestbridge.ilastik.versions import Version, parse_version
from forestbridge.image.axistags import axes_of_tags, channels_last
from forestbridge.image.hdf5_nodes import Node

GROUP = "LabelSets"

MAX_BLOCK = 2**31
"""Largest number of pixels of a block."""

FORCED_ORDER = "txyzc"
"""Axes of the labels in the workflow of pixel and object classification, from 1.3.3 to before 1.3.3post2."""

_SLICE = re.compile(r"\[\d+:\d+(,\d+:\d+)*\]")


class LanePoints(NamedTuple):
    """The painted pixels of a lane.

    Attributes
    ----------
    points
        (N, 4) int64: (t, z, y, x), ascending.
    values
        (N,) int64: label values.
    """

    points: NDArray[np.int64]
    values: NDArray[np.int64]


def read_labels(
    group: Node, lanes: tuple[Lane | None, ...], *, version: Version, workflow: str
) -> dict[int, LanePoints]:
    """Return the painted pixels of each lane that has any.

    Parameters
    ----------
    group
        ``PixelClassification`` of a project.
    lanes
        Of the project.
    version, workflow
        That saved it; they decide the order of the axes.

    Raises
    ------
    ProjectError
        If a block does not lie in its image, or is no block.
    """
    sets = group.node(GROUP)
    if sets is None:
        return {}
    result = {}
    for index, name in enumerate(sorted(sets.members(), key=_number)):
        labels = sets.node(name)
        assert labels is not None  # it was listed
        blocks = list(_blocks(labels, _lane(lanes, index, labels), version, workflow))
        if blocks:
            points = np.concatenate([b.points for b in blocks])
            values = np.concatenate([b.values for b in blocks])
            order = np.lexsort(points.T[::-1])
            result[index] = _without_doubles(LanePoints(points[order], values[order]))
    return result


def _number(name: str) -> int:
    """Return the number in a name: some versions wrote labels10 after labels9, unpadded."""
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 0


def _lane(lanes: tuple[Lane | None, ...], index: int, labels: Node) -> Lane | None:
    if index < len(lanes):
        return lanes[index]
    if not labels.members():
        return None
    raise ProjectError(
        f"{labels.file}: expected labels for {len(lanes)} images, found {labels.name} besides; the project is damaged"
    )


def _blocks(labels: Node, lane: Lane | None, version: Version, workflow: str) -> Iterator[LanePoints]:
    for name in labels.members():
        path = f"{name}/data" if labels.is_group(name) else name  # masked images: data, mask, fill_value
        dataset = labels.dataset(path)
        if dataset is None or lane is None:
            raise ProjectError(
                f"{labels.file}: expected a block of labels over an image, found none at {labels.name}/{name}; the project is damaged"
            )
        ndim = len(dataset.shape)
        block = labels.array(path, kinds="iu", ndim=ndim, most=MAX_BLOCK)
        if path != name:
            block = np.where(labels.array(f"{name}/mask", kinds="b", ndim=ndim, most=MAX_BLOCK), 0, block)
        axes = _axes(labels, name, ndim, lane, version, workflow)
        yield _points(block, _start(labels, name, block.shape), axes, lane, f"{labels.file}: {labels.name}/{name}")


def _axes(labels: Node, name: str, ndim: int, lane: Lane, version: Version, workflow: str) -> str:
    """Return the axes of a block."""
    forced = workflow == "Object Classification (from pixel classification)"
    tags = axes_of_tags(labels.attribute_text(name, "axistags"))
    if forced and parse_version("1.3.3") <= version < parse_version("1.3.3post2"):
        candidates = [FORCED_ORDER]
    elif parse_version("1.3.3post2") <= version <= parse_version("1.4.0b7"):
        candidates = [lane.axes, tags, channels_last(lane.axes)]
    else:
        candidates = [tags, channels_last(lane.axes), lane.axes]
    for axes in candidates:
        if axes is not None and len(axes) == ndim and {"y", "x"} <= set(axes):
            return axes
    raise ProjectError(
        f"{labels.file}: expected labels with the axes of the image ({lane.axes}), found a block of {ndim} dimensions at "
        f"{labels.name}/{name}; open the project in ilastik and save it again"
    )


def _start(labels: Node, name: str, shape: tuple[int, ...]) -> list[int]:
    """Return the first pixel of a block along each of its axes."""
    text = labels.attribute_text(name, "blockSlice") or ""
    if _SLICE.fullmatch(text):
        bounds = [tuple(map(int, part.split(":"))) for part in text[1:-1].split(",")]
        if tuple(stop - start for start, stop in bounds) == shape:
            return [start for start, _ in bounds]
    raise ProjectError(
        f"{labels.file}: expected the place of a block of {shape} pixels in {labels.name}/{name} as [0:9,0:9], found {text[:80]!r}; open "
        "the project in ilastik and save it again"
    )


def _points(block: NDArray, start: list[int], axes: str, lane: Lane, where: str) -> LanePoints:
    found = np.nonzero(block)
    place = {a: index.astype(np.int64) + first for a, index, first in zip(axes, found, start, strict=True)}
    n = len(found[0])
    for axis, length in lane.sizes.items():
        inside = place.get(axis.lower())
        if lane.shape and axis != "C" and inside is not None and n and int(inside.max()) >= length:
            raise ProjectError(
                f"{where}: expected labels inside the image ({axis}={length}), found one at {axis.lower()}={int(inside.max())}; the "
                "image was replaced by a smaller one, or the project is damaged"
            )
    points = np.stack([place.get(a, np.zeros(n, np.int64)) for a in "tzyx"], axis=1)  # (n, 4)
    return LanePoints(points, block[found].astype(np.int64))


def _without_doubles(labels: LanePoints) -> LanePoints:
    """Return each pixel once, as its last block has it: blocks do not overlap, but nothing in the file says so."""
    if len(labels.points) < 2:
        return labels
    last = np.append((labels.points[1:] != labels.points[:-1]).any(axis=1), True)
    return LanePoints(labels.points[last], labels.values[last])
