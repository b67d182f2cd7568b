"""The filter bank of ilastik: from a tile of raw intensities to smoothing, edge and texture features at several scales.

Values follow ilastik 1.4 with fastfilters to float32 rounding, borders included: each pass reflects at the image's
border without repeating the edge pixel. Everything between the float32 input and the float32 features is float64: derivatives
at large scales are small differences of large numbers, and rounding them in between would make 1e-4 of their value noise, which
no other program could repeat. One exception: where two eigenvalues in 3D nearly meet, ours are the exact
ones (`eigenvalues.eigenvalues_3d`). Definitions stand in `filter_kernels`; needs no weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders import filter_kernels as fk
from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.threads import for_each
from forestbridge.tiles import plan_tiles

if TYPE_CHECKING:
    from forestbridge.encoders.filter_engine import Target
    from forestbridge.encoders.filter_passes import Block

VERSION = 1
"""Raised when the same image would give other values."""

MAP_NAME = "filters"

BLOCK_2D, BLOCK_3D = (1, 64, 256), (16, 64, 128)
"""Planes, rows and columns that are filtered at a time: small enough for the cache, large enough for the margins to cost little."""


def open_filter_bank(
    *,
    selection: Mapping[str, Sequence[float]] = fk.DEFAULT_SELECTION,
    channels: int = 1,
    compute_in_2d: bool | Mapping[float, bool] = True,
) -> "FilterBank":
    """Make a filter bank.

    Parameters
    ----------
    selection
        Feature id → scales in pixels, e.g. ``{"GaussianSmoothing": [0.3, 0.7], "StructureTensorEigenvalues": [1.6]}``;
        any scale > 0. By default the 37 pairs that ilastik's dialog allows.
    channels
        Number of input channels; each gets all filters.
    compute_in_2d
        True: plane by plane; False: filters along z too; or one answer per selected scale, as ilastik keeps it.

    Raises
    ------
    ValueError
        If the selection is empty or has unknown ids, a scale has no answer in `compute_in_2d`, or `channels` < 1.
    """
    if channels < 1:
        raise ValueError(f"expected at least one input channel, found {channels}")
    scales = sorted({float(s) for chosen in selection.values() for s in chosen})
    in_2d = dict.fromkeys(scales, compute_in_2d) if isinstance(compute_in_2d, bool) else dict(compute_in_2d)
    if missing := [s for s in scales if s not in in_2d]:
        raise ValueError(f"expected compute_in_2d for each of the scales {scales}, found none for {missing}")
    filters = fk.select_filters(selection, in_2d)
    ndim = 2 if all(f.in_2d for f in filters) else 3
    halo = (fk.halo(filters),) * 2
    if ndim == 3:
        halo = (fk.halo([f for f in filters if not f.in_2d]), *halo)
    spec = EncoderSpec(
        name="filters",
        version=VERSION,
        axes="yx" if ndim == 2 else "zyx",
        channels=channels,
        intensity={"rule": "raw"},
        halo=halo,
        maps=(MapSpec(MAP_NAME, fk.feature_names(filters, channels, ndim)),),
        options={
            "selection": {feature: [f.scale for f in filters if f.feature == feature] for feature in fk.FEATURE_NAMES},
            "scales": scales,
            "compute_in_2d": [in_2d[s] for s in scales],
        },
    )
    return FilterBank(spec, filters)


def filter_bank_from_spec(spec: EncoderSpec) -> "FilterBank":
    """Make the filter bank of a spec.

    Raises
    ------
    ValueError
        If the spec's options do not give this spec: another version of the arithmetic, or a spec that was edited.
    """
    try:
        in_2d = dict(zip(spec.options["scales"], spec.options["compute_in_2d"], strict=True))
        bank = open_filter_bank(selection=spec.options["selection"], channels=spec.channels, compute_in_2d=in_2d)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected a filter bank's selection, scales and compute_in_2d in the spec, found {dict(spec.options)}"
        ) from error
    if bank.spec.fingerprint() != spec.fingerprint():
        raise ValueError(
            f"expected filter bank version {VERSION} [{bank.spec.fingerprint()}], "
            f"found version {spec.version} [{spec.fingerprint()}]; "
            "use the forestbridge that made it, or extract and train again"
        )
    return bank


@dataclass(frozen=True)
class FilterBank:
    """The filter bank as an encoder."""

    spec: EncoderSpec
    filters: tuple[fk.Filter, ...]

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the features of a tile's core.

        Parameters
        ----------
        tile
            (C, y, x) or (C, z, y, x) float32 raw intensities, as `forestbridge.encoders.Encoder.encode` says.
        core
            Where the core lies in it.

        Returns
        -------
        maps
            One (F, y, x) or (F, z, y, x) float32 array: by feature id, scale, input channel, eigenvalue.
        """
        from forestbridge.encoders.filter_engine import compute_filters  # compiled; numba takes a while to import

        volume = np.ascontiguousarray(tile if len(core) == 3 else tile[:, None], np.float32)  # (C, z, y, x)
        box = core if len(core) == 3 else (slice(0, 1), *core)
        features = np.empty((self.spec.n_features, *(s.stop - s.start for s in box)), np.float32)
        flat = features.reshape(-1)
        passes = self._passes(len(core))

        def work(job: tuple["Block", "Target"]) -> None:
            block, target = job
            for p in passes:
                if p.in_2d == (block.margin_z == 0):
                    compute_filters(
                        volume[p.channel].reshape(-1), block, p.presmoothing, p.taps, p.chosen, flat, target
                    )

        for in_2d in sorted({p.in_2d for p in passes}):
            for_each(work, _blocks(volume.shape[1:], box, in_2d=in_2d))
        return (features if len(core) == 3 else features[:, 0],)

    def _passes(self, ndim: int) -> list["_Pass"]:
        """Return what is computed for each input channel and scale."""
        starts = np.cumsum([0, *(self.spec.channels * f.n_outputs(ndim) for f in self.filters)])
        passes = []
        for channel in range(self.spec.channels):
            for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in self.filters):
                chosen = np.full(len(fk.FEATURE_NAMES), -1)
                for f, start in zip(self.filters, starts, strict=False):
                    if f.scale == scale:
                        chosen[list(fk.FEATURE_NAMES).index(f.feature)] = start + channel * f.n_outputs(ndim)
                presmoothing = fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW)
                passes.append(_Pass(channel, in_2d, presmoothing, _taps(fk.filter_sigma(scale)), chosen))
        return passes


