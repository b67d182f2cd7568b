"""The forest as a torch module of plain operations: features (b, F, ...) in, class probabilities (b, K, ...) out.

Every tree is made perfect: 2^d nodes at depth d. The tables of a depth hold the nodes of all trees side by side, tree by tree, so
that node j of a depth has the children 2j and 2j + 1 of the next one, without a look at the tree:

    depth 0     tree 0                  tree 1                  ...
    depth 1     right     left          right     left
    depth 2     r r  r l  l r  l l      r r  r l  l r  l l          (a pixel goes left iff its feature ≤ threshold: index + 1)

Pixels go in strips, all trees at once, in a loop over the depth only. The class fractions of the leaves are summed as integers, which no
order of summation changes: a pixel has the same probabilities wherever it lies in a strip, and ties between classes stay ties.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forestbridge.forest import PixelForest

STRIP = 2**19
"""Pixels × trees at a time: 2 MiB per index tensor, which stays in the cache and still keeps all threads busy."""


VOTES = 2**30
"""Votes of all trees together at most: an int32 holds them."""


class PerfectTrees(NamedTuple):
    """The tables, all depths one after the other.

    Attributes
    ----------
    feature, threshold
        (T·(2^depth - 1),) int32 and float32.
    votes
        (K, T·2^depth) int32: class fractions in units of 1/`one`, a power of two.
    one
        Votes of a tree.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    votes: NDArray[np.int32]
    one: int


def perfect_trees(forest: PixelForest, depth: int) -> PerfectTrees:
    """Return the tables of a forest that is not deeper than `depth`; a leaf above is repeated below."""
    features, thresholds = [], []
    nodes = forest.roots
    for _ in range(depth):
        leaf = forest.feature[nodes] < 0
        features.append(np.where(leaf, 0, forest.feature[nodes]))
        thresholds.append(forest.threshold[nodes])
        right = np.where(leaf, nodes, forest.left[nodes] + 1)
        left = np.where(leaf, nodes, forest.left[nodes])
        nodes = np.stack([right, left], axis=1).ravel()
    empty = [np.empty(0)]
    one = 2 ** ((VOTES // forest.n_trees).bit_length() - 1)
    votes = np.rint(forest.leaves.astype(np.float64) * one).astype(np.int32)
    return PerfectTrees(
        np.concatenate(features or empty).astype(np.int32),
        np.concatenate(thresholds or empty).astype(np.float32),
        np.ascontiguousarray(votes[forest.left[nodes]].T),
        one,
    )


class ForestModule(nn.Module):
    """A forest; all its tables are buffers, so that they follow the module to another device."""

    n_features: int
    n_trees: int
    depth: int
    strip: int
    total: float
    feature: Tensor
    threshold: Tensor
    votes: Tensor

    def __init__(self, forest: PixelForest) -> None:
        super().__init__()
        self.n_features = forest.n_features
        self.n_trees = forest.n_trees
        self.depth = forest.depth()
        self.strip = max(1, STRIP // forest.n_trees)
        tables = perfect_trees(forest, self.depth)
        self.register_buffer("feature", torch.from_numpy(tables.feature))
        self.register_buffer("threshold", torch.from_numpy(tables.threshold))
        self.register_buffer("votes", torch.from_numpy(tables.votes))
        self.total = float(tables.one * forest.n_trees)

    def forward(self, features: Tensor) -> Tensor:
        """Return the probabilities (b, K, ...) of the features (b, F, ...)."""
        if features.size(1) != self.n_features:
            raise ValueError("expected {} features, found {}".format(self.n_features, features.size(1)))  # noqa: UP032
        planes = features.transpose(0, 1)  # (F, b, ...)
        pixels = planes.reshape(self.n_features, -1)  # (F, N)
        n_pixels = pixels.size(1)
        n_classes = self.votes.size(0)
        probabilities = torch.empty([n_classes, n_pixels], dtype=features.dtype, device=features.device)
        for start in range(0, n_pixels, self.strip):
            n = min(self.strip, n_pixels - start)
            leaf = self.find_leaves(pixels.narrow(1, start, n))  # (T·n,)
            for k in range(n_classes):
                votes = self.votes[k].index_select(0, leaf).reshape(self.n_trees, n)
                probabilities[k, start : start + n] = votes.sum(0, dtype=torch.int32).to(torch.float32) / self.total
        return probabilities.reshape([n_classes] + list(planes.shape[1:])).transpose(0, 1).contiguous()  # noqa: RUF005

    def find_leaves(self, pixels: Tensor) -> Tensor:
        """Return the column of `votes`, (T·n,) int32, that each tree has for each of the pixels (F, n)."""
        n = pixels.size(1)
        values = pixels.reshape(-1)  # (F·n,)
        pixel = torch.arange(n, dtype=torch.int32, device=pixels.device)
        node = torch.arange(self.n_trees, dtype=torch.int32, device=pixels.device).unsqueeze(1).expand(self.n_trees, n)
        start = 0
        width = self.n_trees
        for _ in range(self.depth):
            index = node.reshape(-1)  # (T·n,)
            rows = (self.feature.narrow(0, start, width) * n).index_select(0, index).reshape(self.n_trees, n)
            value = values.index_select(0, (rows + pixel).reshape(-1))
            threshold = self.threshold.narrow(0, start, width).index_select(0, index)
            node = torch.add((value <= threshold).reshape(self.n_trees, n), node, alpha=2)
            start += width
            width *= 2
        return node.reshape(-1)
