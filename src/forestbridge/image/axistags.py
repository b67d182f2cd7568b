"""Axes as ilastik and vigra write them: the JSON of axistags in and out."""

import json
from collections.abc import Mapping
from typing import Any

TYPE_FLAGS = {"c": 1, "x": 2, "y": 2, "z": 2, "t": 8}
"""vigra's AxisType of each axis."""


def axes_of_tags(text: str | None) -> str | None:
    """Return the letters of axistags, such as "yxc"; None for a text that is none, or names axes that no image has."""
    if text is None:
        return None
    try:
        keys = [str(axis["key"]) for axis in json.loads(text)["axes"]]
    except (ValueError, TypeError, KeyError):
        return None
    letters = "".join(keys)
    return letters if len(set(letters)) == len(keys) and set(letters) <= set(TYPE_FLAGS) else None


def resolutions_of_tags(text: str | None) -> dict[str, float]:
    """Return the pixel size of each axis that has one; vigra writes 0 where it is not known."""
    try:
        axes = json.loads(text or "")["axes"]
        return {str(axis["key"]): float(axis["resolution"]) for axis in axes if float(axis["resolution"]) > 0}
    except (ValueError, TypeError, KeyError):
        return {}


def tags_of_axes(axes: str, sizes: Mapping[str, float] | None = None) -> str:
    """Return the axistags of axes such as "tzyxc", as vigra writes them; `sizes` are pixel sizes of some axes."""
    known = sizes or {}
    entries: list[dict[str, Any]] = [
        {"key": axis, "typeFlags": TYPE_FLAGS[axis], "resolution": known.get(axis, 0), "description": ""}
        for axis in axes
    ]
    return json.dumps({"axes": entries}, indent=2)


def channels_last(axes: str) -> str:
    """Return the axes with c at the end, as ilastik's pixel classification works on them; added where it is missing."""
    return axes.replace("c", "") + "c"
