"""``ff-package encoder``: a deep encoder alone as a package, image → feature maps."""

from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.messages import say
from forestbridge.cli.options import Axes, Channels, DryRun, Json, Overwrite, Scene, Weights
from forestbridge.cli.output import print_path
from forestbridge.cli.package import (
    Author,
    Description,
    Formats,
    Name,
    Order,
    Out,
    TestImage,
    about_of,
    print_plan,
    print_report,
)
from forestbridge.cli.sources import Reading
from forestbridge.encoders.features import check_image
from forestbridge.encoders.networks import DEEP_NAMES, network_of, split_name
from forestbridge.image import Image
from forestbridge.package import FORMATS, About
from forestbridge.package.deep import require_small_network


def encoder(
    encoder: Annotated[
        str, typer.Argument(metavar="ENCODER", help="A deep encoder, with maps if you like: sam2_base:s4,s8.")
    ],
    output: Out,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", "-i", help="Its intensities are measured, and a crop of its middle travels in the zip."
        ),
    ] = None,
    test_image: TestImage = None,
    range: Annotated[
        tuple[float, float] | None,
        typer.Option("--range", metavar="LOW HIGH", help="Intensities that become black and white; else measured."),
    ] = None,
    inputs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Channels of the images, where no --image says it; 1 by default.")
    ] = 1,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile with its margin in pixels, 512 or 1024.")
    ] = None,
    weights: Weights = None,
    name: Name = None,
    author: Author = None,
    description: Description = None,
    license: Annotated[
        str, typer.Option(help="SPDX identifier; by default that of published weights.")
    ] = About.license,
    formats: Formats = None,
    channels: Channels = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write a deep encoder as a package, image → feature maps: for Python.

    Give the encoder first: an option shown with ... takes all values up to the next option.

    Example: [bold]ff-package encoder sam2_base --image a.tif -o sam2_base.zip[/bold]
    """
    reading = Reading(axes, channels, scene=scene)
    about = about_of(name, author, description, license)
    order = Order(output, image, reading, about, tuple(formats or FORMATS), overwrite)
    order.check()
    network, _ = split_name(encoder)
    if network not in DEEP_NAMES:
        raise ValueError(
            f"expected one of the deep encoders {', '.join(DEEP_NAMES)}, found {encoder!r}; "
            "choose one of these, each in a package of its own"
        )
    if image is None and range is None:
        raise ValueError(
            "expected --image, whose intensities are measured, or --range LOW HIGH, found neither; give one of them"
        )
    require_small_network(network)
    picture = order.picture()
    shown_picture = order._replace(image=test_image).picture() if test_image else picture
    _say_what_travels(network, order, shown_picture)
    if dry_run:
        print_plan(order, json=json)
        return
    opened: Any = fb.open_encoder(encoder, exportable=True, weights=weights, **_settings(picture, range, inputs, tile))
    if shown_picture is not None:
        check_image(opened.spec, shown_picture)
    report = fb.write_encoder_package(
        output, opened, image=shown_picture, about=about, formats=order.formats, overwrite=overwrite
    )
    print_report(report, json=json)
    print_path(output, json=json)


def _settings(
    picture: Image | None, range: tuple[float, float] | None, inputs: int, tile: int | None
) -> dict[str, Any]:
    """Return what decides the encoder's spec, as `open_encoder` takes it."""
    tiles = {} if tile is None else {"tile": tile}
    if range is None:
        return {"images": [picture], "channels": picture.n_channels if picture else inputs, **tiles}
    count = picture.n_channels if picture is not None else inputs
    return {"channels": count, "low": [range[0]] * count, "high": [range[1]] * count, **tiles}


def _say_what_travels(network: str, order: Order, picture: Image | None) -> None:
    """Tell what others will see in the package, and how large it becomes."""
    if order.about.authors == About().authors:
        say(f"no --author given: the package names {order.about.authors[0]['name']!r}")
    if picture is None:
        say("no --image given: the test image is synthetic")
    else:
        say(f"a crop of {picture.source} travels in the zip as test image; choose another with --test-image")
    total = 4e-6 * network_of(network).parameters * len(order.formats)
    say(
        f"the weights of {network} travel in the zip, once in each format: about {total:.0f} MB, and the feature maps of a tile as test"
    )
