"""``ff-package convert`` for a model of FeatureForest: from NAME.bin to a forest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import forestbridge as fb
from forestbridge.cli.sources import spec_of
from forestbridge.files import check_output
from forestbridge.forest import PixelForest
from forestbridge.image.source import shown
from forestbridge.stores import FEATUREFOREST


def forest_of_model(
    model: Path,
    output: Path,
    *,
    trust: str | None,
    like: Path | None,
    names: Sequence[str] | None,
    encoder: str | None,
    weights: Path | None,
    rgb: bool,
    unfit: Mapping[str, Any],
    overwrite: bool,
) -> PixelForest:
    """Read a model of FeatureForest.

    Parameters
    ----------
    output
        Where the forest will be saved.
    like
        The store that it was trained on.
    encoder, weights, rgb
        Of a forest for images: the model's encoder, its weights, and whether the images are in colour.
    unfit
        Options for ilastik projects, and their values.

    Raises
    ------
    ValueError
        If the output is no forest, or options for ilastik projects are given.
    """
    if given := [option for option, value in unfit.items() if value]:
        raise ValueError(
            f"expected {', '.join(given)} with an ilastik project only, found the model {shown(model)}; leave it out"
        )
    if output.suffix != ".forest":
        raise ValueError(
            f"expected -o NAME.forest for a model of FeatureForest, found {shown(output)}: no package can compute "
            f"FeatureForest's features; give -o {shown(output.with_suffix('.forest'))}"
        )
    check_output(output, overwrite=overwrite)
    spec = None if like is None else spec_of(like)
    if spec is not None and spec.name != FEATUREFOREST:
        raise ValueError(f"expected a store of FeatureForest (NAME.hdf5) for --like, found one of {spec}; give another")
    channels = 3 if rgb else 1
    return fb.import_featureforest(
        model, trust=trust, spec=spec, names=names, encoder=encoder, weights=weights, channels=channels
    )
