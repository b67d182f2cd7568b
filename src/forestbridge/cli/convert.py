"""``forestbridge convert``: label images into another dtype or format."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present, end, for_each
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.object_options import Match, ObjectOutput
from forestbridge.cli.options import Axes, DryRun, Format, Json, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.places import files_of, made_folder, result_places
from forestbridge.image.source import shown
from forestbridge.objects.instances import LabelDtype
from forestbridge.objects.labelled import open_labelled


def convert(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Label images; a folder stands for the files in it.")
    ] = None,
    output: ObjectOutput = None,
    dtype: Annotated[
        LabelDtype | None, typer.Option(help="By default the smallest that holds the largest value.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="For several sources: what follows their names.")] = "_labels.tif",
    match: Match = None,
    format: Format = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write label images in another dtype or format; no value changes.

    Give the sources first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge convert b_objects.tif -o b_objects.ome.zarr --dtype uint16[/bold]
    """
    if not sources or output is None:
        missing = "label images" if not sources else "an output"
        raise ValueError(f"expected {missing}, found none; write: forestbridge convert a.tif -o b.tif --dtype uint16")
    files = files_of(sources, match)
    check_present(files)
    places = result_places(files, output, suffix, in_folder=files != sources, format=format, overwrite=overwrite)
    reading = {"axes": axes, "scene": scene}
    pairs = list(zip(files, places.paths, strict=True))
    if dry_run:
        found, failures = for_each(pairs, partial(_plan, reading=reading, json=json))
    else:
        options = {**reading, "dtype": dtype, "overwrite": overwrite, "format": format}
        with made_folder(places.folder):
            found, failures = for_each(pairs, partial(_convert, options=options, json=json))
    if json:
        failed = [failure.to_json_dict() for failure in failures]
        print_json({"dry_run": dry_run, "outputs": [str(path) for path in found], "failed": failed})
    end(len(files), failures)


def _plan(path: Path, output: Path, *, reading: dict[str, Any], json: bool) -> Path:
    image = open_labelled(path, **reading)
    if not json:
        print(f"would write {shown(output)} from {image}")
    return output


def _convert(path: Path, output: Path, *, options: dict[str, Any], json: bool) -> Path:
    with progress_bar(f"convert {path.name}") as progress:
        fb.convert_labels(path, output, **options, progress=progress)
    print_path(output, json=json)
    return output
