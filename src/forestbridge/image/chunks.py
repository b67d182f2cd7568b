"""Blocks of a result gathered into the chunks of a file, so that each chunk is packed once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ChunkedTarget:
    """An array in chunks, in the axes of a file.

    Attributes
    ----------
    shape, chunks, dtype
        Of the array in the file.
    order
        For each axis of the file, which axis of the result it is; None for one of length 1 that the result does not have.
    store
        Puts a chunk into the file: its place, one slice per axis, and its pixels.
    waiting
        Place of each chunk that is not complete, to its pixels and how many of them are there: a few chunks, where blocks come
        chunk by chunk.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    order: tuple[int | None, ...]
    store: Callable[[tuple[slice, ...], NDArray], None]
    waiting: dict[tuple[int, ...], tuple[NDArray, list[int]]] = field(default_factory=dict)

    def write(self, region: tuple[slice, ...], block: NDArray) -> None:
        """Take a block in the axes of the result; every pixel comes once."""
        there = [i for i in self.order if i is not None]
        block = block.transpose(there)
        for axis, i in enumerate(self.order):
            if i is None:
                block = np.expand_dims(block, axis)
        self._gather(tuple(slice(0, 1) if i is None else region[i] for i in self.order), block)

    def _gather(self, region: tuple[slice, ...], block: NDArray) -> None:
        """Take a block in the axes of the file."""
        touched = [range(s.start // n, (s.stop - 1) // n + 1) for s, n in zip(region, self.chunks, strict=True)]
        for place in product(*touched):
            low = [p * n for p, n in zip(place, self.chunks, strict=True)]
            shape = tuple(min(n, end - a) for n, end, a in zip(self.chunks, self.shape, low, strict=True))
            parts = [slice(max(s.start, a), min(s.stop, a + n)) for s, a, n in zip(region, low, shape, strict=True)]
            if place not in self.waiting:
                self.waiting[place] = np.empty(shape, self.dtype), [0]
            chunk, count = self.waiting[place]
            part = block[tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(parts, region, strict=True))]
            chunk[tuple(slice(p.start - a, p.stop - a) for p, a in zip(parts, low, strict=True))] = part
            count[0] += part.size
            if count[0] == chunk.size:
                self.store(tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True)), chunk)
                del self.waiting[place]

    def finish(self) -> None:
        """Do nothing: every chunk is in its file."""
