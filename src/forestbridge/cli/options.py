"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from forestbridge import __version__
from forestbridge.cli.parsing import parse_weights
from forestbridge.labels.merge import Merge
from forestbridge.spec import Interpolation

Channels = Annotated[
    list[int] | None,
    typer.Option("--channels", "-c", metavar="N N ...", help="Channels to use, counted from 0: --channels 0 2."),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="LETTERS",
        help="Axes of the file if it does not say: letters of TCZYX, S for the samples of a colour; e.g. ZYX.",
    ),
]
Scene = Annotated[int | None, typer.Option(min=0, help="Which image of a file or folder with several, from 0.")]
Nan = Annotated[
    float | None, typer.Option(help="Value that replaces NaN and infinite pixels; without it they are refused.")
]
Names = Annotated[
    list[str] | None,
    typer.Option("--names", "-n", metavar="NAME NAME ...", help="Class names in the order of the label values."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="N N ...",
        help="Label values, or class names of annotations, that count as unlabelled: 255.",
    ),
]
LabelMerge = Annotated[
    Merge, typer.Option("--merge", help="Which class counts where label files or annotations of one image overlap.")
]
Plane = Annotated[
    int | None, typer.Option("--slice", help="Plane of the stack that 2D labels belong to, counted from 0.")
]
Like = Annotated[
    Path | None, typer.Option(help="Take the encoder and its settings from this store, forest or package.")
]
Weights = Annotated[
    Any,  # None or what `parse_weights` returns
    typer.Option(
        metavar="FILE",
        parser=parse_weights,
        help="Deep encoders: take the weights from this file of yours, for several dinov2=FILE,sam2_base=FILE; or an encoder package.",
    ),
]
NetworkDevice = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="Deep encoders: cpu (default), cuda, cuda:1, mps or auto."),
]
PixelLookup = Annotated[
    Interpolation | None,
    typer.Option(
        "--interpolation",
        help="Deep encoders: bilinear (default) between the network's own cells, or featureforest: its patches and its bicubic "
        "resizing, a value for each pixel.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the suffix leaves a choice: ome-zarr-0.4 for .ome.zarr, which ilastik reads; 0.5 is the default.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the inputs, say what would be written, and write nothing.")
]
Trust = Annotated[
    str | None, typer.Option(metavar="HASH", help="For packages that carry code: sha256:<hash of the zip>.")
]


def _version(show: bool) -> None:
    if show:
        print(f"forestbridge {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
]

HELP = {"help_option_names": ["--help", "-h"]}
"""Settings of each program and group of commands."""


def _macro_options(
    macro: Annotated[
        bool,
        typer.Option(
            "--macro", help="Write nothing to stderr; end with one status line.", rich_help_panel="For macros"
        ),
    ] = False,
    status: Annotated[
        Path | None,
        typer.Option(
            help="With --macro: file that says how far it is; FILE.cancel ends it.",
            metavar="FILE",
            rich_help_panel="For macros",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="With --macro: file for messages.",
            metavar="FILE",
            rich_help_panel="For macros",
        ),
    ] = None,
) -> None:
    """Take what `forestbridge.cli.macro` reads before anything is parsed."""


def add_macro_options(command: Any) -> None:
    """Let a command, or all commands of a group, take ``--macro``, ``--status`` and ``--log``.

    Parameters
    ----------
    command
        As typer's `get_command` makes it.
    """
    if hasattr(command, "commands"):
        for inner in command.commands.values():
            add_macro_options(inner)
        return
    template = typer.Typer(add_completion=False)
    template.command()(_macro_options)
    for option in get_command(template).params:
        option.expose_value = False
        command.params.append(option)
