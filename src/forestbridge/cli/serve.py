"""``forestbridge serve``: the warm worker that Fiji's commands call."""

from typing import Annotated

import typer

from forestbridge.cli.messages import say
from forestbridge.cli.options import Json
from forestbridge.cli.output import print_json
from forestbridge.cli.worker import serve as run_worker
from forestbridge.fiji import client


def serve(
    idle: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="End after so long without work.")] = 900,
    stop: Annotated[bool, typer.Option("--stop", help="End the worker of this Python, and wait for nothing.")] = False,
    json: Json = False,
) -> None:
    """Serve calls from Fiji in one process that stays: libraries are loaded and models open. Fiji's commands start it themselves.

    Example: [bold]forestbridge serve --stop[/bold]
    """
    if stop:
        stopped = client.ask("stop") is not None
        print_json({"stopped": stopped}) if json else print("stopped" if stopped else "no worker runs")
        return
    from forestbridge.cli.app import app, run

    def tell_port(port: int) -> None:
        print_json({"port": port}) if json else print(
            f"serving on 127.0.0.1:{port}, until there was no call for {idle:g} s", flush=True
        )

    if not run_worker(lambda arguments: run(app, "forestbridge", arguments), idle=idle, ready=tell_port):
        say("another worker of this Python serves already; end it with: forestbridge serve --stop")
