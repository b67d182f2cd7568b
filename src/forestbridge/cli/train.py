"""``forestbridge train``: from features and scribbles to a forest."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present
from forestbridge.cli.options import (
    Axes,
    Channels,
    DryRun,
    Ignore,
    Json,
    LabelMerge,
    Names,
    Nan,
    NetworkDevice,
    Overwrite,
    PixelLookup,
    Plane,
    Scene,
    Weights,
)
from forestbridge.cli.output import print_json, print_path, print_training, tell
from forestbridge.cli.projects import refuse_with_projects, training_of_projects
from forestbridge.cli.sources import (
    EncoderChoice,
    LabelReading,
    Reading,
    encoder_for,
    image_or_store,
    is_store,
    labels_for,
    open_image,
    with_like_line,
)
from forestbridge.encoders import Encoder, encoder_from_spec
from forestbridge.errors import SpecMismatchError
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.ilastik import is_project
from forestbridge.image import Image, check_same_kind, is_image_folder
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles, check_scribbles, scribble_stats, share_names
from forestbridge.objects.training_set import MAX_PIXELS, Masks
from forestbridge.stores import FeatureStore
from forestbridge.train import PRESETS, Engine

Source = Image | FeatureStore


def train(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Feature stores, or images (features are then computed on the fly); or ilastik projects, with their own labels; or "
            "folders of NAME.tif with dense masks NAME_masks.tif."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.forest")],
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            "-l",
            metavar="FILE FILE ...",
            help="Scribbles of each source, in the same order; of one source, one or several files.",
        ),
    ] = None,
    names: Names = None,
    masks: Annotated[
        Masks | None,
        typer.Option(help="Of folders: objects are one class (foreground), or inside and rim are two (border)."),
    ] = None,
    masks_suffix: Annotated[
        str | None, typer.Option(help="Of folders: what masks are named; _masks by default.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help=f"Of folders: pixels of each class drawn from each image; {MAX_PIXELS} by default."),
    ] = None,
    preset: Annotated[str, typer.Option(help=f"Forest settings: {', '.join(PRESETS)}.")] = "default",
    n_trees: Annotated[int | None, typer.Option(min=1, help="Number of trees instead of the preset's.")] = None,
    max_depth: Annotated[int | None, typer.Option(min=0, help="Depth instead of the preset's; 0 = unlimited.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all random draws.")] = 0,
    engine: Annotated[
        Engine,
        typer.Option(help="Who grows the trees; auto takes scikit-learn-intelex (sklearnex) where it is installed."),
    ] = "auto",
    plane: Plane = None,
    ignore: Ignore = None,
    merge: LabelMerge = "refuse",
    label_axes: Annotated[
        str | None,
        typer.Option(metavar="LETTERS", help="Axes of the label files if they do not say, or are wrong: XY."),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Train on stores that are not done, where the labels are.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option("--encoder", "-e", metavar="NAME", help="For images: see forestbridge encoders.")
    ] = None,
    interpolation: PixelLookup = None,
    weights: Weights = None,
    device: NetworkDevice = None,
    in_3d: Annotated[bool, typer.Option("--3d", help="For images: filters along z too.")] = False,
    channels: Channels = None,
    axes: Axes = None,
    nan: Nan = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a forest from scribbles.

    Give the sources first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge train a.features.ome.zarr --labels a_labels.tif --names background nucleus -o nuclei.forest[/bold]
    """
    started = time.perf_counter()
    _check_forest_name(output, overwrite=overwrite)
    check_present(sources)
    reading, labelling = Reading(axes, channels, nan, scene), LabelReading(label_axes, ignore, plane, merge)
    choice = EncoderChoice(encoder, in_3d=in_3d, weights=weights, device=device, interpolation=interpolation)
    drawing = {"--masks": masks, "--masks-suffix": masks_suffix, "--max-pixels": max_pixels}
    folders = [path for path in sources if _is_training_set(path)]
    if not folders and (given := [option for option, value in drawing.items() if value is not None]):
        raise ValueError(f"expected {', '.join(given)} with folders of images and masks, found none; leave it out")
    if folders:
        chosen = {"masks": masks, "suffix": masks_suffix, "max_pixels": max_pixels, "axes": label_axes}
        opened, scribbles = _training_set(sources, folders, labels, reading, labelling, chosen, seed=seed)
        used, scribbles = _encoder(opened, choice), share_names(scribbles, names=names)
    elif any(is_project(path) for path in sources):
        refuse_with_projects(
            {
                "--labels": labels,
                "--names": names,
                "--3d": in_3d,
                "--encoder": encoder,
                "--interpolation": interpolation,
            },
            reading,
            labelling,
        )
        opened, scribbles, used = training_of_projects(sources)
    else:
        opened = [image_or_store(path, reading, allow_partial=allow_partial) for path in sources]
        used = _encoder(opened, choice)
        scribbles = labels_for(opened, labels or [], names, labelling)
    if dry_run:
        _print_plan(output, scribbles, json=json)
        return
    settings = {"preset": preset, "seed": seed, "n_trees": n_trees, "max_depth": max_depth, "engine": engine}
    forest = _train(opened, scribbles, used, settings)
    forest.save(output, overwrite=overwrite)
    _print_forest(forest, output, time.perf_counter() - started, json=json)


