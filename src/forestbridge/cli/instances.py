"""``forestbridge instances``: from labels or probabilities to numbered objects."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.cli.batch import Failure, check_present, end, for_each
from forestbridge.cli.messages import progress_bar, say
from forestbridge.cli.object_options import Background, ChosenClasses, Match, ObjectOutput, PlaneByPlane, Segmentations
from forestbridge.cli.options import Axes, DryRun, Format, Json, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path, tell
from forestbridge.cli.places import files_of, made_folder, result_places
from forestbridge.image.source import shown
from forestbridge.objects import Instances, open_segmentation
from forestbridge.objects.instances import LabelDtype, check_instances, count_text
from forestbridge.objects.split import Method, Splitting


class Question(NamedTuple):
    """What is asked of each file: how it is read, and the options of `fb.instances`."""

    axes: str | None
    scene: int | None
    background: str | None
    options: dict[str, Any]

    def check(self, path: Path) -> fb.Segmentation:
        """Open a file and refuse what cannot be done with it."""
        found = open_segmentation(path, axes=self.axes, scene=self.scene, background=self.background)
        found.chosen(self.options["classes"])
        o = self.options
        splitting = Splitting(o["method"], o["connectivity"], o["erode"], o["expand"], o["h"], o["min_distance"])
        check_instances(found, splitting, plane_by_plane=o["plane_by_plane"], track=o["track"])
        return found


def instances(
    sources: Segmentations = None,
    output: ObjectOutput = None,
    method: Annotated[
        Method,
        typer.Option(
            help="components: pixels that touch. erode: erode, number, grow again. distance: watershed of the distance to the "
            "border. probability: watershed of the probability of the class."
        ),
    ] = "components",
    classes: ChosenClasses = None,
    background: Background = None,
    connectivity: Annotated[
        int | None,
        typer.Option(min=1, max=3, help="How many axes neighbours differ in: 1 for sides; by default corners, too."),
    ] = None,
    erode: Annotated[int, typer.Option(min=0, help="For erode: radius of the ball (disk in 2D) in pixels.")] = 10,
    expand: Annotated[int, typer.Option(min=0, help="For erode: pixels that what is left grows again.")] = 10,
    h: Annotated[
        float | None,
        typer.Option(
            "--h",
            help="For watersheds: height of a hill above the pass to a higher one; 1 pixel, or 0.1 of probability.",
        ),
    ] = None,
    min_distance: Annotated[
        float, typer.Option(min=0, help="For watersheds: smallest distance of the tops of touching objects, in pixels.")
    ] = 0.0,
    plane_by_plane: PlaneByPlane = False,
    track: Annotated[
        bool,
        typer.Option("--track", help="Let an object keep the number of the one it overlaps most in the frame before."),
    ] = False,
    dtype: Annotated[
        LabelDtype | None, typer.Option(help="Of the label image; by default the smallest that holds the count.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="For several sources: what follows their names.")] = "_objects.tif",
    match: Match = None,
    format: Format = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Number the objects of classes: from labels or probabilities to a label image with 1 … n.

    Give the sources first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge instances b_labels.tif -o b_objects.tif[/bold]
    """
    if not sources or output is None:
        missing = "labels or probabilities" if not sources else "an output"
        raise ValueError(f"expected {missing}, found none; write: forestbridge instances b_labels.tif -o b_objects.tif")
    files = files_of(sources, match)
    check_present(files)
    places = result_places(files, output, suffix, in_folder=files != sources, format=format, overwrite=overwrite)
    options = {
        "method": method,
        "classes": classes,
        "connectivity": connectivity,
        "erode": erode,
        "expand": expand,
        "h": h,
        "min_distance": min_distance,
        "plane_by_plane": plane_by_plane,
        "track": track,
    }
    question = Question(axes, scene, background, options)
    pairs = list(zip(files, places.paths, strict=True))
    if dry_run:
        found, failures = for_each(pairs, partial(_plan, question=question, json=json))
    else:
        writing = {"overwrite": overwrite, "format": format, "dtype": dtype}
        with made_folder(places.folder):
            found, failures = for_each(pairs, partial(_number, question=question, writing=writing, json=json))
    if json:
        print_json(_document(found, failures, dry_run=dry_run))
    end(len(files), failures)


def _plan(path: Path, output: Path, *, question: Question, json: bool) -> dict[str, Any]:
    question.check(path)
    if not json:
        print(f"would write the objects of {shown(path)} to {shown(output)}")
    return {"input": str(path), "output": str(output)}


def _number(path: Path, output: Path, *, question: Question, writing: dict[str, Any], json: bool) -> dict[str, Any]:
    """Write the objects of one file, and say how many there are."""
    found = question.check(path)
    with progress_bar(f"instances {path.name}") as progress:
        result = fb.instances(found, **question.options, **writing, out=output, progress=progress)
    n = len(result.objects)
    if (text := advice(n, writing["dtype"], output)) is not None:
        say(text)
    tell(objects=n)
    print_path(output, json=json)
    if not json:
        print(count_text(n))
    return _facts(path, output, result)


def advice(n: int, dtype: str | None, output: Path) -> str | None:
    """Return what to know about the dtype of a label image of n objects; None where there is nothing."""
    name = output.name.lower()
    if n > 65_535 and name.endswith((".tif", ".tiff")) and not name.endswith((".ome.tif", ".ome.tiff")):
        return (
            f"note: {n} objects need 32 bits, and ImageJ has no such integers: the TIFF holds floats, which are exact up to 16777216; "
            ".ome.tif holds integers"
        )
    if dtype is not None and dtype != (smallest := "uint8" if n <= 255 else "uint16" if n <= 65_535 else "uint32"):
        return f"note: {smallest} would hold {n} objects, too (uint8 up to 255, uint16 up to 65535)"
    if dtype is None and n > 255:
        return f"note: {n} objects are written as {'uint16' if n <= 65_535 else 'uint32'} (uint8 holds up to 255, uint16 up to 65535)"
    return None


def _facts(path: Path, output: Path, result: Instances) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for entry in result.objects:
        counts[entry.name] = counts.get(entry.name, 0) + 1
    objects = [entry._asdict() for entry in result.objects]
    return {"input": str(path), "output": str(output), "count": len(objects), "classes": counts, "objects": objects}


def _document(found: Sequence[dict[str, Any]], failures: Sequence[Failure], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "outputs": [facts["output"] for facts in found],
        "results": [] if dry_run else list(found),
        "failed": [failure.to_json_dict() for failure in failures],
    }
