"""Options that the commands on labels and objects share."""

from pathlib import Path
from typing import Annotated

import typer

Segmentations = Annotated[
    list[Path] | None,
    typer.Argument(help="Labels or probabilities, as predict writes them; a folder stands for the files in it."),
]
ObjectOutput = Annotated[
    Path | None,
    typer.Option("--output", "-o", help=".tif .ome.tif .ome.zarr .h5 .npy .nrrd .png; for several sources a folder."),
]
ChosenClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="NAME|VALUE ...", help="Classes to work on, by name or value; all but the background."
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|VALUE",
        help="The background; by default the class of that name, else 0 where it occurs, else the smallest value.",
    ),
]
PlaneByPlane = Annotated[bool, typer.Option("--plane-by-plane", help="Work on the planes of volumes one by one.")]
Match = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Of a folder: files named so, such as '*_labels.tif'; by default all."),
]
