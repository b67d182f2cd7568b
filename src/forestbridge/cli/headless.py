"""``forestbridge predict --project``: the options of ``ilastik --headless``, as a script has them."""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present, end, for_each
from forestbridge.cli.messages import progress_bar, say
from forestbridge.cli.output import print_json, print_path
from forestbridge.devices import find_gpu
from forestbridge.errors import ImageError
from forestbridge.forest import PixelForest
from forestbridge.headless import DTYPES, FORMATS, SOURCES, Export, Plan, plan_export, run_export
from forestbridge.ilastik import Project
from forestbridge.image import Image
from forestbridge.image.hdf5 import split_internal
from forestbridge.image.source import shown

PANEL = "In the words of ilastik --headless"

MOST_TEXT = 1000
"""Longest list of numbers that is read."""


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    """Return an option under its name with hyphens, and as ilastik spells it."""
    spelled = [spelling for name in names for spelling in (name, "--" + name[2:].replace("-", "_"))]
    return typer.Option(*dict.fromkeys(spelled), help=help, metavar=metavar, rich_help_panel=PANEL)


ProjectFile = Annotated[Path | None, _option("--project", help="An ilastik project with a trained forest.")]
RawData = Annotated[
    list[Path] | None, _option("--raw-data", help="Images; they may also stand at the end.", metavar="FILE FILE ...")
]
ExportSource = Annotated[str | None, _option("--export-source", help=", ".join(SOURCES))]
OutputFormat = Annotated[str | None, _option("--output-format", help=", ".join(FORMATS))]
OutputFilenameFormat = Annotated[
    str | None,
    _option(
        "--output-filename-format",
        help="With {dataset_dir} {nickname} {result_type} {roi} {x_start} {x_stop} ...; {dataset_dir}/{nickname}_{result_type}.",
    ),
]
OutputInternalPath = Annotated[str | None, _option("--output-internal-path", help="Dataset in HDF5; exported_data.")]
OutputAxisOrder = Annotated[str | None, _option("--output-axis-order", help="Such as tzyxc; that of the image.")]
InputAxes = Annotated[str | None, _option("--input-axes", help="Axes of the image files, such as yxc.")]
CutoutSubregion = Annotated[
    str | None, _option("--cutout-subregion", help='Start and stop, such as "[(0, 0, 0), (100, 200, 2)]".')
]
ExportDtype = Annotated[str | None, _option("--export-dtype", help=", ".join(DTYPES))]
PipelineResultDrange = Annotated[
    str | None, _option("--pipeline-result-drange", help='Range of the result, such as "(0.0, 1.0)".')
]
ExportDrange = Annotated[str | None, _option("--export-drange", help='What it becomes, such as "(0, 255)".')]
Readonly = Annotated[
    str | None, _option("--readonly", help="Taken for ilastik's sake: a project is never written.", metavar="1")
]
IgnoreTrainingAxes = Annotated[
    bool,
    typer.Option(
        "--ignore-training-axistags",
        "--ignore_training_axistags",
        help="Do not take the axes of the project's images for files that name none.",
        rich_help_panel=PANEL,
    ),
]
HeadlessFlag = Annotated[bool, typer.Option("--headless", help="Taken for ilastik's sake.", rich_help_panel=PANEL)]


class Words(NamedTuple):
    """The options as they were typed; None where one was not."""

    export_source: str | None = None
    output_format: str | None = None
    output_filename_format: str | None = None
    output_internal_path: str | None = None
    output_axis_order: str | None = None
    input_axes: str | None = None
    cutout_subregion: str | None = None
    export_dtype: str | None = None
    pipeline_result_drange: str | None = None
    export_drange: str | None = None

    def given(self) -> list[str]:
        """Return the options that were typed."""
        return [f"--{name.replace('_', '-')}" for name, value in self._asdict().items() if value is not None]

    def export(self, project: Project) -> Export:
        """Return what they mean; what was not typed is as the project's export dialog was set, as in ilastik.

        Raises
        ------
        ValueError
            If one of them is not understood.
        """
        typed = {
            "source": self.export_source,
            "format": self.output_format,
            "filename": self.output_filename_format,
            "internal_path": self.output_internal_path,
            "axes": self.output_axis_order.lower() if self.output_axis_order else None,
            "region": _region(self.cutout_subregion),
            "dtype": self.export_dtype,
            "result_range": _range("--pipeline-result-drange", self.pipeline_result_drange),
            "export_range": _range("--export-drange", self.export_drange),
        }
        stored = dict(project.export)
        if "filename" in stored and not stored["filename"].startswith(
            "{"
        ):  # relative to the project, not to where we are
            stored["filename"] = str(project.path.absolute().parent / stored["filename"])
        settings = {**stored, **{name: value for name, value in typed.items() if value is not None}}
        return Export(**{**settings, "internal_path": settings.get("internal_path", "exported_data").strip("/")})


class Run(NamedTuple):
    """How an export runs: the options that are not ilastik's."""

    jobs: int | None
    device: str
    nan: float | None
    overwrite: bool
    dry_run: bool
    json: bool
    ignore_training_axes: bool = False


def refuse_beside_project(options: Mapping[str, Any]) -> None:
    """Refuse our own words beside ilastik's.

    Raises
    ------
    ValueError
        With the options that were given.
    """
    if given := [option for option, value in options.items() if value not in (None, [])]:
        raise ValueError(
            f"expected ilastik's options with --project, found also {', '.join(given)}; leave it out, or use the project as a forest: "
            "forestbridge predict IMAGE --forest PROJECT.ilp -o OUT.tif"
        )


