"""Several files in one call: a bad one is reported and the rest goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import typer

from forestbridge.cli.errors import exit_code
from forestbridge.cli.messages import say
from forestbridge.errors import ForestbridgeError, ImageError, InterruptedRunError, ResourceError
from forestbridge.image.hdf5 import split_internal
from forestbridge.image.source import shown

T = TypeVar("T")
R = TypeVar("R")


class Failure(NamedTuple):
    """A file that was not done."""

    path: Path
    error: ForestbridgeError | ValueError

    def to_json_dict(self) -> dict[str, Any]:
        """Return the file and its message as JSON values."""
        return {"input": str(self.path), "error": str(self.error), "exit_code": exit_code(self.error)}


def check_present(paths: Sequence[Path]) -> None:
    """Refuse paths where nothing is, before anything runs; one path alone gets its own message when it is opened.

    Raises
    ------
    ImageError
        With all paths that lead nowhere.
    """
    missing = [shown(path) for path in paths if not Path(split_internal(path)[0]).exists()]
    if missing and len(paths) > 1:
        raise ImageError(
            f"expected {len(paths)} inputs, found nothing at {len(missing)} of them: {', '.join(missing)}; check the paths"
        )


def for_each(items: Sequence[tuple[Path, T]], work: Callable[[Path, T], R]) -> tuple[list[R], list[Failure]]:
    """Do `work` on each item; with several items, report a bad one and go on.

    A full disk, a missing device or Ctrl-C ends the batch at once: the next item would meet it too.

    Parameters
    ----------
    items
        Path of the input, and what `work` needs besides.

    Returns
    -------
    results, failures
        Of the items that were done, and the others.
    """
    results: list[R] = []
    failures: list[Failure] = []
    for n, (path, item) in enumerate(items):
        try:
            results.append(work(path, item))
        except (InterruptedRunError, ResourceError):
            raise
        except KeyboardInterrupt as error:
            waiting = ", ".join(shown(p) for p, _ in items[n:])
            raise InterruptedRunError(
                f"expected to finish, found an interruption; what was written is complete, to do are still: {waiting}"
            ) from error
        except (ForestbridgeError, ValueError) as error:
            if len(items) == 1:
                raise
            failures.append(Failure(path, error))
            say(f"failed: {error}")
    return results, failures


def end(n_items: int, failures: Sequence[Failure]) -> None:
    """End with the exit code of the first failure, if there is one."""
    if failures:
        say(f"{n_items - len(failures)} of {n_items} done, not done: {', '.join(shown(f.path) for f in failures)}")
        raise typer.Exit(exit_code(failures[0].error))
