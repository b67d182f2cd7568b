"""The same with scipy in tiles of 256 pixels and their halo, which stay in the cache."""

import filters_scipy
import numpy as np
from filters_scipy import prepare as prepare
from filters_scipy import versions as versions

import forestbridge as fb
from forestbridge.tiles import plan_tiles

TILE = (256, 256)


def run(image):
    """Return the features, (49, Y, X) float32."""
    bank = fb.open_encoder("filters")
    features = np.empty((bank.spec.n_features, *image.shape[1:]), np.float32)
    for tile in plan_tiles(image.shape[1:], TILE, bank.spec.halo):
        inside, core = tile.inside(image.shape[1:])
        pixels = image[(slice(None), *inside)]
        features[(slice(None), *tile.core)] = filters_scipy.scipy_filters.encode(bank, pixels, core)
    return features
