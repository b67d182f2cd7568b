"""Looking at things: info, labels, verify."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present
from forestbridge.cli.messages import say
from forestbridge.cli.options import HELP, Axes, Ignore, Json, LabelMerge, Names, Overwrite, Plane, Scene
from forestbridge.cli.output import print_json, print_path, print_result
from forestbridge.cli.package_facts import package_facts
from forestbridge.cli.parsing import SeveralValues
from forestbridge.cli.places import Places, check_places
from forestbridge.cli.sources import LabelReading, Reading, image_or_store, is_store, open_image
from forestbridge.ilastik import is_project
from forestbridge.image import Image, describe_image
from forestbridge.image.result_facts import read_result_facts
from forestbridge.image.source import shown
from forestbridge.labels import scribble_stats, write_new_labels
from forestbridge.stores import store_facts

labels = typer.Typer(
    name="labels",
    help="Scribbles: what is in them, and an empty file to paint into.",
    no_args_is_help=True,
    context_settings=HELP,
)


def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="An image, a feature store (.hdf5 too), a forest (.forest), a package (.zip) or an ilastik project (.ilp)."
        ),
    ],
    at: Annotated[
        list[int] | None,
        typer.Option(metavar="Y X", help="Say the values of one pixel: Y X, or Z Y X, or T Z Y X, counted from 0."),
    ] = None,
    axes: Axes = None,
    scene: Scene = None,
    json: Json = False,
) -> None:
    """Say what a file is; no pixel but that of --at is read, and nothing in it is run.

    Example: [bold]forestbridge info a.features.ome.zarr[/bold]
    """
    reading = Reading(axes, scene=scene)
    print_result(_facts(path, reading, short=not json) if at is None else _pixel(path, at, reading), json=json)


def _pixel(path: Path, at: Sequence[int], reading: Reading) -> dict[str, Any]:
    """Return the values of one pixel of an image, with the name of its class where the file has names, or of a store.

    Raises
    ------
    ValueError
        If the file has no pixels, or no such pixel.
    """
    if path.suffix.lower() in (".zip", ".forest") or is_project(path):
        raise ValueError(f"expected an image or a feature store for --at, found {shown(path)}; leave --at out")
    source = image_or_store(path, reading)
    image = source if isinstance(source, Image) else source.image
    axes = [a for a in "TZYX" if a in image.axes]
    place = dict(zip(axes, at, strict=False))
    if len(at) != len(axes) or not all(0 <= i < image.sizes[a] for a, i in place.items()):
        sizes = " ".join(f"{a}={image.sizes[a]}" for a in axes)
        raise ValueError(f"expected --at {' '.join(axes)} inside {sizes}, found {' '.join(map(str, at))}; count from 0")
    t, z, y, x = (place.get(a, 0) for a in "TZYX")
    if not isinstance(source, Image):
        [values] = source.at([(t, z, y, x)])
        return {**place, "values": dict(zip(source.spec.feature_names, values.tolist(), strict=True))}
    pixel = source.data[tuple(slice(None) if a == "C" else slice(place[a], place[a] + 1) for a in source.axes)]
    values = np.asarray(pixel).ravel().tolist()
    facts = {
        **place,
        "values": dict(zip(source.channel_names, values, strict=True)) if source.channel_names else values,
    }
    name = read_result_facts(path).names.get(values[0]) if len(values) == 1 else None
    return facts if name is None else {**facts, "class": name}


def _facts(path: Path, reading: Reading, *, short: bool) -> dict[str, Any]:
    if path.suffix.lower() == ".zip":
        facts = package_facts(path, short=short)
        return {"kind": "package", "package_kind": facts.pop("kind"), **facts}
    if path.suffix.lower() == ".forest":
        return fb.load_forest(path).describe()
    if is_project(path):
        return fb.read_project(path).describe()
    if is_store(path):
        return store_facts(path)
    return {"kind": "image", **describe_image(open_image(path, reading))}


@labels.command(cls=SeveralValues)
def stats(
    paths: Annotated[list[Path], typer.Argument(help="Label files of one image.")],
    image: Annotated[
        Path | None, typer.Option(help="The image, for its size; annotations (GeoJSON, ROI) need it.")
    ] = None,
    names: Names = None,
    ignore: Ignore = None,
    plane: Plane = None,
    merge: LabelMerge = "refuse",
    axes: Annotated[
        str | None,
        typer.Option("--label-axes", metavar="LETTERS", help="Axes of the files if they do not say, or are wrong: XY."),
    ] = None,
    json: Json = False,
) -> None:
    """Count the classes, their pixels and planes; ends with 1 if no forest can be trained on them.

    Give the label files first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge labels stats a_labels.tif --names background nucleus[/bold]
    """
    check_present(paths)
    shape = fb.read_image(image) if image else None
    options = LabelReading(axes, ignore, plane, merge).options()
    facts = scribble_stats(fb.read_scribbles(paths, names=names, shape=shape, **options))
    print_result(facts, json=json)
    if facts["refused"]:
        raise typer.Exit(1)


@labels.command()
def new(
    image: Annotated[Path, typer.Argument(help="The image to paint on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label file to write: .tif .npy .png")],
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an empty label image of an image's size, to paint into with any program.

    Example: [bold]forestbridge labels new a.tif -o a_labels.tif[/bold]
    """
    check_places([image], Places([output], None), overwrite=overwrite)
    opened = open_image(image, Reading(axes, scene=scene))
    write_new_labels(output, opened, overwrite=overwrite)
    if json:
        print_json({"labels": str(output), "size": {a: n for a, n in opened.sizes.items() if a in opened.axes}})
    print_path(output, json=json)


def verify(store: Annotated[Path, typer.Argument(help="A feature store.")], json: Json = False) -> None:
    """Decode everything in a store and compare it with its journal; ends with 1 if something is wrong.

    Example: [bold]forestbridge verify a.features.ome.zarr[/bold]
    """
    report = fb.verify_store(store)
    facts = {**asdict(report), "path": str(report.path), "ok": report.ok}
    print_result(facts, json=json)
    if not report.ok:
        repair = f"go on with: forestbridge extract IMAGE -o {shown(store)} --like {shown(store)} --repair"
        say("extract it again with FeatureForest" if store.is_file() else repair)
        raise typer.Exit(1)
