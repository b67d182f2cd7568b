"""The two programs: commands gathered, errors turned into one message and an exit code."""

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from typer.main import get_command

from forestbridge.cli import data, demo, ilastik, package
from forestbridge.cli.errors import UsageError, error_message, exit_code
from forestbridge.cli.export import export
from forestbridge.cli.extract import extract
from forestbridge.cli.messages import messages_on_stderr, say
from forestbridge.cli.options import HELP, Version
from forestbridge.cli.output import make_stdout_safe
from forestbridge.cli.parsing import SeveralValues
from forestbridge.cli.predict import predict
from forestbridge.cli.train import train
from forestbridge.errors import ForestbridgeError, InterruptedRunError

TYPER_INTERRUPTED = 130
"""What typer turns Ctrl-C into."""

app = typer.Typer(
    name="forestbridge",
    help="Train a pixel classifier once; run it in Python, Fiji, ilastik, QuPath and every bioimage.io tool.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=HELP,
)
app.command()(demo.demo)
app.command()(data.info)
app.command()(data.encoders)
app.command(cls=SeveralValues)(extract)
app.add_typer(data.labels)
app.command(cls=SeveralValues)(train)
app.command(cls=SeveralValues)(predict)
app.command(cls=SeveralValues)(export)
app.command()(data.verify)
package.app.command(cls=SeveralValues)(ilastik.convert)
package.app.command(cls=SeveralValues)(ilastik.ilastik)
app.add_typer(package.app)


@app.callback()
def _options(version: Version = False) -> None:
    """Train a pixel classifier once; run it in Python, Fiji, ilastik, QuPath and every bioimage.io tool."""


def main() -> None:
    """Run ``forestbridge``."""
    sys.exit(run(app, "forestbridge"))


def main_package() -> None:
    """Run ``ff-package``, the same as ``forestbridge package``."""
    sys.exit(run(package.app, "ff-package"))


def run(program: typer.Typer, name: str) -> int:
    """Run a program with the arguments of this process; tell an error in one message, and return the exit code.

    FORESTBRIDGE_TRACEBACK=1 shows where an error comes from besides.
    """
    make_stdout_safe()
    with messages_on_stderr(), _sigterm_as_ctrl_c():
        try:
            code = get_command(program).main(prog_name=name, standalone_mode=False)
            if code == TYPER_INTERRUPTED:
                raise KeyboardInterrupt
            return code or 0
        except (UsageError, ForestbridgeError, ValueError, TypeError, OSError) as error:
            return _tell(error, name)
        except (MemoryError, KeyboardInterrupt, typer.Abort) as error:
            return _tell(error, name)


def _forget_what_ran_besides() -> None:
    """Say nothing of reads in the background that an interruption cut off: Python would print where each of them was."""
    sys.unraisablehook = lambda _: None


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which clusters send when the time is over, as Ctrl-C: what is done is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _tell(error: BaseException, name: str) -> int:
    """Print an error's message on stderr and return its exit code."""
    if isinstance(error, KeyboardInterrupt | InterruptedRunError):
        atexit.register(_forget_what_ran_besides)
    if os.environ.get("FORESTBRIDGE_TRACEBACK") == "1":
        traceback.print_exception(error)
    if message := error_message(error, name):
        say(message)
    return exit_code(error)
