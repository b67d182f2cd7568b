"""``forestbridge extract``: from images to feature stores."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.batch import Failure, check_present, end, for_each
from forestbridge.cli.errors import typed_command
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.options import (
    Axes,
    Channels,
    DryRun,
    Json,
    Like,
    Nan,
    NetworkDevice,
    Overwrite,
    PixelLookup,
    Scene,
    Weights,
)
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.parsing import parse_tile
from forestbridge.cli.places import Places, made_folder, places_for
from forestbridge.cli.sources import EncoderChoice, Reading, encoder_for, open_image
from forestbridge.encoders import Encoder
from forestbridge.encoders.features import check_image
from forestbridge.encoders.networks import PREPROCESSING
from forestbridge.image import Image, check_same_kind
from forestbridge.image.source import shown
from forestbridge.stores import ImageFacts
from forestbridge.stores.grid import plan_grid

SUFFIX = ".features.ome.zarr"


def extract(
    images: Annotated[list[Path], typer.Argument(help="One image, or several of one kind.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="NAME.features.ome.zarr; for several images a folder.")
    ],
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", "-e", help="See: forestbridge encoders. By default filters; several with + between."),
    ] = None,
    like: Like = None,
    in_3d: Annotated[bool, typer.Option("--3d", help="Filters along z too, for stacks.")] = False,
    scales: Annotated[
        list[float] | None,
        typer.Option("--scales", metavar="N N ...", help="All filters at these scales in pixels: --scales 1 3.5."),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="N or NAME=N,...",
            help="Deep encoders: side of a tile with its margin in pixels, 512 or 1024; for several dinov2=448,sam2_base=464.",
        ),
    ] = None,
    range: Annotated[
        tuple[float, float] | None,
        typer.Option("--range", metavar="LOW HIGH", help="Deep encoders: intensities that become black and white."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Deep encoders: {' or '.join(PREPROCESSING)}; the first by default."),
    ] = None,
    interpolation: PixelLookup = None,
    weights: Weights = None,
    device: NetworkDevice = None,
    channels: Channels = None,
    axes: Axes = None,
    nan: Nan = None,
    scene: Scene = None,
    compress: Annotated[bool, typer.Option("--compress", help="Compress with zstd: somewhat smaller, slower.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Check what is there, and compute damaged parts again.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Tiles computed at the same time.")] = 1,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Compute the features of images into OME-Zarr stores; called again it goes on where it stopped.

    Give the images first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge extract a.tif -o a.features.ome.zarr[/bold]
    """
    sides = None if tile is None else parse_tile(tile)
    choice = EncoderChoice(encoder, like, in_3d, scales, sides, range, preprocessing, weights, device, interpolation)
    choice.check()
    check_present(images)
    places = places_for(images, output, SUFFIX)
    opened, failures = _open_all(images, places, Reading(axes, channels, nan, scene))
    bank = encoder_for([image for _, (image, _) in opened], choice)
    if dry_run:
        stores, failed = for_each(opened, partial(_plan, bank=bank, json=json))
    else:
        settings = {"compress": compress, "repair": repair, "jobs": jobs, "overwrite": overwrite}
        with made_folder(places.folder):
            stores, failed = for_each(opened, partial(_extract, bank=bank, settings=settings, json=json))
    failures += failed
    if json:
        print_json(_document(stores, bank, failures, dry_run=dry_run))
    end(len(images), failures)


Opened = list[tuple[Path, tuple[Image, Path]]]
"""Path of each image, the image, and the path of its store."""


def _open_all(images: Sequence[Path], places: Places, reading: Reading) -> tuple[Opened, list[Failure]]:
    """Open the images, which reads their headers only, and refuse those that one encoder cannot treat alike."""

    def work(path: Path, store: Path) -> tuple[Path, tuple[Image, Path]]:
        return path, (open_image(path, reading), store)

    opened, failures = for_each(list(zip(images, places.paths, strict=True)), work)
    if not opened:
        end(len(images), failures)
    check_same_kind([image for _, (image, _) in opened])
    return opened, failures


def _plan(_: Path, item: tuple[Image, Path], *, bank: Encoder, json: bool) -> Path:
    """Say what would be written for an image."""
    image, store = item
    check_image(bank.spec, image)
    grid = plan_grid(bank.spec, ImageFacts.of(image))
    size = sum(grid.shard_bytes(shard) for shard in grid.shards())
    if not json:
        print(
            f"would write {shown(store)}: {bank.spec.n_features} features of {bank.spec} for {image}, "
            f"{grid.n_shards} shards, {size / 2**20:.1f} MiB"
        )
    return store


def _extract(_: Path, item: tuple[Image, Path], *, bank: Encoder, settings: Mapping[str, Any], json: bool) -> Path:
    """Compute the store of an image."""
    image, store = item
    with progress_bar(f"extract {store.name}") as progress:
        fb.extract(image, bank, store, progress=progress, resume=typed_command(without="--overwrite"), **settings)
    print_path(store, json=json)
    return store


def _document(stores: Sequence[Path], bank: Encoder, failures: Sequence[Failure], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "encoder": bank.spec.name,
        "fingerprint": bank.spec.fingerprint(),
        "features": bank.spec.n_features,
        "stores": [str(store) for store in stores],
        "failed": [failure.to_json_dict() for failure in failures],
    }
