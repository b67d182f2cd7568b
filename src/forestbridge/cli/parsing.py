"""Options that take several values: ``--names background nucleus``, as people type them."""

import os
import re
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperOption


class SeveralValues(TyperCommand):
    """A command whose repeatable options take all values up to the next option.

    ``--names a b -o x`` is read as ``--names a --names b -o x``; so are ``-n a b`` and ``--names=a b``. Numbers below zero are values.
    ``--`` ends it: what follows are arguments. Arguments of the command itself stand before such an option, after a value of
    another one, or after ``--``. A value that begins with a dash is written ``--names=-a``.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Repeat the option's name before each further value, then parse as usual."""
        repeatable = {name for p in self.params if isinstance(p, TyperOption) and p.multiple for name in p.opts}
        return super().parse_args(ctx, repeat_options(args, repeatable))  # pyright: ignore[reportArgumentType]  (typer.Context is typer's own name for it)


def repeat_options(args: list[str], repeatable: set[str]) -> list[str]:
    """Return the arguments with the option's name before each of its values."""
    expanded: list[str] = []
    current: str | None = None
    values = 0
    for n, arg in enumerate(args):
        if arg == "--":
            return expanded + args[n:]
        if arg.startswith("-") and arg != "-" and not _is_number(arg):
            name, equals, _ = arg.partition("=")
            current, values = (name if name in repeatable else None), int(bool(equals))
        elif current is not None:
            if values:
                expanded.append(current)
            values += 1
        expanded.append(arg)
    return expanded


def parse_tile(text: str) -> int | dict[str, int]:
    """Return the side of a tile, or for several encoders the side of each: "512", "dinov2=448,sam2_base=464".

    Raises
    ------
    ValueError
        If a side is no number from 1 on, or a name is missing or twice there.
    """
    entries = [entry.strip().rpartition("=") for entry in text.split(",")]
    sides = {name.strip(): int(side) for name, _, side in entries if side.strip().isdecimal() and int(side) > 0}
    if len(sides) < len(entries) or ("" in sides and len(sides) > 1):
        raise ValueError(
            "expected --tile with one side in pixels, 512, or one for each encoder, dinov2=448,sam2_base=464, found "
            f"{text!r}; write it so"
        )
    return sides.get("", sides)


def parse_weights(text: str) -> Path | dict[str, Path]:
    """Return a file of weights, or for several encoders the file of each: "a.pt", "dinov2=a.pth,sam2_base=b.pt".

    Raises
    ------
    ValueError
        If a name or file is missing, or a name is twice there.
    """
    if not re.match(r"\s*\w+\s*=", text) or os.path.exists(text):  # noqa: PTH110  (pathlib's raises where a name is too long)
        return Path(text)
    entries = [[part.strip() for part in entry.partition("=")] for entry in text.split(",")]
    files = {name: Path(file).expanduser() for name, equals, file in entries if name and equals and file}
    if len(files) < len(entries):
        raise ValueError(
            f"expected --weights with one file, or one for each encoder, dinov2=a.pth,sam2_base=b.pt, found {text!r}; write it so"
        )
    return files


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
