"""Deep encoders: from a tile of raw intensities, through a network, to maps at the network's own strides.

    tile, clipped at the image's border ──reflect──▶ T × T ──`RawNetwork`──▶ maps of T × T ──crop──▶ cells of the core

`RawNetwork` is one module from raw pixels to maps; it is what runs, and what is exported.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forestbridge.devices import network_device
from forestbridge.encoders.coming import Coming, exact_convolutions, fitting_batch
from forestbridge.encoders.deep_module import build_module, convert_checkpoint
from forestbridge.encoders.networks import Network, Preprocessing, network_of
from forestbridge.encoders.patchwise import seen_tile
from forestbridge.encoders.planning import check_spec, plan_deep
from forestbridge.errors import ResourceError
from forestbridge.spec import EncoderSpec, Interpolation
from forestbridge.tiles import whole_tile
from forestbridge.weights import weights_file
from forestbridge.weights.cache import load_tensors

_log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]

Batch = Sequence[tuple[NDArray[np.float32], tuple[slice, ...]]]
"""Tiles, each with the place of its core in it."""


def open_deep_encoder(
    name: str,
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    channels: int = 1,
    maps: Sequence[str] | None = None,
    tile: int | None = None,
    zoom: int | None = None,
    preprocessing: Preprocessing | None = None,
    interpolation: Interpolation = "bilinear",
    overlap: int | None = None,
    weights: str | Path | None = None,
    offline: bool | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    batch: int | None = None,
    compile: bool = False,
    exportable: bool = False,
) -> "DeepEncoder":
    """Make a deep encoder.

    Parameters
    ----------
    name
        One of `forestbridge.encoders.networks.DEEP_NAMES`.
    low, high
        Raw intensities that become 0 and 1 (values beyond are clipped), one per channel; none for the interpolation "featureforest".
    channels
        1 or 3; for Cellpose 1 or 2, cells and nuclei.
    maps
        Names of the wanted maps, e.g. ["s4", "s8"]; by default those that FeatureForest takes.
    tile
        Side of a tile with its halo, in image pixels: 512, DINOv2 518; 1024 is faster per pixel and sees smaller objects. For the
        interpolation "featureforest" FeatureForest's patch size.
    zoom
        By how much a tile is enlarged for the network; by default up to the size that it was trained with.
    preprocessing
        "network": mean and standard deviation that the network was trained with; "featureforest": none. By default the former, and
        with the interpolation "featureforest" the latter, which it needs.
    interpolation
        "bilinear": maps at the network's stride. "featureforest": the features that FeatureForest gives to each pixel, from its patches,
        its stretch of each plane to 0…1 and its bicubic resizing; a store of them has a value for each pixel.
    overlap
        Of FeatureForest's patches; by default a quarter of them.
    weights
        The user's own file, in the authors' layout; by default the published one.
    offline
        Whether nothing may be downloaded; by default as FORESTBRIDGE_OFFLINE says.
    device
        "cpu", "cuda", "cuda:1", "mps", or "auto".
    precision
        "auto": for transformers on CUDA bfloat16, or float16 where the GPU has no bfloat16; float32 on other devices, and
        for Cellpose, whose coarsest map bfloat16 changes by a third. Maps are float32 always.
    batch
        Tiles at once; by default 1, on CUDA what the free memory allows.
    compile
        Whether torch compiles the network first, which takes a minute.
    exportable
        Whether attention is written out in operations that every runtime of TorchScript and ONNX has.

    Raises
    ------
    ValueError
        If the network has no such maps, or takes no such channels or tiles.
    WeightsError, ResourceError
        As `forestbridge.weights.weights_file`, or the device is not there.
    """
    network = network_of(name)
    options: dict[str, Any] = {"channels": channels, "maps": maps, "tile": tile, "zoom": zoom, "low": low, "high": high}
    spec = plan_deep(network, **options, preprocessing=preprocessing, interpolation=interpolation, overlap=overlap)
    run = plan_run(network, device, precision=_precision(precision, interpolation), batch=batch, compile=compile)
    file = weights_file(name, weights, convert=convert_checkpoint(network), offline=offline)
    spec = replace(spec, weights=file.sha256)
    return DeepEncoder(spec, build_module(spec, load_tensors(file), exportable=exportable), run)


def _precision(precision: Precision, interpolation: Interpolation) -> Precision:
    """Return float32 for "auto" in FeatureForest's way, since FeatureForest computes so on all devices."""
    return "float32" if precision == "auto" and interpolation == "featureforest" else precision


