"""Versions of ilastik, such as "1.4.0b7" and "1.3.3post2", in their order."""

import re
from typing import NamedTuple


class Version(NamedTuple):
    """A version: its numbers; its stage, below 0 for previews, 0 for the release, 1 after it; and the number of the stage."""

    numbers: tuple[int, ...]
    stage: int
    stage_number: int


STAGES = {"dev": -4, "a": -3, "b": -2, "rc": -1, "": 0, "post": 1}

_VERSION = re.compile(r"(?P<numbers>\d+(\.\d+)*)(?P<stage>a|b|rc|\.?post|\.?dev)?(?P<number>\d*)")


def parse_version(text: str) -> Version:
    """Return the version a text begins with; (0,) for a text that is none."""
    found = _VERSION.match(text)
    if found is None:
        return Version((0,), 0, 0)
    numbers = tuple(map(int, found["numbers"].split(".")))
    return Version(numbers, STAGES[(found["stage"] or "").lstrip(".")], int(found["number"] or 0))
