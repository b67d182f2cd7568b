"""Features as an image that other programs read: one channel for each feature, at the image's own size, tile by tile.

ilastik, for one, computes its filters on each channel of an image: with deep features as channels it trains on them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Piece, block_of, region_of
from forestbridge.encoders.base import Encoder
from forestbridge.encoders.features import TileOfImage, as_source, check_image, encode_tile, strips_of, tiles_of
from forestbridge.errors import ImageError, StoreError
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.image import AXES, Image, ImageShape, ResultInfo, create_result
from forestbridge.spec import EncoderSpec
from forestbridge.stores import FeatureStore
from forestbridge.threads import in_order
from forestbridge.tiles import plan_tiles

TILE_BYTES = 2**26
"""Of the features of one tile; each thread holds one."""

GREY = "#ffffff"


def export_features(
    source: FeatureStore | Image | NDArray,
    out: str | Path,
    *,
    encoder: Encoder | None = None,
    features: Sequence[int | str] | None = None,
    beside: Image | None = None,
    format: str | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
) -> Path:
    """Write features as an image.

    Parameters
    ----------
    source
        A feature store, whose maps are interpolated to the image's pixels as for training; or an image with `encoder`.
    out
        File to write; the format follows the suffix (.h5 .ome.zarr .ome.tif .tif .npy .nrrd).
    encoder
        For an image; one whose maps have a value for each pixel.
    features
        Numbers or names of the features to write, in this order; all by default.
    beside
        The image itself, whose channels come first: a program that shows the file then shows the image. ilastik's Gaussian
        smoothing with 0.3 pixels keeps nearly all of a channel (97 % of its centre), so that with this filter alone it trains on
        the features as they are.
    format
        Where the suffix leaves a choice: "ome-zarr-0.4" in place of 0.5, for ilastik.
    overwrite
        Whether `out` may be replaced.
    jobs
        Tiles that are read or computed at the same time; all cores by default.

    Returns
    -------
    path
        Of the image: (T, C, Z, Y, X) float32 without the axes that the source does not have.

    Raises
    ------
    StoreError, ImageError
        If the store is not done, or the images do not fit together.
    OutputExistsError, ResourceError
        If `out` exists or cannot be written.
    ValueError
        If a feature is not known, or an image comes without a fitting encoder.
    """
    out = check_output(out, overwrite=overwrite)
    source = as_source(source)
    spec = source.spec if not isinstance(source, Image) else _spec_for(source, encoder)
    image: ImageShape = source if isinstance(source, Image) else source.image
    chosen = chosen_features(spec, features)
    _check_beside(beside, image)
    names = tuple(_channel_names(beside)) + tuple(spec.feature_names[f] for f in chosen)
    info = features_info(image, names, spec)
    if isinstance(source, Image):
        assert encoder is not None  # `_spec_for` has seen to that
        pieces = _from_image(source, encoder, chosen, beside, jobs)
    else:
        pieces = _from_store(source, chosen, beside, jobs)
    with create_result(out, info, overwrite=overwrite, format=format) as writer:
        for piece in pieces:
            writer.write(region_of(piece, info), block_of(piece, info))
    return out


def features_info(image: ImageShape, names: Sequence[str], spec: EncoderSpec) -> ResultInfo:
    """Return what stands beside the pixels of features of these names."""
    axes = "".join(a for a in AXES if a == "C" or a in image.axes)
    sizes = {**image.sizes, "C": len(names)}
    return ResultInfo(
        axes=axes,
        shape=tuple(sizes[a] for a in axes),
        dtype=np.dtype(np.float32),
        pixel_size=image.pixel_size,
        frame_interval=image.frame_interval,
        classes=tuple(range(len(names))),
        names=tuple(names),
        colours=(GREY,) * len(names),
        provenance={"encoder": str(spec), "image": image.source},
        title="features",
        limits=None,
    )


def chosen_features(spec: EncoderSpec, features: Sequence[int | str] | None) -> list[int]:
    """Return the numbers of features that were chosen by number or name; of all, if none was.

    Raises
    ------
    ValueError
        If one is not known.
    """
    if features is None:
        return list(range(spec.n_features))
    names = {name: n for n, name in enumerate(spec.feature_names)}
    chosen = [names.get(f, -1) if isinstance(f, str) else int(f) for f in features]
    if bad := [f for f, n in zip(features, chosen, strict=True) if not 0 <= n < spec.n_features]:
        raise ValueError(
            f"expected features by number from 0 to {spec.n_features - 1}, or by name ({spec.feature_names[0]!r}, ...), found {bad[:5]}"
        )
    if not chosen:
        raise ValueError("expected at least one feature, found none; leave features= out for all")
    return chosen


def important_features(forest: PixelForest, n: int) -> list[int]:
    """Return the numbers of the features that decide most in a forest, the most important one first.

    A split at depth d counts 2^-d: so large is its share of the pixels where every split halves them.
    """
    weight = np.zeros(forest.n_features)
    nodes, share = forest.roots, 1.0
    while len(nodes := nodes[forest.feature[nodes] >= 0]):
        np.add.at(weight, forest.feature[nodes], share)
        nodes, share = np.concatenate([forest.left[nodes], forest.left[nodes] + 1]), share / 2
    order = np.argsort(-weight, kind="stable")[:n]
    return [int(f) for f in order if weight[f] > 0]


def _spec_for(image: Image, encoder: Encoder | None) -> EncoderSpec:
    if encoder is None:
        raise ValueError("expected an encoder for an image, found none; give encoder=open_encoder('filters')")
    if not all(m.is_plain for m in encoder.spec.maps):
        raise ValueError(
            f"expected an encoder with a value for each pixel, found {encoder.spec}; extract a store first, and export that"
        )
    check_image(encoder.spec, image)
    return encoder.spec


def _check_beside(beside: Image | None, image: ImageShape) -> None:
    if beside is not None:
        found, wanted = ({a: n for a, n in i.sizes.items() if a != "C"} for i in (beside, image))
        if found != wanted:
            raise ImageError(
                f"{beside.source}: expected the image of the features, of the size {wanted}, found {found}; give the image that they "
                "were extracted from"
            )


def _channel_names(image: Image | None) -> list[str]:
    if image is None:
        return []
    return list(image.channel_names) or [f"image {c}" for c in range(image.n_channels)]


def _from_image(
    image: Image, encoder: Encoder, chosen: Sequence[int], beside: Image | None, jobs: int | None
) -> Iterator[Piece]:
    def work(place: TileOfImage) -> Piece:
        maps = encode_tile(image, encoder, place)
        return _piece(place, np.concatenate(maps)[chosen], beside)

    yield from in_order(work, tiles_of(encoder.spec, image), jobs)


def _from_store(store: FeatureStore, chosen: Sequence[int], beside: Image | None, jobs: int | None) -> Iterator[Piece]:
    if not store.done and (missing := store.missing()):
        raise StoreError(
            f"expected the features of the whole image in {store.path}, found {len(missing)} shards missing, the first {missing[0]}; "
            "run extract again, it computes the rest"
        )
    places = strips_of(store, most=TILE_BYTES // (4 * store.spec.n_features)) or _squares_of(store)

    def work(place: TileOfImage) -> Piece:
        core = place.tile.core
        y, x = np.mgrid[core]
        plane = np.full(y.size, place.t), np.full(y.size, place.z or 0)
        points = np.stack([*plane, y.ravel(), x.ravel()], axis=1)
        values = store.at(points)[:, chosen]  # (y*x, F)
        return _piece(place, np.ascontiguousarray(values.T).reshape(len(chosen), *y.shape), beside)

    yield from in_order(work, places, jobs)


def _squares_of(store: FeatureStore) -> list[TileOfImage]:
    """Return tiles of at most 512 × 512 pixels."""
    sizes = store.image.sizes
    rows = max(1, TILE_BYTES // (4 * store.spec.n_features * min(512, sizes["X"])))
    tiles = list(plan_tiles((sizes["Y"], sizes["X"]), (min(rows, 512), 512), (0, 0)))
    return [TileOfImage(t, z, tile) for t in range(sizes["T"]) for z in range(sizes["Z"]) for tile in tiles]


def _piece(place: TileOfImage, values: NDArray[np.float32], beside: Image | None) -> Piece:
    """Return the (F, ...) features of a core, after the channels of the image beside them."""
    if beside is not None:
        pixels = beside.region(place.tile.core, t=place.t, z=place.z)
        values = np.concatenate([pixels, values])
    return Piece(place.t, place.z, place.tile.core, values)
