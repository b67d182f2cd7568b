"""``forestbridge export``: from a feature store to an image with a channel for each feature."""

from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.options import Axes, Channels, DryRun, Format, Json, Like, Nan, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.places import Places, check_places
from forestbridge.cli.sources import (
    EncoderChoice,
    Reading,
    encoder_for,
    image_or_store,
    open_image,
    spec_of,
)
from forestbridge.export import chosen_features, features_info, important_features
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.image.writers import result_format
from forestbridge.model import open_forest
from forestbridge.spec import EncoderSpec, require_same_spec
from forestbridge.stores import FEATUREFOREST, plan_featureforest


def export(
    source: Annotated[Path, typer.Argument(help="A feature store; or an image, whose filters are then computed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".h5 .ome.zarr .ome.tif .tif .npy .nrrd")],
    features: Annotated[
        list[str] | None,
        typer.Option("--features", metavar="N N ...", help="Features by number, from 0, or by name; all by default."),
    ] = None,
    forest: Annotated[
        Path | None, typer.Option(help="Only the features that decide most in this forest: see --top.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="With --forest: how many.")] = 16,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="The image itself: its channels come first.")
    ] = None,
    like: Like = None,
    format: Format = None,
    channels: Channels = None,
    axes: Axes = None,
    nan: Nan = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write features as an image of the full size, for programs that know nothing of stores: ilastik takes them as channels.

    Example: [bold]forestbridge export a.features.ome.zarr -o a_features.h5[/bold]
    """
    check_places([source], Places([output], None), overwrite=overwrite)
    if format == FEATUREFOREST:
        unfit = {"--features": features, "--forest": forest, "--image": image, "--like": like}
        _export_to_featureforest(source, output, unfit, overwrite=overwrite, dry_run=dry_run, json=json)
        return
    result_format(output, format)
    reading = Reading(axes, channels, nan, scene)
    opened = image_or_store(source, reading)
    encoder = encoder_for([opened], EncoderChoice(like=like or forest)) if isinstance(opened, Image) else None
    spec = encoder.spec if encoder else spec_of(source)
    chosen = _chosen(spec, features, forest, top)
    beside = open_image(image, Reading()) if image else None
    facts = _facts(opened, spec, chosen, beside, output)
    if dry_run:
        print_json({"dry_run": True, **facts}) if json else print(_plan(facts))
        return
    fb.export_features(
        opened, output, encoder=encoder, features=chosen, beside=beside, format=format, overwrite=overwrite
    )
    if json:
        print_json({"dry_run": False, **facts})
    print_path(output, json=json)


def _export_to_featureforest(
    source: Path, output: Path, unfit: dict[str, Any], *, overwrite: bool, dry_run: bool, json: bool
) -> None:
    """Write a store in FeatureForest's layout.

    Raises
    ------
    ValueError
        If the source is no store, or options for images are given.
    """
    if given := [option for option, value in unfit.items() if value]:
        raise ValueError(
            f"expected --format featureforest without {', '.join(given)}, since it takes all features of a store; leave it out"
        )
    if output.suffix.lower() != ".hdf5":
        raise ValueError(f"expected -o NAME.hdf5 for --format featureforest, found {shown(output)}; give another name")
    store = image_or_store(source, Reading())
    if isinstance(store, Image):
        raise ValueError(
            f"expected a feature store for --format featureforest, found the image {shown(source)}; extract it first"
        )
    plan = plan_featureforest(store)
    patches = [plan.slices, plan.grid.n_patches, plan.grid.side, plan.grid.side, plan.n_features]
    facts = {"output": str(output), "model": plan.model, "slices_and_patches": patches, "bytes": plan.n_bytes}
    if not dry_run:
        with progress_bar(f"export {source.name}") as progress:
            fb.write_featureforest(store, output, overwrite=overwrite, progress=progress)
        print_path(output, json=json)
    elif not json:
        print(f"would write {shown(output)}: {plan.n_bytes / 2**20:.1f} MiB before compression")
    if json:
        print_json({"dry_run": dry_run, **facts})


def _chosen(spec: EncoderSpec, features: list[str] | None, forest: Path | None, top: int) -> list[int]:
    """Return the numbers of the features to write.

    Raises
    ------
    ValueError
        If features are named beside a forest, or are not known.
    SpecMismatchError
        If the forest is one over other features.
    """
    if forest is None:
        return chosen_features(spec, [int(f) if f.isdecimal() else f for f in features] if features else None)
    if features:
        raise ValueError("expected either --features or --forest, found both; leave one out")
    loaded = open_forest(forest)
    if loaded.spec is not None:
        require_same_spec(
            spec,
            loaded.spec,
            expected_by="the export",
            found_in=f"forest {shown(forest)}",
            remedy="give a forest that was trained on this store",
        )
    return important_features(loaded, top)


def _facts(opened: Any, spec: EncoderSpec, chosen: list[int], beside: Image | None, output: Path) -> dict[str, Any]:
    image = opened if isinstance(opened, Image) else opened.image
    names = [spec.feature_names[f] for f in chosen]
    n_beside = beside.n_channels if beside else 0
    info = features_info(image, [f"image {c}" for c in range(n_beside)] + names, spec)
    return {
        "output": str(output),
        "axes": info.axes,
        "shape": list(info.shape),
        "bytes": info.nbytes,
        "features": names,
    }


def _plan(facts: dict[str, Any]) -> str:
    shape = " ".join(f"{a}={n}" for a, n in zip(facts["axes"], facts["shape"], strict=True))
    size = facts["bytes"] / 2**20
    return f"would write {shown(facts['output'])}: {shape} float32, {size:.1f} MiB"
