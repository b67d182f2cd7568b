"""``forestbridge overlay``: from an image and its labels to a picture for people."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from forestbridge.cli.batch import check_present
from forestbridge.cli.messages import say
from forestbridge.cli.options import Channels, DryRun, Json, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.places import Places, check_places
from forestbridge.errors import ImageError
from forestbridge.image import Image, read_image, write_overlay
from forestbridge.image.overlay import object_colours
from forestbridge.image.source import shown
from forestbridge.labels.names import DEFAULT_COLOURS
from forestbridge.objects.labelled import check_same_size, open_labelled, read_plane

FILLED = 0.4
"""Opacity of labels that are filled."""


def overlay(
    image: Annotated[
        Path, typer.Argument(help="The image: one channel is shown grey, of more the first three in colour.")
    ],
    labels: Annotated[Path, typer.Argument(help="Label image of the same size; 0 is transparent.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.png")],
    contour: Annotated[int, typer.Option(min=0, help="Width of outlines in pixels; 0 fills the labels.")] = 0,
    alpha: Annotated[
        float | None, typer.Option(min=0, max=1, help="Opacity of the filling; 0.4, with outlines 0 by default.")
    ] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Colours of classes 1, 2, …, and not one for each object.")
    ] = False,
    plane: Annotated[
        int | None, typer.Option(min=0, help="Plane of a stack, from 0; the middle one by default.")
    ] = None,
    frame: Annotated[int, typer.Option(min=0, help="Frame of a time series, from 0.")] = 0,
    channels: Channels = None,
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes", metavar="LETTERS", help="Axes of the image if its file does not say; labels have the same."
        ),
    ] = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Draw labels over an image, filled or as outlines, each object in a colour of its own, as PNG.

    Example: [bold]forestbridge overlay a.tif a_objects.tif -o a_overlay.png --contour 2[/bold]
    """
    check_present([image, labels])
    if output.suffix.lower() != ".png":
        raise ValueError(f"expected an overlay named .png, found {shown(output)}; give another name")
    check_places([image, labels], Places([output], None), overwrite=overwrite)
    opened = read_image(image, axes=axes, channels=channels, scene=scene)
    labelled = open_labelled(labels, axes=axes.upper().translate({ord(c): None for c in "CS"}) if axes else None)
    check_same_size(opened, labelled)
    z = _plane(opened, plane, frame)
    facts = {"overlay": str(output), "plane": z, "frame": frame}
    if dry_run:
        if json:
            print_json({"dry_run": True, **facts})
        else:
            print(
                f"would draw {shown(labels)} over {shown(image)}, plane {z} of frame {frame}, and write {shown(output)}"
            )
        return
    drawn = read_plane(labelled, frame, z)
    values = [v for v in np.unique(drawn).tolist() if v]
    colours = (
        {v: DEFAULT_COLOURS[(v - 1) % len(DEFAULT_COLOURS)] for v in values} if classes else object_colours(values)
    )
    filling = alpha if alpha is not None else 0.0 if contour else FILLED
    write_overlay(output, opened.plane(frame, z), drawn, colours, alpha=filling, contour=contour, overwrite=overwrite)
    if json:
        print_json({**facts, "labels": len(values)})
    print_path(output, json=json)


def _plane(image: Image, plane: int | None, frame: int) -> int:
    """Return the plane to draw.

    Raises
    ------
    ImageError
        If there is no such plane or frame.
    """
    sizes = image.sizes
    z = sizes["Z"] // 2 if plane is None else plane
    if z >= sizes["Z"] or frame >= sizes["T"]:
        raise ImageError(
            f"{image.source}: expected a plane below {sizes['Z']} and a frame below {sizes['T']}, found plane {z} and frame {frame}; "
            "both count from 0"
        )
    if plane is None and sizes["Z"] > 1:
        say(f"drawing plane {z}, the middle one of {sizes['Z']}; choose another with --plane")
    return z
