"""Packages: fused, forest, encoder, convert, ilastik, inspect, check, build. Also installed as ``ff-package``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.cli.messages import say
from forestbridge.cli.options import HELP, Axes, Channels, DryRun, Json, Overwrite, Scene, Trust, Version, Weights
from forestbridge.cli.output import print_json, print_path, print_result, print_text
from forestbridge.cli.package_facts import package_facts
from forestbridge.cli.parsing import SeveralValues
from forestbridge.cli.sources import Reading, check_weights, open_image
from forestbridge.consumers import format_consumer_table
from forestbridge.encoders.base import is_package_name
from forestbridge.encoders.features import check_image
from forestbridge.encoders.networks import DEEP_NAMES, network_of
from forestbridge.encoders.package_spec import PACKAGE
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.graphs.parts import require_one_core
from forestbridge.image.source import shown
from forestbridge.model import open_forest
from forestbridge.package import FORMATS, About, CheckReport, build_recipe, format_check
from forestbridge.package.deep import exportable_encoder, require_formats
from forestbridge.package.origin import license_over
from forestbridge.spec import EncoderSpec

app = typer.Typer(
    name="package",
    help="bioimage.io packages: write, inspect, check.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings=HELP,
)


@app.callback()
def _options(version: Version = False) -> None:
    """bioimage.io packages: write, inspect, check."""


Forest = Annotated[Path, typer.Argument(help="NAME.forest, or an ilastik project (.ilp) with one.")]
Image = Annotated[
    Path | None,
    typer.Option(
        "--image",
        "-i",
        help="A crop of its middle travels in the zip as test image and cover; without it a synthetic one.",
    ),
]
TestImage = Annotated[Path | None, typer.Option(help="Another image for that, if yours must not travel.")]
Out = Annotated[Path, typer.Option("--output", "-o", help="NAME.zip")]
Name = Annotated[str | None, typer.Option(help="Name of the package; made from the file name by default.")]
Author = Annotated[
    list[str] | None, typer.Option("--author", metavar="NAME NAME ...", help="Names of the authors, each in quotes.")
]
Description = Annotated[str | None, typer.Option(help="One or two sentences.")]
License = Annotated[str, typer.Option(help="SPDX identifier.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--formats",
        metavar="FORMAT ...",
        help=f"Weight formats: {' '.join(FORMATS)}. By default both; ilastik and QuPath need torchscript.",
    ),
]


class Order(NamedTuple):
    """Where a package goes and what goes into it beside the forest: the options of `fused`, `forest` and `convert`."""

    output: Path
    image: Path | None
    reading: Reading
    about: About
    formats: tuple[str, ...]
    overwrite: bool

    def check(self) -> None:
        """Refuse a name that is no package's, an output that is there, and formats that are not known.

        Raises
        ------
        ValueError, OutputExistsError, ResourceError
            With what is wrong.
        """
        check_package_name(self.output, overwrite=self.overwrite)
        if unknown := set(self.formats) - set(FORMATS):
            raise ValueError(
                f"expected weight formats of {', '.join(FORMATS)}, found {', '.join(sorted(unknown))}; leave it out"
            )

    def picture(self) -> "fb.Image | None":
        """Return the image whose middle travels in the package; None if none was given."""
        return open_image(self.image, self.reading) if self.image else None


@app.command(cls=SeveralValues)
def fused(
    forest: Forest,
    output: Out,
    image: Image = None,
    test_image: TestImage = None,
    name: Name = None,
    author: Author = None,
    description: Description = None,
    license: License = About.license,
    formats: Formats = None,
    weights: Weights = None,
    channels: Channels = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write encoder and forest as one package, image → probabilities: the one that runs everywhere.

    Give the forest first: an option shown with ... takes all values up to the next option.

    Example: [bold]ff-package fused nuclei.forest --image a.tif -o nuclei.zip[/bold]
    """
    about = about_of(name, author, description, license)
    reading = Reading(axes, channels, scene=scene)
    order = Order(output, test_image or image, reading, about, tuple(formats or FORMATS), overwrite)
    order.check()
    opened = open_forest(forest)
    check_weights(opened.spec, weights)
    write_ordered(fb.write_package, opened, order.picture(), order, weights=weights, dry_run=dry_run, json=json)