class _Pass(NamedTuple):
    """One channel at one scale: the arguments of `filter_engine.compute_filters`."""

    channel: int
    in_2d: bool
    presmoothing: NDArray[np.float64]
    taps: NDArray[np.float64]
    chosen: NDArray[np.int64]


def _taps(sigma: float) -> NDArray[np.float64]:
    """Return the (6, 5) taps of the second step, as `filter_engine` names them."""
    kinds = (
        (0, sigma),
        (1, sigma),
        (2, sigma),
        (0, fk.INNER_SMOOTHING * sigma),
        (0, fk.TENSOR_GRADIENT * sigma),
        (1, fk.TENSOR_GRADIENT * sigma),
    )
    kernels = [fk.kernel(order, s, fk.FILTER_WINDOW) for order, s in kinds]
    return np.stack([np.pad(taps, 2 - len(taps) // 2) for taps in kernels])


def _blocks(shape: tuple[int, ...], box: tuple[slice, ...], *, in_2d: bool) -> Iterator[tuple["Block", "Target"]]:
    """Yield the blocks of a box in a tile of (z, y, x) pixels, and where their features go."""
    from forestbridge.encoders.filter_engine import Target
    from forestbridge.encoders.filter_passes import MARGIN, Block

    depth, height, width = (s.stop - s.start for s in box)
    for piece in plan_tiles((depth, height, width), BLOCK_2D if in_2d else BLOCK_3D, (0, 0, 0)):
        z, y, x = (s.start for s in piece.core)
        nz, ny, nx = (s.stop - s.start for s in piece.core)
        row = nx + 2 * MARGIN
        block = Block(
            *(box[0].start + z, box[1].start + y, box[2].start + x),
            *(nz, ny, nx),
            *shape,
            margin_z=0 if in_2d else MARGIN,
            row=row,
            plane=row * (ny + 2 * MARGIN),
        )
        yield block, Target((z * height + y) * width + x, depth * height * width, height * width, width)
