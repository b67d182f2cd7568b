"""Leave out what a forest does not look at: filters in, fewer filters and the forest over their features out."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from forestbridge.encoders.filters import FilterBank, open_filter_bank
from forestbridge.forest import PixelForest


def drop_unused_filters(bank: FilterBank, forest: PixelForest) -> tuple[FilterBank, PixelForest]:
    """Return the bank of the filters that the forest looks at, at least one, and the forest over its features alone.

    The values of the features stay the same to the last bit; the halo may shrink. Filters that all work plane by plane make a
    bank in 2D.
    """
    pruned, kept = used_filters(bank, forest.used_features.tolist())
    column = np.full(forest.n_features, -1, np.int32)
    column[kept] = np.arange(len(kept), dtype=np.int32)
    feature = np.where(forest.feature >= 0, column[forest.feature], np.int32(-1))
    return pruned, replace(forest, feature=feature, n_features=len(kept), spec=pruned.spec)


def used_filters(bank: FilterBank, features: Iterable[int]) -> tuple[FilterBank, list[int]]:
    """Return the bank of the filters that give one of these features, at least one filter, and the numbers of its features."""
    ndim, channels = len(bank.spec.axes), bank.spec.channels
    used = set(features)
    filters, kept, start = [], [], 0
    for f in bank.filters:
        columns = range(start, start + channels * f.n_outputs(ndim))
        start = columns.stop
        if used.intersection(columns):
            filters.append(f)
            kept.extend(columns)
    if not filters:  # every tree is one leaf; the size of the answer still comes from an image
        filters, kept = [bank.filters[0]], list(range(channels * bank.filters[0].n_outputs(ndim)))
    selection: dict[str, list[float]] = {}
    for f in filters:
        selection.setdefault(f.feature, []).append(f.scale)
    in_2d = {f.scale: f.in_2d for f in filters}
    return open_filter_bank(selection=selection, channels=channels, compute_in_2d=in_2d), kept