def _is_training_set(path: Path) -> bool:
    return path.is_dir() and not is_image_folder(path) and not is_store(path)


def _training_set(
    sources: Sequence[Path],
    folders: Sequence[Path],
    labels: Sequence[Path] | None,
    reading: Reading,
    labelling: LabelReading,
    drawing: dict[str, Any],
    *,
    seed: int,
) -> tuple[list[Source], list[Scribbles]]:
    """Return the images of folders, and what was drawn from their masks.

    Raises
    ------
    ValueError
        If there are other sources too, or labels, or options for them.
    """
    if len(folders) < len(sources) or labels or labelling != LabelReading(axes=labelling.axes):
        raise ValueError(
            f"expected folders of images and masks alone, found {shown(folders[0])} with other sources or label options; train on one kind"
        )
    options = {name: value for name, value in drawing.items() if value is not None}
    pairs = [pair for folder in folders for pair in fb.read_training_set(folder, seed=seed, **options)]
    return [open_image(pair.image, reading) for pair in pairs], [pair.scribbles for pair in pairs]


def _check_forest_name(output: Path, *, overwrite: bool) -> None:
    """Refuse another suffix: ``info`` and --like tell a forest by it, and a slip must not replace a label file."""
    if output.suffix != ".forest":
        raise ValueError(
            f"expected a forest named NAME.forest, found {shown(output)}; give -o {shown(output.with_suffix('.forest'))}"
        )
    check_output(output, overwrite=overwrite)


def _encoder(sources: Sequence[Source], choice: EncoderChoice) -> Encoder | None:
    """Return the encoder for images: that of the stores beside them, if there are any; None if there is no image.

    Raises
    ------
    ValueError
        If an encoder is chosen where a store decides.
    """
    images = [source for source in sources if isinstance(source, Image)]
    stores = [source for source in sources if not isinstance(source, Image)]
    settings = {"--3d": choice.in_3d, "--encoder": choice.name, "--interpolation": choice.interpolation}
    if stores and (given := [option for option, value in settings.items() if value]):
        raise ValueError(
            f"expected {', '.join(given)} with images only, found the feature store {shown(stores[0].path)}; leave it out: the store's "
            "encoder decides"
        )
    check_same_kind(images)
    if not images:
        return None
    if not stores:
        choice.check()
        return encoder_for(images, choice)
    spec = stores[0].spec
    return encoder_from_spec(spec, **(choice.running() if spec.name != "filters" else {}))


def _train(
    sources: Sequence[Source], scribbles: Sequence[Scribbles], encoder: Encoder | None, settings: dict
) -> PixelForest:
    try:
        return fb.train(list(zip(sources, scribbles, strict=True)), encoder=encoder, **settings)
    except SpecMismatchError as error:
        first = next(source for source in sources if not isinstance(source, Image))
        raise with_like_line(error, "IMAGE", first.path) from error


def _print_plan(output: Path, scribbles: Sequence[Scribbles], *, json: bool) -> None:
    check_scribbles(scribbles)
    if json:
        print_json({"dry_run": True, "forest": str(output), "scribbles": [scribble_stats(s) for s in scribbles]})
    else:
        print(f"would train on {', '.join(map(repr, scribbles))} and write {shown(output)}")


def _print_forest(forest: PixelForest, output: Path, seconds: float, *, json: bool) -> None:
    if json:
        print_json({"forest": str(output), "seconds": round(seconds, 2), **forest.describe()})
    else:
        print_training(forest, seconds)
    tell(
        trees=forest.n_trees,
        pixels=sum(forest.training["pixels"].values()),
        accuracy=f"{forest.training['oob_accuracy']:.4f}",
    )
    print_path(output, json=json)
