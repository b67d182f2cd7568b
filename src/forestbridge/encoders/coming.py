"""What deep encoders need of a GPU: maps on their way into memory while it computes the next, exact convolutions, the size of a batch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

import torch
from numpy.typing import NDArray
from torch import Tensor

_log = logging.getLogger(__name__)

MOST_TILES = 8
"""Of a batch, where its size follows from the memory of the GPU; more are hardly faster."""

MOST_BYTES = 2**29
"""Of the maps of a batch, where its size follows from the memory of the GPU: several batches wait to be written."""

FREE_SHARE = 0.7
"""Of the free memory of a GPU that a batch may take."""


class _ExactConvolutions:
    """See `exact_convolutions`: counts who is inside, since torch's setting is one for all threads."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, True

    @contextmanager
    def __call__(self) -> Iterator[None]:
        settings = torch.backends.cudnn
        with self._lock:
            if self._inside == 0:
                self._before, settings.allow_tf32 = settings.allow_tf32, False
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    settings.allow_tf32 = self._before


exact_convolutions = _ExactConvolutions()
"""Context in which GPUs convolve float32 in float32: torch's default, TF32, has 10 bits of 23, and another answer than the CPU."""


class Coming:
    """The maps of tiles on their way from a device into memory.

    Parameters
    ----------
    cores
        Of each tile, (F, y, x) of each map.
    dtype
        In which they are wanted, float32 or float16. Tiles with a value beyond float16 come in float32.
    """

    def __init__(self, cores: list[list[Tensor]], dtype: torch.dtype) -> None:
        self._exact = cores
        self.tensors = [[c.to(dtype) for c in cells] for cells in cores]
        fits = torch.stack([torch.stack([c.isfinite().all() for c in cells]).all() for cells in self.tensors])
        device = fits.device
        if device.type != "cuda":
            self._done = None
            self._fits, self._here = fits, [[c.cpu() for c in cells] for cells in self.tensors]
            return
        stream = _copy_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._fits, self._here = (
                _fetched(fits, stream),
                [[_fetched(c, stream) for c in cells] for cells in self.tensors],
            )
        self._done = stream.record_event()

    def arrays(self) -> list[tuple[NDArray, ...]]:
        """Wait for them; return one (F, y, x) array per map of each tile."""
        if self._done is not None:
            self._done.synchronize()
        return [
            tuple(
                (c if fits else exact.float().cpu()).contiguous().numpy() for c, exact in zip(here, cells, strict=True)
            )
            for here, cells, fits in zip(self._here, self._exact, self._fits.tolist(), strict=True)
        ]


@lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which a GPU sends maps while it computes the next."""
    return torch.cuda.Stream(device)


def _fetched(values: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Return a copy on its way from the GPU into memory."""
    values.record_stream(stream)  # its memory is not used anew before that
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def fitting_batch(device: torch.device, n_bytes: int) -> int:
    """Return how many tiles fit into the free memory, after one was computed since the peak was reset.

    Parameters
    ----------
    n_bytes
        Of the maps of a tile.
    """
    taken = max(torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device), 1)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    batch = min(max(int(FREE_SHARE * free / taken), 1), MOST_TILES, max(MOST_BYTES // n_bytes, 1))
    _log.info("%d tiles at once on %s: each takes %.1f GB", batch, device, taken / 1e9)
    return batch
