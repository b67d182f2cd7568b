"""``ff-package convert`` and ``ff-package ilastik``: from other programs' files to packages and forests, and to a project."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import forestbridge as fb
from forestbridge.cli.featureforest import forest_of_model
from forestbridge.cli.messages import say
from forestbridge.cli.options import Axes, Channels, DryRun, Ignore, Json, LabelMerge, Overwrite, Plane, Scene
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.package import (
    Author,
    Description,
    Formats,
    License,
    Name,
    Order,
    TestImage,
    about_of,
    write_ordered,
)
from forestbridge.cli.sources import LabelReading, Reading, labels_for, open_image
from forestbridge.errors import ForestError
from forestbridge.featureforest import is_pickle
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.graphs import MAX_TORCHSCRIPT_DEPTH
from forestbridge.ilastik.write import check_project
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles
from forestbridge.model import open_forest
from forestbridge.package import FORMATS, About
from forestbridge.train import PRESETS


def convert(
    project: Annotated[
        Path,
        typer.Argument(help="An ilastik project of pixel classification (.ilp), or a model of FeatureForest (.bin)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.zip, or NAME.forest for the forest alone.")],
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Grow a new forest from the project's labels, in place of its own trees.")
    ] = False,
    max_depth: Annotated[
        int | None, typer.Option(min=0, help=f"With --retrain: depth of the trees; {MAX_TORCHSCRIPT_DEPTH} by default.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"With --retrain: forest settings: {', '.join(PRESETS)}.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="With --retrain: of all random draws.")] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", "-i", help="A crop of its middle travels in the zip; by default of the project's first image."
        ),
    ] = None,
    test_image: TestImage = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--names", "-n", metavar="NAME NAME ...", help="For a model of FeatureForest: class names."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="For an old model of FeatureForest, which does not name its encoder: the store it was trained on."
        ),
    ] = None,
    trust: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="For a model of FeatureForest, a pickle: sha256:<hash of the file>."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="NAME",
            help="For a model of FeatureForest: its encoder, to predict images, whose features are computed here as FeatureForest does.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --encoder: the weights that FeatureForest had; needed for microSAM."),
    ] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="With --encoder: for images in colour.")] = False,
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
    """Turn an ilastik project into a package that runs everywhere: its features and its own trees, image → probabilities.

    A model of FeatureForest becomes a forest for its feature stores: ff-package convert nuclei.bin -o nuclei.forest; with
    --encoder cellpose_cyto3 or another one that it was trained on, for images.

    Example: [bold]ff-package convert nuclei.ilp -o nuclei.zip[/bold]
    """
    if is_pickle(project):
        unfit = {"--retrain": retrain, "--max-depth": max_depth, "--preset": preset, "--seed": seed, "--image": image}
        unfit |= {"--test-image": test_image, "--name": name, "--author": author, "--description": description}
        unfit |= {"--formats": formats, "--channels": channels, "--axes": axes, "--scene": scene}
        features = {"like": like, "encoder": encoder, "weights": weights, "rgb": rgb}
        model = forest_of_model(project, output, trust=trust, names=names, **features, unfit=unfit, overwrite=overwrite)
        _save(model, output, overwrite=overwrite, dry_run=dry_run, json=json)
        return
    for_models = {"--names": names, "--like": like, "--trust": trust}
    for_models |= {"--encoder": encoder, "--weights": weights, "--rgb": rgb}
    if given := [option for option, value in for_models.items() if value]:
        raise ValueError(
            f"expected {', '.join(given)} with a model of FeatureForest (.bin) only, found {shown(project)}; leave it out"
        )
    settings = {"--max-depth": max_depth, "--preset": preset, "--seed": seed}
    if not retrain and (given := [option for option, value in settings.items() if value is not None]):
        raise ValueError(f"expected {', '.join(given)} with --retrain, found it alone; add --retrain, or leave it out")
    order = Order(
        output,
        test_image or image,
        Reading(axes, channels, scene=scene),
        about_of(name, author, description, license),
        tuple(formats or FORMATS),
        overwrite,
    )
    to_forest = output.suffix == ".forest"
    if to_forest:
        check_output(output, overwrite=overwrite)
    else:
        order.check()
    opened = fb.read_project(project)
    if retrain:
        forest = fb.train(
            opened.training_pairs(),
            encoder=opened.encoder,
            preset=preset or "default",
            seed=seed or 0,
            max_depth=MAX_TORCHSCRIPT_DEPTH if max_depth is None else max_depth,
        )
    else:
        forest = opened.pixel_forest()
    if to_forest:
        _save(forest, output, overwrite=overwrite, dry_run=dry_run, json=json)
        return
    if "torchscript" in order.formats:
        _check_depth(forest, project, output)
    picture = order.picture() if order.image else opened.first_image()
    write_ordered(fb.write_package, forest, picture, order, dry_run=dry_run, json=json)


def _save(forest: PixelForest, output: Path, *, overwrite: bool, dry_run: bool, json: bool) -> None:
    if not dry_run:
        forest.save(output, overwrite=overwrite)
    if json:
        print_json({"dry_run": dry_run, "forest": str(output), **forest.describe()})
    elif dry_run:
        print(f"would write {shown(output)} with {forest.n_trees} trees of depth {forest.depth()}")
    if not dry_run:
        print_path(output, json=json)


def _check_depth(forest: PixelForest, project: Path, output: Path) -> None:
    """Refuse trees that are too deep for TorchScript, with the two ways out.

    Raises
    ------
    ForestError
        With the depth.
    """
    if (depth := forest.depth()) > MAX_TORCHSCRIPT_DEPTH:
        command = f"ff-package convert {shlex.quote(shown(project))} -o {shlex.quote(shown(output))}"
        raise ForestError(
            f"expected trees of depth ≤ {MAX_TORCHSCRIPT_DEPTH} for TorchScript, which ilastik and QuPath need, found depth {depth}. Grow "
            f"shallower ones from the project's labels: {command} --retrain --max-depth {MAX_TORCHSCRIPT_DEPTH}; or keep these without "
            f"TorchScript: {command} --formats onnx"
        )


def ilastik(
    forest: Annotated[Path, typer.Argument(help="NAME.forest, trained on the filter bank.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.ilp")],
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "-i", metavar="FILE FILE ...", help="Images that the project opens with."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            "-l",
            metavar="FILE FILE ...",
            help="Scribbles of each image, in the same order; ilastik needs them to retrain.",
        ),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Refer to the image files, in place of copying their pixels.")
    ] = False,
    label_axes: Annotated[
        str | None,
        typer.Option(metavar="LETTERS", help="Axes of the label files if they do not say, or are wrong: XY."),
    ] = None,
    ignore: Ignore = None,
    plane: Plane = None,
    merge: LabelMerge = "refuse",
    channels: Channels = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write a forest as an ilastik project, which ilastik opens, predicts with, and can train on.

    Example: [bold]ff-package ilastik nuclei.forest --image a.tif --labels a_labels.tif -o nuclei.ilp[/bold]
    """
    check_output(output, overwrite=overwrite)
    loaded = open_forest(forest)
    if link and channels:
        raise ValueError(
            "expected --link without --channels, since ilastik reads the whole file, found both; leave one out"
        )
    reading = Reading(axes, channels, scene=scene)
    images = [open_image(path, reading) for path in image or ()]
    scribbles = _scribbles(images, labels or [], loaded, LabelReading(label_axes, ignore, plane, merge))
    _say_what_is_lost(loaded, images, labels)
    pairs = list(zip(images, scribbles, strict=True))
    place = "link" if link else "embed"
    if dry_run:
        check_project(output, loaded, pairs, images=place)
        facts = {"dry_run": True, "project": str(output), "images": [i.source for i in images], "linked": link}
        print_json(facts) if json else print(f"would write {shown(output)} with {len(images)} image(s)")
        return
    fb.write_project(output, loaded, pairs, images=place, overwrite=overwrite)
    if json:
        print_json({"project": str(output), **fb.read_project(output).describe()})
    print_path(output, json=json)


def _scribbles(
    images: Sequence[Image], labels: Sequence[Path], forest: PixelForest, reading: LabelReading
) -> Sequence[Scribbles | None]:
    """Return the scribbles of each image; None for all where there are no label files.

    Raises
    ------
    ValueError
        If there are labels without an image.
    """
    if not labels:
        return [None] * len(images)
    if not images:
        raise ValueError("expected the image of the labels, found none; give it with --image")
    return labels_for(images, labels, list(forest.names), reading)


def _say_what_is_lost(forest: PixelForest, images: Sequence[Image], labels: Sequence[Path] | None) -> None:
    """Tell what ilastik will not have."""
    if not images:
        say("no --image given: the project has no image; add one in ilastik, or predict headless")
    elif not labels:
        say("no --labels given: ilastik predicts with the project, but has nothing to retrain on")
    if forest.classes != tuple(range(1, forest.n_classes + 1)):
        values = ", ".join(f"{value} becomes {k}" for k, value in enumerate(forest.classes, start=1))
        say(f"ilastik counts classes from 1: label {values}")
