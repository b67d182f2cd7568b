"""``forestbridge baseline``: the simplest segmentation, and how far a forest's differs from it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present, end, for_each
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.object_options import ChosenClasses, Match, ObjectOutput, PlaneByPlane
from forestbridge.cli.options import HELP, Axes, DryRun, Format, Json, Nan, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path, tell
from forestbridge.cli.parsing import SeveralValues
from forestbridge.cli.places import files_of, made_folder, result_places
from forestbridge.cli.sources import Reading, open_image
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.objects import open_segmentation
from forestbridge.objects.agreement import Agreement, agreement, check_same_size
from forestbridge.objects.baseline import one_channel

app = typer.Typer(
    name="baseline",
    help="The simplest segmentation: what a forest must be better than.",
    no_args_is_help=True,
    context_settings=HELP,
)


class Recipe(NamedTuple):
    """How images are read and segmented, and which classes of a forest's labels are compared."""

    reading: Reading
    channel: int | None
    classes: list[str] | None
    options: dict[str, Any]

    def open(self, path: Path) -> Image:
        """Open the channel of an image that is segmented."""
        return one_channel(open_image(path, self.reading), self.channel)

    def labels(self, path: Path | None, image: Image) -> fb.Segmentation | None:
        """Open the labels that an image's baseline is compared with, if there are some."""
        if path is None:
            return None
        labels = open_segmentation(path)
        labels.chosen(self.classes)
        check_same_size(image, labels.image)
        return labels


@app.callback()
def _group() -> None:
    """Keep the name of the method on the command line while there is one only."""


@app.command(cls=SeveralValues)
def otsu(
    images: Annotated[list[Path] | None, typer.Argument(help="Images; a folder stands for the images in it.")] = None,
    output: ObjectOutput = None,
    sigma: Annotated[float, typer.Option(min=0, help="Of the Gaussian filter before the threshold, in pixels.")] = 3.0,
    channel: Annotated[int | None, typer.Option(min=0, help="Which channel, from 0, where there are several.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Objects are darker than the background.")] = False,
    plane_by_plane: PlaneByPlane = False,
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="LABELS ...", help="A forest's labels of each image, to say how far they agree."),
    ] = None,
    classes: ChosenClasses = None,
    suffix: Annotated[str, typer.Option(help="For several images: what follows their names.")] = "_otsu.tif",
    match: Match = None,
    format: Format = None,
    axes: Axes = None,
    scene: Scene = None,
    nan: Nan = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Blur and threshold images: labels 1 for objects, 0 elsewhere. Use the simplest method that works.

    Give the images first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge baseline otsu b.tif --sigma 3 -o b_otsu.tif[/bold]
    """
    if not images or output is None:
        missing = "an image" if not images else "an output"
        raise ValueError(f"expected {missing}, found none; write: forestbridge baseline otsu b.tif -o b_otsu.tif")
    files = files_of(images, match)
    check_present([*files, *(compare or [])])
    if compare and len(compare) != len(files):
        raise ValueError(
            f"expected one label image for each of {len(files)} images, in their order, found {len(compare)}; give as many to --compare"
        )
    places = result_places(
        files, output, suffix, in_folder=files != images, format=format, overwrite=overwrite, beside=compare or []
    )
    recipe = Recipe(
        Reading(axes, nan=nan, scene=scene),
        channel,
        classes,
        {"sigma": sigma, "invert": invert, "plane_by_plane": plane_by_plane},
    )
    others = compare or [None] * len(files)
    items = [(path, (place, other)) for path, place, other in zip(files, places.paths, others, strict=True)]
    if dry_run:
        found, failures = for_each(items, partial(_plan, recipe=recipe, json=json))
    else:
        writing = {"overwrite": overwrite, "format": format}
        with made_folder(places.folder):
            found, failures = for_each(items, partial(_threshold, recipe=recipe, writing=writing, json=json))
    if json:
        failed = [failure.to_json_dict() for failure in failures]
        print_json({"dry_run": dry_run, "outputs": _outputs(found), "results": found, "failed": failed})
    end(len(files), failures)


def _plan(path: Path, places: tuple[Path, Path | None], *, recipe: Recipe, json: bool) -> dict[str, Any]:
    output, other = places
    recipe.labels(other, recipe.open(path))
    if not json:
        print(f"would write the objects of {shown(path)} to {shown(output)}")
    return {"input": str(path), "output": str(output)}


def _threshold(
    path: Path, places: tuple[Path, Path | None], *, recipe: Recipe, writing: dict[str, Any], json: bool
) -> dict[str, Any]:
    """Write the objects of one image, and compare them."""
    output, other = places
    image = recipe.open(path)
    labels = recipe.labels(other, image)
    with progress_bar(f"baseline {path.name}") as progress:
        fb.baseline(image, **recipe.options, **writing, out=output, progress=progress)
    print_path(output, json=json)
    facts: dict[str, Any] = {"input": str(path), "output": str(output)}
    if labels is None or other is None:
        return facts
    made = open_segmentation(output, axes=image.axes.replace("C", "") if output.suffix == ".npy" else None)
    same = agreement(made, labels, classes=recipe.classes)
    tell(dice=f"{same.dice:.4f}", iou=f"{same.iou:.4f}", agreement=f"{same.pixel_agreement:.4f}")
    if not json:
        print(_text(same, other))
    return {**facts, "compare": {"labels": str(other), **same.document()}}


def _text(same: Agreement, other: Path) -> str:
    return (
        f"against {shown(other)}: Dice {same.dice:.4f}, IoU {same.iou:.4f}, the same in {100 * same.pixel_agreement:.2f} % of "
        f"{sum(same)} pixels"
    )


def _outputs(found: Sequence[dict[str, Any]]) -> list[str]:
    return [facts["output"] for facts in found]
