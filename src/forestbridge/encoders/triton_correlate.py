"""A correlation along one axis on a GPU, as a Triton kernel: lines of float64 in, shorter lines out.

torch has no fast correlation of one channel: its convolutions are made for many, and a sum of shifted arrays reads and writes the result
once for each tap. Here a pixel is read once from memory, and then from the cache.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
"""Pixels of a program: four to a thread."""


@triton.jit(do_not_specialize=["n_taps", "size_in", "size_out", "n"])  # else it compiles anew for multiples of 16
def _correlate(source, taps, n_taps, step, size_in, size_out, n, target, SIZE: tl.constexpr):
    """Write the correlation of one block of pixels.

    Parameters
    ----------
    source, target
        (volumes, lines, step) float64, flat: the result has ``n_taps - 1`` lines fewer in each volume.
    taps
        (n_taps,) float64.
    step
        Pixels from one line to the next.
    size_in, size_out
        Pixels of a volume.
    n
        Pixels of the result.
    """
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    first = at // size_out * size_in + at % size_out
    total = tl.zeros([SIZE], tl.float64)
    for k in range(n_taps):
        total += tl.load(taps + k) * tl.load(source + first + k * step, mask=inside, other=0.0)
    tl.store(target + at, total, mask=inside)


def correlate_lines(pixels: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Correlate along one axis, where the taps lie inside the array.

    Parameters
    ----------
    pixels
        (..., y, x) float64, below 2³¹ pixels.
    taps
        (n,) float64, on the same device.
    axis
        Counted from the end.

    Returns
    -------
    correlated
        float64; n - 1 lines shorter along the axis.
    """
    pixels = pixels.contiguous()
    shape = [*pixels.shape]
    step = pixels.stride(axis)
    size_in = shape[axis] * step
    shape[axis] -= len(taps) - 1
    target = torch.empty(shape, dtype=pixels.dtype, device=pixels.device)
    n = target.numel()
    with torch.cuda.device_of(pixels):  # a kernel starts on the current device
        _correlate[triton.cdiv(n, BLOCK),](
            pixels,
            taps,
            len(taps),
            step,
            size_in,
            shape[axis] * step,
            n,
            target,
            SIZE=BLOCK,
            enable_fp_fusion=True,  # pyright: ignore[reportCallIssue]  # a product and a sum may be rounded once
        )
    return target