@app.command(cls=SeveralValues)
def forest(
    forest: Forest,
    output: Out,
    image: Image = None,
    test_image: TestImage = None,
    name: Name = None,
    author: Author = None,
    description: Description = None,
    license: License = About.license,
    formats: Formats = None,
    channels: Channels = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write the forest alone as a package, feature maps → probabilities: for Python.

    Give the forest first: an option shown with ... takes all values up to the next option.

    Example: [bold]ff-package forest nuclei.forest --image a.tif -o nuclei_forest.zip[/bold]
    """
    about = about_of(name, author, description, license)
    reading = Reading(axes, channels, scene=scene)
    order = Order(output, test_image or image, reading, about, tuple(formats or FORMATS), overwrite)
    order.check()
    write_ordered(fb.write_forest_package, open_forest(forest), order.picture(), order, dry_run=dry_run, json=json)


def about_of(name: str | None, authors: list[str] | None, description: str | None, license: str) -> About:
    """Return what the options say about a package."""
    people = tuple({"name": a} for a in authors) if authors else About().authors
    return About(name=name, authors=people, description=description, license=license)


def write_ordered(
    write: Callable[..., CheckReport],
    forest: PixelForest,
    picture: "fb.Image | None",
    order: Order,
    *,
    weights: Path | dict[str, Path] | None = None,
    dry_run: bool,
    json: bool,
) -> None:
    """Write a package, or say what would be written, and print what its check found.

    Parameters
    ----------
    weights
        The file of a deep encoder's weights, or of each network's, with `fb.write_package`; by default they are found by their hash.
    """
    if forest.spec is not None:
        require_bilinear(forest.spec, "a package")
        require_one_core(forest.spec)
    if picture is not None and forest.spec is not None:
        check_image(forest.spec, picture)
    _say_what_travels(order, picture)
    license = order.about.license
    if forest.spec is not None and write is fb.write_package:
        license = _say_network(forest.spec, order, weights)
    say(f"licence {license}; choose another with --license")
    if dry_run:
        print_plan(order, json=json)
        return
    own: dict[str, Any] = {}
    if weights is not None and forest.spec is not None:
        own["encoder"] = exportable_encoder(forest.spec, weights=weights)
    options = {"image": picture, "about": order.about, "formats": order.formats, "overwrite": order.overwrite}
    report = write(order.output, forest, **options, **own)
    print_report(report, json=json)
    print_path(order.output, json=json)


def check_package_name(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that is not named like a package, or that is there.

    Raises
    ------
    ValueError, OutputExistsError, ResourceError
        With what is wrong.
    """
    if output.suffix != ".zip":
        raise ValueError(
            f"expected a package named NAME.zip, found {shown(output)}; give -o {shown(output.with_suffix('.zip'))}"
        )
    check_output(output, overwrite=overwrite)


def _say_what_travels(order: Order, picture: "fb.Image | None") -> None:
    """Tell what others will see in the package."""
    if order.about.authors == About().authors:
        say(f"no --author given: the package names {order.about.authors[0]['name']!r}")
    if picture is None:
        say("no --image given: the test image is synthetic")
    else:
        say(f"a crop of {picture.source} travels in the zip as test image; choose another with --test-image")


def _say_network(spec: EncoderSpec, order: Order, weights: Path | dict[str, Path] | None) -> str:
    """Tell how large a package with a network becomes, and whose it is; return the licence that follows.

    Raises
    ------
    ValueError
        If TorchScript is asked for where the network is a package's.
    """
    if isinstance(weights, Path) and is_package_name(str(weights)):
        require_formats(order.formats, shown(weights))
        info = fb.inspect_package(weights)
        size = sum(entry.bytes or 0 for entry in info.weights if entry.format == "onnx") / 1e6
        say(
            f"the network of {info.name} by {', '.join(info.authors)}, licence {info.license or 'not stated'}, travels in the zip: about "
            f"{size:.1f} MB"
        )
        return license_over(order.about.license, info) if spec.name == PACKAGE else order.about.license
    if names := [part.name for part in spec.parts or (spec,) if part.name in DEEP_NAMES]:
        megabytes = 4 * sum(network_of(name).parameters for name in names) * len(order.formats) / 1e6
        say(f"the weights of {' and '.join(names)} travel in the zip, once in each format: about {megabytes:.0f} MB")
    return order.about.license


def print_plan(order: Order, *, json: bool) -> None:
    """Print which package would be written."""
    if json:
        print_json({"dry_run": True, "package": str(order.output), "formats": list(order.formats)})
    else:
        print(f"would write {shown(order.output)} with {' and '.join(order.formats)} weights")


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="A package (.zip).")], json: Json = False) -> None:
    """Say what is in a package; nothing in it is run and no network is opened. With --json everything.

    Example: [bold]ff-package inspect nuclei.zip[/bold]
    """
    print_result(package_facts(path, short=not json), json=json)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A package (.zip).")],
    trust: Trust = None,
    java: Annotated[
        bool,
        typer.Option(
            "--java",
            help="Also in the engines inside deepImageJ and QuPath; needs a JDK and Maven, which fetches 320 MB once.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run every weight format against the package's own test, and say where it runs; ends with 1 if something is wrong.

    TorchScript is code: it runs only with --trust.

    Example: [bold]ff-package check nuclei.zip[/bold]
    """
    report = fb.check_package(path, trust=trust, java=java)
    print_report(report, json=json)
    if not report.good:
        raise typer.Exit(1)


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="A folder with a recipe.toml, as in model_packages.")],
    output: Out,
    weights: Weights = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train and package what a recipe says, or package the deep encoder that it names; a second run gives the same bytes.

    Example: [bold]ff-package build model_packages/tissue_filters -o tissue_filters.zip[/bold]
    """
    check_package_name(output, overwrite=overwrite)
    report = build_recipe(folder, output, weights=weights, overwrite=overwrite)
    print_report(report, json=json)
    print_path(output, json=json)


def print_report(report: CheckReport, *, json: bool) -> None:
    """Print what the check of a package found."""
    if json:
        print_json(report.to_json_dict())
    else:
        print_text(format_check(report))
        print_text(format_consumer_table(report.consumers))
        print(f"sha256:{report.sha256}")
