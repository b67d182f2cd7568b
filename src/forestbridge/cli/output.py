"""Results, all of them on stdout and never wrapped: paths, facts, tables, JSON."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forestbridge.forest import PixelForest
from forestbridge.image.source import shown

told: dict[str, str] = {}
"""What a run says in its status line, for macros: names and values, in the order in which they were told."""


def tell(**facts: object) -> None:
    """Keep names and values for the status line of ``--macro``."""
    told.update({name: str(value) for name, value in facts.items()})


def print_path(path: Path, *, json: bool = False) -> None:
    """Print the path of a file that was written, on a line of its own; with `json` only keep it for the status line."""
    tell(output=path.absolute(), outputs=int(told.get("outputs", 0)) + 1)
    if not json:
        print(shown(path))


def print_text(text: str) -> None:
    """Print a text of several lines; control characters from files are shown as escapes."""
    for line in text.split("\n"):
        print(shown(line))


def print_json(document: Any) -> None:
    """Print a result for machines, as one JSON document in ASCII: it passes through every console and pipe."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_result(document: Mapping[str, Any], *, json: bool) -> None:
    """Print names and values, for people or machines."""
    if json:
        print_json(document)
    else:
        print_facts(document)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; its columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(title)
    for row in (columns, ["─" * width for width in widths], *rows):
        print("  " + shown("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip())


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, nested ones indented."""
    print_text("\n".join(_lines(facts)))


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{name}:"
            yield from ("  " + line for line in _lines(value))
        elif _is_list(value) and any(isinstance(v, Mapping) or _is_list(v) for v in value):
            yield f"{name}:"
            for entry in value:
                inner = list(_lines(entry)) if isinstance(entry, Mapping) else [_text(entry)]
                yield from (("  - " if n == 0 else "    ") + line for n, line in enumerate(inner))
        else:
            yield f"{name}: {_text(value)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ((), [], {}, ""):
        return "-"
    return ", ".join(map(_text, value)) if _is_list(value) else str(value)


def print_training(forest: PixelForest, seconds: float) -> None:
    """Print the report of a training: classes, out-of-bag confusion, most important features."""
    training = forest.training
    rows = [
        [str(value), name, str(training["pixels"][str(value)]), *map(str, row)]
        for value, name, row in zip(forest.classes, forest.names, training["oob_confusion"], strict=True)
    ]
    print_table(
        "painted pixels, and what the trees that did not see them say",
        ["label", "class", "pixels", *forest.names],
        rows,
    )
    print(f"out-of-bag accuracy {training['oob_accuracy']:.4f} of {training['oob_pixels']} pixels")
    print_table(
        "most important features", ["feature", "importance"], [[n, f"{v:.3f}"] for n, v in training["importance"]]
    )
    grown = f"grown by {training['engine']}"
    print(f"{forest.n_trees} trees, depth {forest.depth()}, {len(forest.feature)} nodes, {grown}, {seconds:.1f} s")


def make_stdout_safe() -> None:
    """Write characters that the console or pipe cannot show as escapes, in place of failing after the work is done."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
