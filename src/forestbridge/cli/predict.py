"""``forestbridge predict``: from images or stores, with a forest or a package, to classes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.assemble import Kind
from forestbridge.cli import headless
from forestbridge.cli.batch import Failure, check_present, end, for_each
from forestbridge.cli.drift import Comparison
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.options import Axes, Channels, DryRun, Format, Json, Nan, Overwrite, Scene, Trust, Weights
from forestbridge.cli.output import print_json, print_path, tell
from forestbridge.cli.places import files_of, made_folder, result_places
from forestbridge.cli.sources import Reading, check_weights, image_or_store, is_store, with_like_line
from forestbridge.devices import find_gpu
from forestbridge.encoders import Encoder, encoder_from_spec
from forestbridge.encoders.features import check_image
from forestbridge.errors import ImageError, SpecMismatchError
from forestbridge.forest import PixelForest
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.model import open_forest
from forestbridge.once import open_once
from forestbridge.qc.drift import Statistics
from forestbridge.runner import Package
from forestbridge.spec import EncoderSpec
from forestbridge.stores import FeatureStore


def predict(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Images or feature stores; a folder stands for the images in it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".tif .ome.tif .ome.zarr .h5 .npy .nrrd .png; for several sources a folder."
        ),
    ] = None,
    forest: Annotated[
        Path | None,
        typer.Option(help="A forest, or an ilastik project (.ilp) with one; runs in forestbridge's own engine."),
    ] = None,
    package: Annotated[Path | None, typer.Option(help="A package (.zip); runs its ONNX weights.")] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="What to write; by default labels for .png, else probabilities.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="For several sources: what follows their names.")] = "_probabilities.tif",
    match: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Of a folder: files named so, such as '*_DAPI.tif'; by default all images."
        ),
    ] = None,
    format: Format = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto: a GPU if there is one.")] = "cpu",
    tile: Annotated[int | None, typer.Option(min=1, help="For packages: wanted length of a tile in pixels.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="For forests: tiles worked on at the same time; all cores by default."
        ),
    ] = None,
    weights: Weights = None,
    trust: Trust = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse images unlike those of the training: other bit depth, range, channels, pixel size."
        ),
    ] = False,
    channels: Channels = None,
    axes: Axes = None,
    nan: Nan = None,
    scene: Scene = None,
    project: headless.ProjectFile = None,
    raw_data: headless.RawData = None,
    export_source: headless.ExportSource = None,
    output_format: headless.OutputFormat = None,
    output_filename_format: headless.OutputFilenameFormat = None,
    output_internal_path: headless.OutputInternalPath = None,
    output_axis_order: headless.OutputAxisOrder = None,
    input_axes: headless.InputAxes = None,
    cutout_subregion: headless.CutoutSubregion = None,
    export_dtype: headless.ExportDtype = None,
    pipeline_result_drange: headless.PipelineResultDrange = None,
    export_drange: headless.ExportDrange = None,
    ignore_training_axistags: headless.IgnoreTrainingAxes = False,
    readonly: headless.Readonly = None,
    headless_flag: headless.HeadlessFlag = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Classify every pixel of images, with a forest or a package.

    Give the sources first: an option shown with ... takes all values up to the next option.

    With --project it takes the words of ilastik --headless, and writes the same files.

    Example: [bold]forestbridge predict b.tif --forest nuclei.forest -o b_probabilities.tif[/bold]
    """
    words = headless.Words(
        export_source,
        output_format,
        output_filename_format,
        output_internal_path,
        output_axis_order,
        input_axes,
        cutout_subregion,
        export_dtype,
        pipeline_result_drange,
        export_drange,
    )
    if project is not None:
        ours = {
            "--strict": strict or None,
            "-o": output,
            "--forest": forest,
            "--package": package,
            "--kind": kind,
            "--tile": tile,
            "--weights": weights,
            "--trust": trust,
        }
        headless.refuse_beside_project(
            {**ours, "--format": format, "--channels": channels, "--axes": axes, "--scene": scene}
        )
        files = [*(raw_data or []), *(sources or [])]
        run = headless.Run(jobs, device, nan, overwrite=overwrite, dry_run=dry_run, json=json)
        run = run._replace(ignore_training_axes=ignore_training_axistags)
        headless.predict_as_ilastik(project, files, words, run)
        return
    headless.refuse_without_project(words, raw_data, readonly=readonly, headless=headless_flag)
    if not sources or output is None:
        missing = "an image or store" if not sources else "an output"
        raise ValueError(
            f"expected {missing}, found none; write: forestbridge predict b.tif --forest nuclei.forest -o p.tif"
        )
    files = files_of(sources, match)
    check_present(files)
    places = result_places(files, output, suffix, in_folder=files != sources, format=format, overwrite=overwrite)
    classifier = _open_classifier(forest, package, device=device, tile=tile, trust=trust, jobs=jobs, weights=weights)
    comparison = Comparison(classifier.training_images, strict=strict)
    options = {"reading": Reading(axes, channels, nan, scene), "kind": kind, "json": json, "comparison": comparison}
    pairs = list(zip(files, places.paths, strict=True))
    if dry_run:
        outputs, failures = for_each(pairs, partial(_plan, classifier=classifier, **options))
    else:
        if weights is not None and classifier.spec is not None:
            encoder = encoder_from_spec(classifier.spec, weights=weights, device=classifier.device)
            classifier = classifier._replace(encoder=encoder)
        with made_folder(places.folder):
            outputs, failures = for_each(
                pairs, partial(_predict, classifier=classifier, overwrite=overwrite, format=format, **options)
            )
    if json:
        print_json(_document(outputs, failures, comparison, dry_run=dry_run))
    end(len(files), failures)


