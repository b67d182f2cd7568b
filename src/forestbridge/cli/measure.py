"""``forestbridge measure``: from label images of objects to tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from forestbridge.cli.batch import check_present
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.options import DryRun, Json, Overwrite
from forestbridge.cli.output import print_json, print_path, print_table, tell
from forestbridge.cli.places import Places, check_places
from forestbridge.image import read_image
from forestbridge.image.source import shown
from forestbridge.objects.exchange import Draw, check_suffix, drawn_objects, geojson_file, roi_zip
from forestbridge.objects.labelled import units
from forestbridge.objects.measure import Measured, measure_units, open_measured
from forestbridge.objects.tables import ObjectTable, check_table_name, write_table

PREVIEW = ("id", "class", "t", "z", "area_px", "volume_px", "area_um2", "volume_um3")
"""Columns that are printed of the first objects."""

PlaneByPlane = Annotated[
    bool,
    typer.Option(
        "--plane-by-plane",
        help="Of a stack: objects of each plane on its own, not through the planes that share a number.",
    ),
]


def measure(
    labels: Annotated[Path, typer.Argument(help="Label image: one number for each object, 0 is none.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Table to write: .csv .parquet")] = None,
    rois: Annotated[Path | None, typer.Option(help="NAME.zip to write: outlines as ImageJ ROIs.")] = None,
    geojson: Annotated[
        Path | None, typer.Option(help="NAME.geojson to write: outlines, classes and measurements for QuPath.")
    ] = None,
    detections: Annotated[
        bool, typer.Option("--detections", help="For QuPath: detections, not annotations; for many objects.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="The image under it: intensities per channel.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option("--probabilities", "-p", help="Probabilities of classes, as predict writes them.")
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Class of all objects; by default the most probable one."),
    ] = None,
    plane_by_plane: PlaneByPlane = False,
    channels: Annotated[
        list[int] | None,
        typer.Option("--channels", "-c", metavar="N N ...", help="Channels of the image, counted from 0."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option("--axes", metavar="LETTERS", help="Axes of image and labels if their files do not say."),
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Measure each object of a label image: size, place, shape, and the intensities and class probabilities in it.

    Example: [bold]forestbridge measure a_objects.tif --image a.tif -o a_objects.csv[/bold]
    """
    inputs = [path for path in (labels, image, probabilities) if path is not None]
    check_present(inputs)
    outputs = _check_outputs(inputs, output, rois, geojson, overwrite=overwrite)
    measured = _open(labels, image, probabilities, class_name, channels, axes)
    if dry_run:
        _print_plan(measured, outputs, json=json)
        return
    with progress_bar(f"measure {labels.name}") as progress:
        counted = _Counted(measured, plane_by_plane=plane_by_plane, progress=progress)
        _write(counted, output, rois, geojson, detections=detections, overwrite=overwrite)
    tell(objects=counted.objects)
    if json:
        written = {"table": output, "rois": rois, "geojson": geojson}
        written = {name: None if path is None else str(path) for name, path in written.items()}
        print_json({"objects": counted.objects, "classes": dict(counted.classes), **written})
    else:
        _print_summary(counted)
    for path in outputs:
        print_path(path, json=json)


def _check_outputs(
    inputs: Sequence[Path], output: Path | None, rois: Path | None, geojson: Path | None, *, overwrite: bool
) -> list[Path]:
    """Return the files that will be written.

    Raises
    ------
    ValueError, OutputExistsError, ResourceError, MissingExtraError
        If there is none, its suffix is another one, it is there, or it cannot be written.
    """
    outputs = [path for path in (output, rois, geojson) if path is not None]
    if not outputs:
        raise ValueError("expected an output, found none; give a table with -o NAME.csv, or --rois or --geojson")
    if output is not None:
        check_table_name(output)
    if rois is not None:
        check_suffix(rois, ".zip")
    if geojson is not None:
        check_suffix(geojson, ".geojson", ".json")
    for path in outputs:
        check_places(inputs, Places([path], None), overwrite=overwrite)
    return outputs


def _write(
    counted: "_Counted",
    output: Path | None,
    rois: Path | None,
    geojson: Path | None,
    *,
    detections: bool,
    overwrite: bool,
) -> None:
    """Write what was asked for in one walk through the planes."""
    with ExitStack() as stack:
        draws: list[Draw] = []
        if rois is not None:
            draws.append(stack.enter_context(roi_zip(rois, counted.measured, overwrite=overwrite)))
        if geojson is not None:
            draws.append(stack.enter_context(geojson_file(geojson, detections=detections, overwrite=overwrite)))
        tables = _drawn(counted, draws) if draws else iter(counted)
        if output is not None:
            write_table(output, tables, overwrite=overwrite)
        else:
            for _ in tables:
                pass


def _drawn(counted: "_Counted", draws: Sequence[Draw]) -> Iterator[ObjectTable]:
    """Yield the tables, and draw the objects of each."""
    measured, by_plane = counted.measured, counted.plane_by_plane
    for unit, table in zip(units(measured.labels, plane_by_plane=by_plane), counted, strict=True):
        for drawn in drawn_objects(measured, unit, table):
            for draw in draws:
                draw(drawn)
        yield table


def _open(
    labels: Path,
    image: Path | None,
    probabilities: Path | None,
    class_name: str | None,
    channels: list[int] | None,
    axes: str | None,
) -> Measured:
    under = read_image(image, axes=axes, channels=channels) if image else None
    shares = read_image(probabilities) if probabilities else None
    return open_measured(labels, under, shares, class_name=class_name, axes=axes)


class _Counted:
    """The tables of a label image one by one, and what was seen of them."""

    def __init__(self, measured: Measured, *, plane_by_plane: bool, progress) -> None:
        self.measured, self.plane_by_plane, self.progress = measured, plane_by_plane, progress
        self.objects = 0
        self.classes: Counter[str] = Counter()
        self.first: ObjectTable | None = None

    def __iter__(self) -> Iterator[ObjectTable]:
        sizes = self.measured.labels.sizes
        total = sizes["T"] * (sizes["Z"] if self.plane_by_plane else 1)
        for done, table in enumerate(measure_units(self.measured, plane_by_plane=self.plane_by_plane), 1):
            self.objects += len(table)
            self.classes.update(map(str, table.columns.get("class", ())))
            self.first = self.first or (table if len(table) else None)
            yield table
            self.progress(done, total)


def _print_plan(measured: Measured, outputs: Sequence[Path], *, json: bool) -> None:
    names = [*measured.channel_names, *measured.class_names]
    if json:
        print_json({"dry_run": True, "outputs": [str(path) for path in outputs], "channels": names})
    else:
        what = f"{shown(measured.labels.source)}{' with ' + ', '.join(names) if names else ''}"
        print(f"would measure {what} and write {', '.join(map(shown, outputs))}")


def _print_summary(counted: _Counted) -> None:
    classes = ", ".join(f"{n} {name}" for name, n in sorted(counted.classes.items()))
    print(f"{counted.objects} objects{': ' + classes if classes else ''}")
    if counted.first is not None:
        wanted = [name for name in PREVIEW if name in counted.first.columns]
        rows = [
            [f"{r[n]:.6g}" if isinstance(r[n], float) else str(r[n]) for n in wanted]
            for r, _ in zip(counted.first.rows(), range(5))
        ]
        print_table("the first ones", wanted, rows)