def refuse_without_project(
    words: Words, raw_data: Sequence[Path] | None, *, readonly: str | None, headless: bool
) -> None:
    """Refuse ilastik's words where there is no project.

    Raises
    ------
    ValueError
        With the options that were given.
    """
    others = {"--raw-data": bool(raw_data), "--readonly": readonly is not None, "--headless": headless}
    if given := [*words.given(), *(option for option, there in others.items() if there)]:
        raise ValueError(f"expected --project PROJECT.ilp with {', '.join(given)}, found none; add it")


def predict_as_ilastik(path: Path, files: Sequence[Path], words: Words, run: Run) -> None:
    """Export the result of each image as ``ilastik --headless`` does.

    Raises
    ------
    ValueError
        If there is no image, an option is not understood, or two images would be written to one file.
    ForestbridgeError
        If the project cannot be used.
    """
    if not files:
        raise ValueError("expected images, found none; give them with --raw-data, or at the end")
    check_present(files)
    project = fb.read_project(path)
    export = words.export(project)
    forest = project.pixel_forest()
    run = run._replace(device=str(find_gpu(run.device) or "cpu"))
    axes = words.input_axes.split(",")[0] if words.input_axes else None
    trained = next((lane.axes for lane in project.lanes if lane is not None), None)
    reading = partial(_read, axes=axes, trained=None if run.ignore_training_axes else trained, nan=run.nan)
    opened, failures = for_each([(f, f) for f in files], partial(_open, forest=forest, export=export, reading=reading))
    _check_distinct(opened, export)
    items = [(Path(image.source), (image, plan)) for image, plan in opened]
    outputs, failed = for_each(items, partial(_write, project=project, forest=forest, export=export, run=run))
    failures += failed
    if run.json:
        document = {"dry_run": run.dry_run, "outputs": list(map(str, outputs))}
        print_json({**document, "failed": [failure.to_json_dict() for failure in failures]})
    end(len(files), failures)


def _read(path: Path, *, axes: str | None, trained: str | None, nan: float | None) -> Image:
    """Open an image; where its file does not say what its axes are, they are those that the project was trained on."""
    try:
        return fb.read_image(path, axes=axes, nan=nan)
    except ImageError as error:
        if axes is not None or not trained:
            raise
        try:
            image = fb.read_image(path, axes=trained, nan=nan)
        except ImageError:
            raise error from None  # the axes were not what was wrong
    say(
        f"{shown(path)}: no axes in the file, taken as {trained}, as in the project; give --input_axes if they are others"
    )
    return image


def _open(
    path: Path, _: Path, *, forest: PixelForest, export: Export, reading: Callable[[Path], Image]
) -> tuple[Image, Plan]:
    image = reading(path)
    return image, plan_export(forest, image, export)


def _check_distinct(opened: Sequence[tuple[Image, Plan]], export: Export) -> None:
    """Refuse images whose results would lie in one file; ilastik keeps the last one.

    Raises
    ------
    ValueError
        With the images.
    """
    places: dict[str, list[str]] = {}
    for image, plan in opened:
        places.setdefault(str(plan.path).casefold(), []).append(image.source)
    inputs = {Path(split_internal(image.source)[0]).resolve() for image, _ in opened}
    for images in places.values():
        if len(images) > 1:
            raise ValueError(
                f"expected a file for each image, found the same one for {', '.join(images)} ({shown(export.filename)}); put {{nickname}} "
                "into --output_filename_format, and rename images that differ after a dot only"
            )
    if same := [shown(plan.path) for _, plan in opened if plan.path.resolve() in inputs]:
        raise ValueError(
            f"expected outputs apart from the images, found {', '.join(same)}; give another --output_filename_format"
        )


def _write(
    path: Path, item: tuple[Image, Plan], *, project: Project, forest: PixelForest, export: Export, run: Run
) -> Path:
    image, plan = item
    if run.dry_run:
        if not run.json:
            sizes = " ".join(f"{a}={n}" for a, n in zip(plan.axes, plan.shape, strict=True))
            print(f"would write {export.source} of {image.source} to {shown(plan.path)}: {sizes} {plan.dtype}")
        return plan.path
    with progress_bar(f"predict {path.name}") as progress:
        options: dict[str, Any] = {"jobs": run.jobs, "device": run.device, "progress": progress}
        run_export(project, forest, image, export, plan, overwrite=run.overwrite, **options)
    print_path(plan.path, json=run.json)
    return plan.path


def _literal(option: str, text: str, example: str) -> Any:
    """Return a list of numbers as Python writes it.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        return ast.literal_eval(text[:MOST_TEXT])
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"expected {option} as {example}, found {text[:80]!r}; write it so, in quotes") from error


def _region(text: str | None) -> tuple[tuple[int | None, ...], tuple[int | None, ...]] | None:
    if text is None:
        return None
    example = '"[(0, 0, 0), (100, 200, 2)]"'
    value = _literal("--cutout-subregion", text, example)
    good = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, list | tuple) for v in value)
    if not good or not all(n is None or isinstance(n, int) for v in value for n in v):
        raise ValueError(
            f"expected --cutout-subregion as {example}, found {text[:80]!r}; give start and stop along each axis"
        )
    return tuple(value[0]), tuple(value[1])


def _range(option: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    value = _literal(option, text, '"(0.0, 1.0)"')
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(n, int | float) for n in value):
        raise ValueError(
            f'expected {option} as "(0.0, 1.0)", found {text[:80]!r}; give the smallest and the largest value'
        )
    return float(value[0]), float(value[1])
