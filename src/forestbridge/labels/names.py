"""Names and colours of classes: from what the user gives, to one of each for every painted value."""

import re
from collections.abc import Mapping, Sequence

from forestbridge.errors import LabelError

DEFAULT_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
"""Colours of classes 1, 2, … in turn (Okabe and Ito, safe for the colour-blind)."""

Names = Mapping[int, str] | Sequence[str]
"""Names of classes: value → name, or one name for each painted value in ascending order."""


def class_names(painted: Sequence[int], names: Names | None, source: str) -> dict[int, str]:
    """Return a name for each painted value: the given one, or "class k".

    Raises
    ------
    LabelError
        If names are missing, superfluous, empty or equal.
    """
    found = _per_class(painted, names, "name", source)
    if any(not name.strip() for name in found.values()) or len(set(found.values())) < len(found):
        raise LabelError(
            f"{source}: expected different, non-empty class names, found {list(found.values())}; rename one of them"
        )
    return {value: f"class {value}" for value in painted} | found


def class_colours(painted: Sequence[int], colours: Names | None, source: str) -> dict[int, str]:
    """Return a colour for each painted value: the given one, or one of `DEFAULT_COLOURS`.

    Raises
    ------
    LabelError
        If colours are missing, superfluous, or not "#rrggbb".
    """
    found = {value: colour.lower() for value, colour in _per_class(painted, colours, "colour", source).items()}
    if bad := [colour for colour in found.values() if not re.fullmatch("#[0-9a-f]{6}", colour)]:
        raise LabelError(
            f"{source}: expected colours such as '#ff8000', found {bad[0]!r}; write red, green and blue with two hex "
            "digits each"
        )
    return {value: DEFAULT_COLOURS[(value - 1) % len(DEFAULT_COLOURS)] for value in painted} | found


def replaced_colours(
    found: Mapping[int, str], colours: Names | None, painted: Sequence[int], source: str
) -> dict[int, str]:
    """Return the colours found in files, with those that the user gives in their place."""
    if colours is None:
        return dict(found)
    return class_colours(painted, {**found, **colours} if isinstance(colours, Mapping) else colours, source)


def _per_class(painted: Sequence[int], given: Names | None, what: str, source: str) -> dict[int, str]:
    if given is None:
        return {}
    if isinstance(given, str):
        raise TypeError(
            f"expected a sequence of {what}s or a mapping from label values, found the single text {given!r}"
        )
    if isinstance(given, Mapping):
        missing = [value for value in painted if value not in given]
        if missing and what == "name":
            raise LabelError(
                f"{source}: expected a name for each painted value, found none for {missing}; add it, or leave it out "
                f"with ignore={missing[0]} (--ignore {missing[0]})"
            )
        return {int(value): str(name) for value, name in given.items()}
    if len(given) != len(painted):
        raise LabelError(
            f"{source}: expected one {what} for each painted value {list(painted)}, found {len(given)}: {list(given)}; "
            f"give {len(painted)}, or a mapping such as {{1: {given[0] if given else 'a'!r}}}"
        )
    return {value: str(name) for value, name in zip(painted, given, strict=True)}