class Classifier(NamedTuple):
    """A forest or a package, open for prediction; one of the two is None. The forest's encoder is open where its weights were named."""

    path: Path
    forest: PixelForest | None
    package: Package | None
    tile: int | None = None
    jobs: int | None = None
    device: str = "cpu"
    encoder: Encoder | None = None

    @property
    def training_images(self) -> Statistics | None:
        """What the training images were like, see `forestbridge.qc.drift`; None of forests and packages that do not say."""
        if self.forest:
            found = self.forest.training.get("images")
        else:
            assert self.package is not None
            training = self.package.info.metadata.get("training")
            found = training.get("images") if isinstance(training, Mapping) else None
        return found if isinstance(found, Mapping) else None

    def class_texts(self) -> list[str]:
        """Return "value:name" of each class, without commas in names, for macros."""
        if self.forest:
            pairs = zip(self.forest.classes, self.forest.names, strict=True)
        else:
            assert self.package is not None
            pairs = zip(self.package.classes.values, self.package.classes.names, strict=True)
        return [f"{value}:{name.replace(',', ';')}" for value, name in pairs]

    @property
    def spec(self) -> EncoderSpec | None:
        """The encoder whose features it takes; None for packages of others."""
        return self.forest.spec if self.forest else self.package.info.spec if self.package else None


def _open_classifier(
    forest: Path | None,
    package: Path | None,
    *,
    device: str,
    tile: int | None,
    trust: str | None,
    jobs: int | None,
    weights: Path | dict[str, Path] | None,
) -> Classifier:
    """Open what classifies.

    Raises
    ------
    ValueError
        If both or none are given, one is given for the other, or options of the one are given with the other.
    """
    if (forest is None) == (package is None):
        found = "none" if forest is None else "both"
        raise ValueError(f"expected either --forest or --package, found {found}; give one of them")
    if forest is None:
        assert package is not None
        if package.suffix.lower() == ".forest":
            raise ValueError(f"expected a package (.zip) for --package, found {shown(package)}; give it with --forest")
        if jobs is not None:
            raise ValueError(
                "expected --jobs with --forest only, found --package; leave it out: onnxruntime uses all cores"
            )
        if weights is not None:
            raise ValueError(
                "expected --weights with --forest only, found --package; leave it out: a package holds its weights"
            )
        return Classifier(package, None, open_once(fb.open_package, package, device=device, trust=trust), tile=tile)
    if forest.suffix.lower() == ".zip":
        raise ValueError(f"expected a forest (.forest) for --forest, found {shown(forest)}; give it with --package")
    for_packages = {"--tile": tile, "--trust": trust}
    if given := [option for option, value in for_packages.items() if value is not None]:
        raise ValueError(f"expected {', '.join(given)} with --package only, found --forest; leave it out")
    found = str(find_gpu(device) or "cpu")  # once, before the first of several images
    opened = open_once(open_forest, forest)
    check_weights(opened.spec, weights)
    return Classifier(forest, opened, None, jobs=jobs, device=found)


def _open_source(path: Path, classifier: Classifier, reading: Reading) -> Image | FeatureStore:
    """Open an image or store; a store is refused for a package.

    Raises
    ------
    ImageError
        If a store is given for a package, which computes its features itself.
    """
    if classifier.package is not None and is_store(path):
        raise ImageError(
            f"expected an image for a package, found the feature store {shown(path)}; give the image, or use --forest"
        )
    return image_or_store(path, reading)


def _kind(kind: Kind | None, output: Path) -> Kind:
    return kind or ("labels" if output.suffix.lower() == ".png" else "probabilities")


def _plan(
    path: Path,
    output: Path,
    *,
    classifier: Classifier,
    reading: Reading,
    kind: Kind | None,
    json: bool,
    comparison: Comparison,
) -> Path:
    """Check that a source fits, and say what would be written for it."""
    source = _open_source(path, classifier, reading)
    if isinstance(source, Image) and classifier.spec is not None:
        check_image(classifier.spec, source)
    comparison.check(source)
    if not json:
        print(f"would write the {_kind(kind, output)} of {shown(path)} to {shown(output)}")
    return output


def _predict(
    path: Path,
    output: Path,
    *,
    classifier: Classifier,
    reading: Reading,
    kind: Kind | None,
    overwrite: bool,
    format: str | None,
    json: bool,
    comparison: Comparison,
) -> Path:
    """Write the result of one source."""
    source = _open_source(path, classifier, reading)
    comparison.check(source)
    with progress_bar(f"predict {path.name}") as progress:
        options = {
            "kind": _kind(kind, output),
            "out": output,
            "overwrite": overwrite,
            "format": format,
            "progress": progress,
        }
        if classifier.package is not None and isinstance(source, Image):
            classifier.package.predict(source, tile=classifier.tile, **options)
        else:
            _predict_with_forest(source, classifier, options)
    tell(classes=",".join(classifier.class_texts()))
    print_path(output, json=json)
    return output


def _predict_with_forest(source: Image | FeatureStore, classifier: Classifier, options: dict[str, Any]) -> None:
    assert classifier.forest is not None
    try:
        options |= {"jobs": classifier.jobs, "device": classifier.device, "encoder": classifier.encoder}
        fb.predict(source, classifier.forest, **options)
    except SpecMismatchError as error:
        image = source.source if isinstance(source, Image) else source.image.source
        raise with_like_line(error, image, classifier.path) from error


def _document(
    outputs: Sequence[Path], failures: Sequence[Failure], comparison: Comparison, *, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "outputs": [str(output) for output in outputs],
        "failed": [failure.to_json_dict() for failure in failures],
        "drift": comparison.found,
    }
