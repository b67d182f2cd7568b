"""Prediction on a device: pixels, or maps at their own stride, in memory in; probabilities in memory out.

Threads read ahead and put results together while one tile is at work on the device. Of a tile only pixels or maps go up, and only
probabilities come back: its features never leave the device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forestbridge.encoders import torch_filters
from forestbridge.encoders.filters import FilterBank
from forestbridge.engine import MapPart
from forestbridge.engine.torch_forest import TorchForest
from forestbridge.engine.torch_loading import require_finite
from forestbridge.errors import ResourceError
from forestbridge.forest import PixelForest

CORE = {"yx": (1024, 1024), "zyx": (32, 256, 256)}
"""Core of a tile of the filter bank: a GPU needs a million pixels to be busy. All 49 features of one input channel take 0.2 GB and what
is computed in between 0.5 GB; 61 in 3D take 0.5 GB and 1 GB."""

READERS = 4
"""Tiles that are read ahead and put together at the same time, if nothing is said: enough to feed a GPU, and each holds a tile."""

DTYPES = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}


class DeviceForest:
    """A forest on a device; threads may share it."""

    def __init__(self, forest: PixelForest, device: torch.device) -> None:
        self._device = device
        self._forest = TorchForest(forest).to(device)
        self._lock = Lock()

    def predict_filters(
        self, bank: FilterBank, pixels: NDArray[np.float32], core: tuple[slice, ...]
    ) -> NDArray[np.float32]:
        """Return the probabilities of a tile's core.

        Parameters
        ----------
        bank
            The encoder of the forest.
        pixels
            (C, y, x) or (C, z, y, x) float32 raw intensities of the tile.
        core
            Where the core lies in it.

        Returns
        -------
        probabilities
            (K, y, x) or (K, z, y, x) float32.

        Raises
        ------
        ValueError
            If a feature is NaN or infinite.
        ResourceError
            If the device has too little memory, or no float64.
        """
        tile = self._staged(pixels)
        with self._alone():
            features = torch_filters.encode(bank, tile.to(self._device, non_blocking=True), core)
            probabilities = self._forest(features)
            del features  # the next tile needs the memory
        return self._fetched(probabilities)

    def predict_maps(self, parts: Sequence[MapPart[NDArray]], core: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return the probabilities of a core from the maps around it.

        Parameters
        ----------
        parts
            One per map of the forest's spec: (F, rows, columns) or (F, z, rows, columns) cells.
        core
            (y, x) or (z, y, x), in the image.

        Returns
        -------
        probabilities
            (K, y, x) or (K, z, y, x) float32.

        Raises
        ------
        ValueError, ResourceError
            As `predict_filters`.
        """
        staged = [MapPart(self._staged(part.cells), *part[1:]) for part in parts]
        with self._alone():
            maps = [part._replace(cells=part.cells.to(self._device, non_blocking=True)) for part in staged]
            require_finite(maps)
            *planes, y, x = core
            if not planes:
                probabilities = self._forest.predict_region(maps, (y, x))
            else:
                stack = (
                    [part._replace(cells=part.cells[:, z]) for part in maps]
                    for z in range(planes[0].stop - planes[0].start)
                )
                probabilities = torch.stack([self._forest.predict_region(plane, (y, x)) for plane in stack], dim=1)
        return self._fetched(probabilities)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one thread at a time use the device's memory; errors about it become ours."""
        try:
            with self._lock:
                yield
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"expected enough memory on {self._device} for a tile, found: {error}; end other programs that use it, or use "
                "device='cpu'"
            ) from error

    def _staged(self, array: NDArray) -> Tensor:
        """Return a copy in memory from which the device can read while the program goes on."""
        on_gpu = self._device.type == "cuda"
        host = torch.empty(array.shape, dtype=DTYPES[array.dtype.newbyteorder("=")], pin_memory=on_gpu)
        host.numpy()[...] = array
        return host

    def _fetched(self, tensor: Tensor) -> NDArray:
        """Return what the device has computed, when it is done; other threads go on meanwhile."""
        if self._device.type != "cuda":
            return tensor.cpu().numpy()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.device(self._device):
            host.copy_(tensor, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        done.synchronize()
        return host.numpy()