def deep_encoder_from_spec(
    spec: EncoderSpec,
    *,
    weights: str | Path | None = None,
    offline: bool | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    batch: int | None = None,
    compile: bool = False,
    exportable: bool = False,
) -> "DeepEncoder":
    """Make the deep encoder of a spec; its weights are found by their hash.

    Parameters
    ----------
    spec
        Of a store, forest or package.
    weights
        The file with the weights, where they are neither in the cache nor the published ones.

    Raises
    ------
    ValueError
        If the spec is of another version of the arithmetic, or was edited.
    WeightsError, ResourceError
        As `open_deep_encoder`, or the weights of this spec are not there.
    """
    network = network_of(spec.name)
    run = plan_run(network, device, precision=_precision(precision, spec.interpolation), batch=batch, compile=compile)
    check_spec(spec)
    file = weights_file(spec.name, weights, convert=convert_checkpoint(network), sha256=spec.weights, offline=offline)
    return DeepEncoder(spec, build_module(spec, load_tensors(file), exportable=exportable), run)


class Run(NamedTuple):
    """How a network runs: provenance, not identity.

    Attributes
    ----------
    batch
        Tiles at once; None leaves it to the free memory of the GPU.
    """

    device: torch.device
    dtype: torch.dtype
    batch: int | None
    compile: bool


def plan_run(
    network: Network,
    device: str = "cpu",
    *,
    precision: Precision = "auto",
    batch: int | None = None,
    compile: bool = False,
) -> Run:
    """Check how a network shall run; see `open_deep_encoder`.

    Raises
    ------
    ValueError, ResourceError
        If an option is unknown, or the device is not there.
    """
    if precision not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"expected the precision auto, float32, bfloat16 or float16, found {precision!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"expected a batch of at least one tile, found {batch}")
    where = network_device(device)
    on_gpu = where.type == "cuda"
    dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
    if precision == "auto" and on_gpu and not network.local:
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return Run(where, dtype, batch or (None if on_gpu else 1), compile)


