"""From an error to what a user reads and the exit code of the program; `forestbridge.errors` draws the table."""

import errno
import shlex
import sys
from pathlib import Path

import typer

from forestbridge.errors import ForestbridgeError
from forestbridge.image.source import shown

USAGE, INPUT, RESOURCES, INTERRUPTED = 2, 3, 6, 7

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises about a command line; it has no public name of its own."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM)


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    match error:
        case ForestbridgeError():
            return error.exit_code
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED
        case MemoryError():
            return RESOURCES
        case OSError():
            return RESOURCES if error.errno in FULL_DISK else INPUT
    return USAGE


def error_message(error: BaseException, name: str) -> str:
    """Return what a user reads: who says it, what was expected, what was found, what to do."""
    if isinstance(error, UsageError):
        return _usage_message(error, name)
    match error:
        case KeyboardInterrupt() | typer.Abort():
            return f"{name}: expected to finish, found an interruption (Ctrl-C); start again with: {typed_command()}"
        case MemoryError():
            return (
                f"{name}: expected enough memory, found too little ({str(error) or 'nothing left'}); work on a smaller part, "
                "end other programs, or use fewer --jobs"
            )
        case OSError():
            return f"{name}: expected files and folders that can be used, found: {error}; check path, permissions and space"
    return f"{name}: {error}"


def typed_command(*, without: str = "") -> str:
    """Return the command as it was typed, as one line for a shell.

    Parameters
    ----------
    without
        An option that is left out.
    """
    program, *arguments = sys.argv
    return shlex.join([Path(program).name, *(shown(a) for a in arguments if not without or a != without)])


def _usage_message(error: Exception, name: str) -> str:
    """Return what is wrong with a command line, and where its options are listed; nothing if the help was shown instead."""
    text = str(getattr(error, "format_message", error.__str__)())
    if not text:
        return ""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else name
    parameter = getattr(error, "param", None)
    hint = ""
    if text.startswith("Missing argument") and getattr(parameter, "param_type_name", "") == "argument":
        hint = " (arguments come first: an option shown with ... takes all values up to the next option)"
    return f"{command}: {text.rstrip('.')}{hint}; see: {command} --help"
