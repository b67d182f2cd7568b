"""An image or a store, and a forest, to class probabilities: in memory, or tile by tile into a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge import engine
from forestbridge.assemble import Classes, Kind, Piece, assemble
from forestbridge.encoders.base import encoder_from_spec
from forestbridge.encoders.features import as_source, check_image, encode_tiles, plan, spatial_shape, work_units
from forestbridge.errors import ForestError, StoreError
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec, require_same_spec
from forestbridge.stores import FeatureStore

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles in all."""


def predict(
    source: Image | NDArray | FeatureStore,
    forest: PixelForest,
    *,
    kind: Kind = "probabilities",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Classify every pixel of an image.

    Parameters
    ----------
    source
        An image, an array (Y, X), (C, Y, X) or (C, Z, Y, X), or a feature store of the forest's encoder.
    forest
        The forest.
    kind
        "probabilities", "labels" (the painted value of the most probable class) or "uncertainty" (1 minus the distance of the two
        largest probabilities).
    out
        File to write tile by tile; the format follows the suffix (.tif .ome.tif .ome.zarr .npy .nrrd .png). Without it the result
        is returned.
    overwrite
        Whether `out` may replace a file.
    progress
        Told after each tile.

    Returns
    -------
    result
        Probabilities (K, Y, X) float32, for stacks and series (T, K, Z, Y, X) without the axes that the image does not have;
        labels and uncertainty without K. With `out` its path.

    Raises
    ------
    ImageError, StoreError, ForestError, OutputExistsError
        If the image, store and forest do not fit together, the store is not done, or the output exists.
    """
    if forest.spec is None:
        raise ForestError(
            "expected a forest with the spec of its features, found one without; use forestbridge.engine.predict on your own features"
        )
    if out is not None:
        check_output(out, overwrite=overwrite)
    source = as_source(source)
    if isinstance(source, Image):
        image = source
        check_image(forest.spec, image)
        pieces = _predict_image(image, forest, forest.spec, progress)
    else:
        image = source.image
        _check_store(source, forest.spec)
        pieces = _predict_store(source, forest, forest.spec, progress)
    classes = Classes(forest.classes, forest.names, forest.colours)
    provenance = {"encoder": str(forest.spec), "image": image.source}
    return assemble(pieces, image, classes, kind=kind, out=out, overwrite=overwrite, provenance=provenance)


def _predict_image(image: Image, forest: PixelForest, spec: EncoderSpec, progress: Progress | None) -> Iterator[Piece]:
    encoder = encoder_from_spec(spec)
    units = work_units(spec, image)
    n_tiles = len(plan(spec, spatial_shape(spec, image)))
    for u, (t, z) in enumerate(units):
        for n, (tile, maps) in enumerate(encode_tiles(image, encoder, t=t, z=z)):
            yield Piece(t, z, tile.core, engine.predict(forest, np.concatenate(maps)))
            if progress:
                progress(u * n_tiles + n + 1, len(units) * n_tiles)


def _check_store(store: FeatureStore, spec: EncoderSpec) -> None:
    """Refuse a store of another encoder, or one without all features."""
    require_same_spec(
        spec,
        store.spec,
        expected_by="the forest",
        found_in=f"store {store.path}",
        remedy="extract the features again with the forest's encoder, or train on this store",
    )
    if not store.done and (missing := store.missing()):
        raise StoreError(
            f"expected the features of the whole image in {store.path}, found {len(missing)} shards missing, the first "
            f"{missing[0]}; run extract again, it computes the rest"
        )


def _predict_store(
    store: FeatureStore, forest: PixelForest, spec: EncoderSpec, progress: Progress | None
) -> Iterator[Piece]:
    units = work_units(spec, store.image)
    tiles = plan(spec, spatial_shape(spec, store.image))
    for u, (t, z) in enumerate(units):
        for n, tile in enumerate(tiles):
            maps = [store.read_map(m.name, t=t, z=z or 0, spatial=tile.core) for m in spec.maps]
            yield Piece(t, z, tile.core, engine.predict(forest, np.concatenate(maps)))
            if progress:
                progress(u * len(tiles) + n + 1, len(units) * len(tiles))
