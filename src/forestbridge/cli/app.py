"""The two programs: commands gathered, errors turned into one message and an exit code."""

import atexit
import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import typer
from typer.main import get_command

from forestbridge.cli import baseline, data, demo, encoder_package, fiji, ilastik, package
from forestbridge.cli.convert import convert
from forestbridge.cli.encoders import encoders
from forestbridge.cli.errors import UsageError, error_message, exit_code
from forestbridge.cli.evaluate import evaluate
from forestbridge.cli.export import export
from forestbridge.cli.extract import extract
from forestbridge.cli.instances import instances
from forestbridge.cli.interruptions import interruptible
from forestbridge.cli.macro import Outcome, macro_order, run_for_macro
from forestbridge.cli.measure import measure
from forestbridge.cli.messages import messages_on_stderr, say
from forestbridge.cli.options import HELP, Version, add_macro_options
from forestbridge.cli.output import make_stdout_safe
from forestbridge.cli.overlay import overlay
from forestbridge.cli.parsing import SeveralValues
from forestbridge.cli.postprocess import postprocess
from forestbridge.cli.predict import predict
from forestbridge.cli.qc import qc
from forestbridge.cli.serve import serve
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
app.command()(demo.example)
app.command(cls=SeveralValues)(data.info)
app.command(cls=SeveralValues)(qc)
app.command()(encoders)
app.command(cls=SeveralValues)(extract)
app.add_typer(data.labels)
app.command(cls=SeveralValues)(train)
app.command(cls=SeveralValues)(predict)
app.add_typer(baseline.app)
app.command(cls=SeveralValues)(postprocess)
app.command(cls=SeveralValues)(instances)
app.command(cls=SeveralValues)(measure)
app.command(cls=SeveralValues)(overlay)
app.command(cls=SeveralValues)(evaluate)
app.command(cls=SeveralValues)(convert)
app.command(cls=SeveralValues)(export)
app.command()(data.verify)
app.command()(serve)
package.app.command(cls=SeveralValues)(encoder_package.encoder)
package.app.command(cls=SeveralValues)(ilastik.convert)
package.app.command(cls=SeveralValues)(ilastik.ilastik)
app.add_typer(package.app)
app.add_typer(fiji.app)


@app.callback()
def _options(version: Version = False) -> None:
    """Train a pixel classifier once; run it in Python, Fiji, ilastik, QuPath and every bioimage.io tool."""


def main() -> None:
    """Run ``forestbridge``."""
    sys.exit(run(app, "forestbridge"))


def main_package() -> None:
    """Run ``ff-package``, the same as ``forestbridge package``."""
    sys.exit(run(package.app, "ff-package"))


def run(program: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a program; tell an error in one message, and return the exit code.

    FORESTBRIDGE_TRACEBACK=1 shows where an error comes from besides. With ``--macro`` the message stands in the status line.

    Parameters
    ----------
    arguments
        Those of this process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    make_stdout_safe()
    order = macro_order(arguments)
    if order is None:
        return _run(program, name, arguments).code
    return run_for_macro(partial(_run, program, name, arguments), order, arguments)


@cache
def command_of(program: typer.Typer) -> Any:
    """Return the tree of commands, each of which takes the options of ``--macro``; it takes time to make, and a worker needs it often."""
    command = get_command(program)
    add_macro_options(command)
    return command


def _run(program: typer.Typer, name: str, arguments: list[str]) -> Outcome:
    with messages_on_stderr(), interruptible():
        try:
            code = command_of(program).main(args=arguments, prog_name=name, standalone_mode=False)
            if code == TYPER_INTERRUPTED:
                raise KeyboardInterrupt
            return Outcome(code or 0)
        except (UsageError, ForestbridgeError, ValueError, TypeError, OSError) as error:
            return _tell(error, name)
        except (MemoryError, KeyboardInterrupt, typer.Abort) as error:
            return _tell(error, name)


def _forget_what_ran_besides() -> None:
    """Say nothing of reads in the background that an interruption cut off: Python would print where each of them was."""
    sys.unraisablehook = lambda _: None


def _tell(error: BaseException, name: str) -> Outcome:
    """Print an error's message on stderr and return how the command ended."""
    if isinstance(error, KeyboardInterrupt | InterruptedRunError):
        atexit.register(_forget_what_ran_besides)
    if os.environ.get("FORESTBRIDGE_TRACEBACK") == "1":
        traceback.print_exception(error)
    message = error_message(error, name)
    if message:
        say(message)
    return Outcome(exit_code(error), message.removeprefix(f"{name}: "))