class DeepEncoder:
    """A network as an encoder; threads may share it.

    Attributes
    ----------
    spec
        Everything that decides the values.
    module
        From (N, C, T, T) float32 raw intensities, T = core + 2·halo, to one (N, F, t, t) float32 map of the whole tile per map of the
        spec; in FeatureForest's way T is its patch size, and t = T.
    device
        Where it runs.
    batch
        Tiles at once; None until the first batch has shown what a tile takes.
    """

    def __init__(self, spec: EncoderSpec, module: nn.Module, run: Run) -> None:
        self.spec = spec
        self.device = run.device
        self.module = module.eval().to(run.device)
        self.batch = run.batch
        self._dtype = run.dtype
        self._call = torch.compile(self.module) if run.compile else self.module
        self._lock = Lock()

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the maps of a tile's core.

        Parameters
        ----------
        tile
            (C, y, x) float32 raw intensities, as `forestbridge.encoders.Encoder.encode` says.
        core
            Where the core lies in it.

        Returns
        -------
        maps
            One (F, y, x) float32 array per map, in cells.

        Raises
        ------
        ValueError
            If the tile is larger than the spec says, or has other channels.
        ResourceError
            If the device has too little memory.
        """
        return self._encode([(tile, core)], torch.float32)[0]

    def encode_batch(self, tiles: Batch) -> list[tuple[NDArray, ...]]:
        """Return the maps of several tiles' cores, with several at once in the network.

        They are those of `encode` in the spec's dtype, rounded on the device. A tile with a value that this dtype cannot hold comes
        in float32, so that the value can be named.
        """
        return self._encode(tiles, getattr(torch, self.spec.dtype))

    def _encode(self, tiles: Batch, dtype: torch.dtype) -> list[tuple[NDArray, ...]]:
        """Return the maps of tiles' cores, in batches that fit into memory.

        While one thread fetches the maps of a batch from the GPU, another may let it compute the next.
        """
        found: list[tuple[NDArray, ...]] = []
        with torch.inference_mode():
            while len(found) < len(tiles):
                part = tiles[len(found) : len(found) + (self.batch or 1)]
                pixels = self._staged(part)
                with self._lock:
                    try:
                        coming = self._start(part, pixels, dtype)
                    except torch.OutOfMemoryError as error:
                        self._shrink(len(part), error)
                        continue
                found += coming.arrays()
        return found

    def _start(self, tiles: Batch, staged: Tensor, dtype: torch.dtype) -> Coming:
        """Send as many tiles as go into the network together on their way; on the CPU they are done."""
        if self.batch is None:
            torch.cuda.reset_peak_memory_stats(self.device)
        pixels = staged.to(self.device, non_blocking=self.device.type == "cuda")
        low = self._dtype != torch.float32
        with exact_convolutions(), torch.autocast(self.device.type, self._dtype, enabled=low):
            maps = self._call(pixels)  # one (N, F, t, t) per map
        cores = [[m[n][self._cells(k, c)] for k, m in enumerate(maps)] for n, (_, c) in enumerate(tiles)]
        coming = Coming(cores, dtype)
        if self.batch is None:
            self.batch = fitting_batch(self.device, sum(m.nbytes for m in coming.tensors[0]))
        return coming

    def _staged(self, tiles: Batch) -> Tensor:
        """Return (N, C, T, T) float32, continued by reflection, in memory from which the device can read."""
        side, margin = seen_tile(self.spec)
        shape = (len(tiles), self.spec.channels, side, side)
        host = torch.empty(shape, dtype=torch.float32, pin_memory=self.device.type == "cuda")
        for target, (tile, core) in zip(host.numpy(), tiles, strict=True):
            self._check_tile(tile, core)
            target[...] = whole_tile(tile, core, (side, side), (margin, margin))
        return host

    def _check_tile(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> None:
        """Refuse a tile that the spec does not describe.

        Raises
        ------
        ValueError
            If it has other channels or axes, or its core is empty, larger than the spec's, or not inside.
        """
        largest = self.spec.tile or ()
        fits = tile.ndim == 3 and len(core) == 2 and tile.shape[0] == self.spec.channels
        if not fits or not all(
            0 <= c.start < c.stop <= n and c.stop - c.start <= most
            for c, n, most in zip(core, tile.shape[1:], largest, strict=True)
        ):
            raise ValueError(
                f"expected a tile of {self.spec.channels} channel(s) and a core of at most {largest} pixels inside it, found shape "
                f"{tile.shape} and core {core}; cut the image with forestbridge.encoders.features.tiles_of"
            )

    def _cells(self, k: int, core: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return where the cells of a core lie in the k-th map of a whole tile."""
        m = self.spec.maps[k]
        first = round(seen_tile(self.spec)[1] / m.stride)
        return (slice(None), *(slice(first, first + m.n_cells(c.stop - c.start)) for c in core))

    def _shrink(self, tiles: int, error: torch.OutOfMemoryError) -> None:
        """Halve the batch after one of so many tiles did not fit.

        Raises
        ------
        ResourceError
            If it was a single tile.
        """
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tiles == 1:
            raise ResourceError(
                f"expected enough memory on {self.device} for one tile of {self.spec.name}, found: {error}; end other programs "
                "that use it, use a smaller tile or encoder, or device='cpu'"
            ) from error
        self.batch = min(self.batch or tiles, tiles // 2)  # another thread may have found that, too
        _log.warning("%s: %d tiles at once do not fit into memory, going on with %d", self.spec.name, tiles, self.batch)
