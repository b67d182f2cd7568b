"""A forest as a torch module: features, or maps at their own stride, on a device in; probabilities or labels on the device out.

It answers as `forestbridge.engine.predict` does, bit for bit, on every device: a pixel goes left iff its float32 feature ≤ threshold,
votes are integers whose sum depends on no order, and the division at the end is in float64. Trees may be of any depth; those of
`forestbridge.graphs.torch_forest`, which are exported, may not.

Pixels go in strips, so that the matrix of pixels × features exists for one strip only. A strip's votes are counted by a Triton kernel
where Triton runs (`triton_forest`), otherwise here, by gathers: all trees of the strip at once, level by level.

    tables    node      0  1  2  3  4 ...        a leaf's threshold is NaN, and it is its own child:
              threshold .3 —  .7 —  —            value > NaN is false, so that a pixel that has arrived stays
              child     1  1  3  3  4
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forestbridge.devices import require_float64, triton_runs_on
from forestbridge.engine.blocks import MapPart, Region, open_maps, pack
from forestbridge.engine.torch_loading import load_strip, require_finite
from forestbridge.errors import SpecMismatchError
from forestbridge.forest import PixelForest

VALUES = 2**26
"""Pixels × used features of a strip at most: 256 MiB. With 256 features that is 262,144 pixels, enough to keep a large GPU busy."""

VOTES_AS_VALUES = 8
"""The votes of a class, with what they are divided by and into, take as much memory as this many features: 28 bytes a pixel."""

PAIRS = 2**22
"""Pixels × trees that go down together in the gathers: 16 MiB for each of about six intermediate results. With fewer, starting the
kernels would take longer than running them."""


class TorchForest(nn.Module):
    """A forest; its tables are buffers, so that they follow the module to another device.

    Attributes
    ----------
    threshold
        (N,) float32: a pixel goes right iff its value > threshold; NaN for a leaf.
    feature
        (N,) int32: which of the used features a split looks at; 0 for a leaf.
    child
        (N,) int32: a split's left child, which the right one follows; a leaf itself.
    row
        (N,) int32: a leaf's row in the votes; 0 for a split.
    votes
        (L, K) int32, the bits of uint32: class fractions in units of 1/`one`, as `forestbridge.engine.walk.Trees` has them.
    roots
        (T,) int32, of the deepest tree first.
    trees_below
        For each level, how many trees go deeper.
    classes
        (K,) int64: the label values as painted.
    """

    threshold: Tensor
    feature: Tensor
    child: Tensor
    row: Tensor
    votes: Tensor
    roots: Tensor
    classes: Tensor

    def __init__(self, forest: PixelForest) -> None:
        super().__init__()
        self.forest = forest
        self.used = forest.used_features
        nodes, roots, votes, one = pack(forest)
        leaf = np.isnan(nodes["threshold"])
        depths = _depths(forest)
        self.total = float(one) * forest.n_trees
        self.trees_below = [int(np.count_nonzero(depths > level)) for level in range(depths.max())]
        own = np.arange(len(nodes))
        self.register_buffer("threshold", torch.from_numpy(nodes["threshold"].copy()))
        self.register_buffer("feature", _int32(np.where(leaf, 0, nodes["feature"])))
        self.register_buffer("child", _int32(np.where(leaf, own, nodes["child"])))
        self.register_buffer("row", _int32(np.where(leaf, nodes["child"], 0)))
        self.register_buffer("votes", torch.from_numpy(_whole_votes(nodes[leaf], votes, int(one)).view(np.int32)))
        self.register_buffer("roots", _int32(roots[np.argsort(-depths, kind="stable")]))
        self.register_buffer("classes", torch.tensor(forest.classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return the class probabilities of every pixel.

        Parameters
        ----------
        features
            (F, ...) float32 or float16, finite, on the module's device: at every pixel, in the order of the forest's spec.

        Returns
        -------
        probabilities
            (K, ...) float32.

        Raises
        ------
        SpecMismatchError
            If the number of features is not the forest's.
        ValueError
            If a feature is NaN or infinite, with count and first place.
        ResourceError
            If the device has no float64.
        """
        if len(features) != self.forest.n_features:
            raise SpecMismatchError(
                f"expected the {self.forest.n_features} features of {self.forest.spec or 'the forest'}, found a tensor of shape "
                f"{tuple(features.shape)}; the first axis counts the features: extract them with the forest's encoder"
            )
        require_finite([MapPart(features, (1, 1), (0, 0), (0, 0))])
        rows = features.reshape(len(features), 1, -1)  # (F, 1, N): pixels in one row
        plane = MapPart(rows, (1, 1), (0, 0), (1, rows.shape[2]))
        result = self.predict_region([plane], (slice(0, 1), slice(0, rows.shape[2])))
        return result.reshape(-1, *features.shape[1:])

    def predict_maps(self, maps: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """Return the class probabilities (K, Y, X) float32 of an image of `shape`.

        Parameters
        ----------
        maps
            (F, rows, columns) float32 or float16 each, finite, on the module's device: those of the forest's spec at their own
            stride, in its order; `forestbridge.engine.predict` says where they lie for a forest without spec.

        Raises
        ------
        SpecMismatchError, ValueError, ResourceError
            As `forward`.
        """
        parts = open_maps(self.forest, maps, shape)
        if sum(len(cells) for cells in maps) != self.forest.n_features:
            raise SpecMismatchError(
                f"expected the {self.forest.n_features} features of {self.forest.spec or 'the forest'}, found maps of shape "
                f"{[tuple(cells.shape) for cells in maps]}; the first axis counts the features: extract them with the forest's encoder"
            )
        require_finite(parts)
        return self.predict_region(parts, (slice(0, shape[0]), slice(0, shape[1])))

    @torch.no_grad()
    def predict_region(self, parts: Sequence[MapPart[Tensor]], region: Region) -> Tensor:
        """Return the class probabilities (K, rows, columns) float32 of some pixels.

        Parameters
        ----------
        parts
            One per map of the forest's spec, finite, with (F, rows, columns) cells on the module's device; they hold the cells
            around the pixels.
        region
            The rows and columns of pixels.
        """
        device = self.votes.device
        require_float64(device)
        n_rows, n_columns = (pixels.stop - pixels.start for pixels in region)
        at_once = max(1, VALUES // max(len(self.used), VOTES_AS_VALUES * self.forest.n_classes))
        width = min(n_columns, at_once)
        height = min(n_rows, max(1, at_once // width))
        result = torch.empty((self.forest.n_classes, n_rows, n_columns), dtype=torch.float32, device=device)
        for y in range(0, n_rows, height):
            for x in range(0, n_columns, width):
                target = result[:, y : y + height, x : x + width]
                rows, columns = (
                    slice(pixels.start + first, pixels.start + first + n)
                    for pixels, first, n in zip(region, (y, x), target.shape[1:], strict=True)
                )
                values = load_strip(parts, self.used, (rows, columns))
                votes = self._count_votes(values).long() & 0xFFFFFFFF  # (K, n)
                target.copy_((votes.double() / self.total).reshape(target.shape))
        return result

    def labels(self, probabilities: Tensor) -> Tensor:
        """Return the label values (...) int64, as painted, of the most probable class, of equal ones the first.

        Parameters
        ----------
        probabilities
            (K, ...).
        """
        return self.classes[probabilities.argmax(dim=0)]

    def _count_votes(self, values: Tensor) -> Tensor:
        """Return (K, n) integers, whose lowest 32 bits are the votes, for the used features (U, n) float32 of some pixels."""
        if triton_runs_on(values.device):
            from forestbridge.engine.triton_forest import count_votes

            return count_votes(self, values)
        return self.gather_votes(values)

    def gather_votes(self, values: Tensor) -> Tensor:
        """Return the votes as (K, n) int64, as `_count_votes`.

        All pairs of a pixel and a tree go down as many levels as the tree has, also those that have arrived. Which ones have is known
        on the device only: to ask would stop host and device at every level, and to leave them out would cost as much as a level.
        """
        n_classes, n = self.votes.shape[1], values.shape[1]
        sums = torch.empty((n_classes, n), dtype=torch.int64, device=values.device)
        flat = values.reshape(-1)  # (U·n,)
        lanes = self.feature * n  # where each node's feature begins in it; below `VALUES`
        step = max(1, PAIRS // len(self.roots))
        for start in range(0, n, step):
            m = min(step, n - start)
            pixel = torch.arange(start, start + m, dtype=torch.int32, device=values.device)
            nodes = self.roots[:, None].repeat(1, m)  # (T, m)
            for n_trees in self.trees_below:
                node = nodes[:n_trees].reshape(-1)  # a view of the deeper trees
                place = (lanes.index_select(0, node).reshape(n_trees, m) + pixel).reshape(-1)
                right = flat.index_select(0, place) > self.threshold.index_select(0, node)
                node.copy_(self.child.index_select(0, node) + right)
            rows = self.row.index_select(0, nodes.reshape(-1))  # (T·m,)
            for k in range(n_classes):
                sums[k, start : start + m] = self.votes[:, k].index_select(0, rows).reshape(nodes.shape).sum(dim=0)
        return sums


def _int32(values: NDArray) -> Tensor:
    return torch.from_numpy(values.astype(np.int32))


def _depths(forest: PixelForest) -> NDArray[np.intp]:
    """Return the largest number of splits on a way from the root of each tree to a leaf."""
    depths = np.zeros(forest.n_trees, np.intp)
    nodes, trees = forest.roots, np.arange(forest.n_trees)
    while (split := forest.feature[nodes] >= 0).any():
        nodes, trees = nodes[split], trees[split]
        depths[trees] += 1  # once per tree, however often it is named
        nodes, trees = np.concatenate([forest.left[nodes], forest.left[nodes] + 1]), np.tile(trees, 2)
    return depths


def _whole_votes(leaves: NDArray, votes: NDArray[np.uint32], one: int) -> NDArray[np.uint32]:
    """Return the (L, K) votes in which a pure leaf's are all for its class, as the walk counts them.

    A leaf is pure if its largest fraction is 1; rounding may have left something to the others.

    Parameters
    ----------
    leaves
        The leaves' `forestbridge.engine.walk.NODE`.
    """
    from forestbridge.engine.walk import MIXED

    pure = leaves[leaves["pure"] != MIXED]
    result = votes.copy()
    result[pure["child"]] = 0
    result[pure["child"], pure["pure"]] = one
    return result
