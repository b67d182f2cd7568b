"""The votes of a forest on a GPU, as a Triton kernel: a `TorchForest` and the features of a strip in, integers out.

A program is one warp. It takes a block of neighbouring pixels through one tree after the other, all of them one level at a time, until the
last one has arrived. Neighbours mostly stand at the same node: they read the same table entries, and of their feature, which is stored
pixel by pixel, one piece of memory. No float is computed, only compared; votes are integers. So the answer is that of the gathers in
`torch_forest`, to the bit.
"""

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from forestbridge.engine.torch_forest import TorchForest

BLOCK = 128
"""Pixels of a program: four to a thread, whose loads do not wait for each other."""

CLASSES = 16
"""Classes that a program counts at most, in registers; for more, others go through the trees again."""


@triton.jit(do_not_specialize=["n_pixels", "n_trees", "n_classes"])  # else it compiles anew for multiples of 16
def _walk(
    values,
    n_pixels,
    threshold,
    feature,
    child,
    row,
    roots,
    n_trees,
    votes,
    n_classes,
    sums,
    COUNTED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Count the votes of a block of pixels for some classes.

    Parameters
    ----------
    values
        (U, n_pixels) float32.
    threshold, feature, child, row, roots, votes
        The tables of `TorchForest`.
    sums
        (K, n_pixels) int32, written.
    COUNTED, SIZE
        Classes and pixels of a program; powers of two.
    """
    pixel = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = pixel < n_pixels
    classes = tl.program_id(1) * COUNTED + tl.arange(0, COUNTED)
    counted = inside[:, None] & (classes < n_classes)[None, :]
    totals = tl.zeros([SIZE, COUNTED], tl.int32)
    for tree in range(n_trees):
        node = tl.zeros([SIZE], tl.int32) + tl.load(roots + tree)
        limit = tl.load(threshold + node)
        on_its_way = inside & (limit == limit)  # the threshold of a leaf is NaN
        while tl.max(on_its_way.to(tl.int32), axis=0) > 0:  # pyright: ignore[reportOperatorIssue]
            place = tl.load(feature + node, mask=on_its_way, other=0) * n_pixels + pixel  # below `torch_forest.VALUES`
            value = tl.load(values + place, mask=on_its_way, other=0.0)
            right = (value > limit).to(tl.int32)
            node = tl.where(on_its_way, tl.load(child + node, mask=on_its_way, other=0) + right, node)
            limit = tl.load(threshold + node)
            on_its_way = inside & (limit == limit)
        leaf = tl.load(row + node)
        # (SIZE, COUNTED); the bits of uint32, whose sums stay below 2³². A forest file has at most 2³⁰ votes: int32 counts them.
        totals += tl.load(votes + leaf[:, None] * n_classes + classes[None, :], mask=counted, other=0)
    tl.store(sums + classes[None, :] * n_pixels + pixel[:, None], totals, mask=counted)


def count_votes(forest: "TorchForest", values: Tensor) -> Tensor:
    """Return the votes of some pixels.

    Parameters
    ----------
    forest
        On the device of the values.
    values
        (U, n) float32, contiguous: the used features.

    Returns
    -------
    votes
        (K, n) int32, the bits of uint32.
    """
    n_classes, n = forest.votes.shape[1], values.shape[1]
    sums = torch.empty((n_classes, n), dtype=torch.int32, device=values.device)
    counted = min(CLASSES, triton.next_power_of_2(n_classes))
    grid = (triton.cdiv(n, BLOCK), triton.cdiv(n_classes, counted))
    with torch.cuda.device_of(values):  # a kernel starts on the current device
        _walk[grid](
            values,
            n,
            forest.threshold,
            forest.feature,
            forest.child,
            forest.row,
            forest.roots,
            len(forest.roots),
            forest.votes,
            n_classes,
            sums,
            COUNTED=counted,
            SIZE=BLOCK,
            num_warps=1,  # pyright: ignore[reportCallIssue]
            enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]  # nothing to fuse; Triton warns if it is left open
        )
    return sums
