"""Tables of objects: named columns in; CSV or Parquet files out, which grow piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import MissingExtraError
from forestbridge.files import new_file
from forestbridge.image.source import shown

SUFFIXES = (".csv", ".parquet")
"""What tables are written to."""

ROW_GROUP = 100_000
"""Rows that are gathered for one group of a Parquet file."""


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Objects and their measurements.

    Attributes
    ----------
    columns
        Name → (N,) int64, float64 or str, in the order of the table. NaN is what cannot be said.
    """

    columns: Mapping[str, NDArray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray:
        """Return one column."""
        return self.columns[name]

    def __repr__(self) -> str:
        return f"<ObjectTable: {len(self)} objects, {len(self.columns)} columns>"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the objects as names and Python values; None for NaN."""
        lists = [[None if v != v else v for v in column.tolist()] for column in self.columns.values()]
        for values in zip(*lists, strict=True):
            yield dict(zip(self.columns, values, strict=True))


def joined(tables: Sequence[ObjectTable]) -> ObjectTable:
    """Return the objects of several tables with the same columns, of which there is at least one."""
    return ObjectTable({name: np.concatenate([t.columns[name] for t in tables]) for name in tables[0].columns})


def write_table(path: str | Path, tables: ObjectTable | Iterable[ObjectTable], *, overwrite: bool = False) -> int:
    """Write objects as CSV or Parquet; tables that come one by one are not kept.

    Parameters
    ----------
    path
        .csv (UTF-8, commas, one header line, nothing where a value cannot be said), or .parquet (the extra "formats").
    tables
        All with the same columns; at least one, which may be empty.

    Returns
    -------
    n
        Number of objects written.

    Raises
    ------
    ValueError
        If the suffix is another one.
    MissingExtraError
        If pyarrow is needed and not installed.
    OutputExistsError, ResourceError
        If the path exists and `overwrite` is False, or cannot be written.
    """
    path = check_table_name(path)
    n = 0
    with new_file(path, overwrite=overwrite) as temporary, table_writer(temporary, path.suffix.lower()) as write:
        for table in [tables] if isinstance(tables, ObjectTable) else tables:
            write(table)
            n += len(table)
    return n


def check_table_name(path: str | Path) -> Path:
    """Refuse another suffix than those of `SUFFIXES`, and Parquet without pyarrow.

    Raises
    ------
    ValueError, MissingExtraError
        As `write_table`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"expected a table named {' or '.join('*' + s for s in SUFFIXES)}, found {shown(path)}")
    if path.suffix.lower() == ".parquet":
        _parquet()
    return path


@contextmanager
def table_writer(path: Path, suffix: str) -> Iterator[Callable[[ObjectTable], None]]:
    """Give a function that appends the rows of a table to a file."""
    if suffix == ".parquet":
        with _parquet_writer(path) as write:
            yield write
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        header: list[str] = []

        def append(table: ObjectTable) -> None:
            if not header:
                header.extend(table.columns)
                file.write(",".join(map(_cell, header)) + "\n")
            cells = [_cells(column) for column in table.columns.values()]
            file.writelines(",".join(row) + "\n" for row in zip(*cells, strict=True))

        yield append


def _cells(column: NDArray) -> list[str]:
    """Return a column as texts; floats with as many digits as bring the same number back."""
    if column.dtype.kind == "f":
        return ["" if v != v else f"{v:.0f}" if v.is_integer() and abs(v) < 1e15 else repr(v) for v in column.tolist()]
    return list(map(str, column.tolist())) if column.dtype.kind in "iu" else [_cell(v) for v in column.tolist()]


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Callable[[ObjectTable], None]]:
    arrow, parquet = _parquet()
    waiting: list[ObjectTable] = []
    writers: list[Any] = []

    def flush() -> None:
        table = arrow.table({name: arrow.array(column) for name, column in joined(waiting).columns.items()})
        if not writers:
            writers.append(parquet.ParquetWriter(path, table.schema))
        writers[0].write_table(table)
        waiting.clear()

    def append(table: ObjectTable) -> None:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROW_GROUP:
            flush()

    try:
        yield append
        if waiting:
            flush()
    finally:
        for writer in writers:
            writer.close()


def _parquet() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("a Parquet table", "formats") from error
