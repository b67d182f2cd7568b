"""Several encoders as one: the same pixels through each, their maps side by side, in one store and one forest.

Each part keeps its own tiles, maps and stored dtype: the tile of the combination is cut into theirs, so that every value is the one that
the part alone gives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import (
    BatchEncoder,
    Encoder,
    encoder_from_spec,
    is_package_name,
    open_encoder,
    require_name,
)
from forestbridge.encoders.networks import DEEP_NAMES, network_of, plan_spec, split_name
from forestbridge.encoders.own_options import own_options
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.encoders.planning import tiles_of_one_core
from forestbridge.spec import EncoderSpec
from forestbridge.tiles import plan_tiles

VERSION = 1
"""Of the way in which parts are put together."""

MOST_PIXELS = 1536
"""Side of the largest tile of a combination; memory holds all maps of one."""

FILTER_OPTIONS = {"selection", "compute_in_2d"}
"""Options that go to the filter bank; others go to the deep encoders, `channels` to all."""

PACKAGE_OPTIONS = {"low", "high", "channels", "tile", "device"}
"""Options that packages share with deep encoders; with images they measure what they need themselves."""


def open_combination(names: Sequence[str], **options: Any) -> "CombinedEncoder":
    """Make an encoder of several.

    Parameters
    ----------
    names
        As `open_encoder` takes them, each encoder once.
    options
        `channels`; `selection` and `compute_in_2d` for the filter bank; all others for the deep encoders. `tile`, `zoom` and `weights`
        may be mappings from an encoder's name to its own value.

    Raises
    ------
    ValueError
        If parts do not go together: different spatial axes or channels, one twice, or tiles without a common multiple; or a mapping names
        an encoder that is not among them.
    """
    if options.get("interpolation", "bilinear") != "bilinear":
        raise ValueError(
            f"expected the interpolation bilinear for {'+'.join(names)}, found {options['interpolation']!r}, whose patches are those of "
            "FeatureForest's encoders alone; leave it out, or take one encoder"
        )
    images = options.pop("images", None)
    each = own_options(names, options)
    measured = {}
    if images is not None:
        from forestbridge.encoders.intensity import measure_intensity

        measured = measure_intensity(images)._asdict()
    for given in each:
        given |= measured
    _check_parts(names, each)
    parts = []
    for name, given in zip(names, each, strict=True):
        if name == "filters":
            own = {k: v for k, v in given.items() if k in FILTER_OPTIONS or k == "channels"}
        elif is_package_name(name):
            own = {k: v for k, v in given.items() if k in PACKAGE_OPTIONS}
            if images is not None:
                own = {"images": images, **{k: v for k, v in own.items() if k not in ("low", "high")}}
        else:
            own = {k: v for k, v in given.items() if k not in FILTER_OPTIONS}
        parts.append(open_encoder(name, **own))
    return CombinedEncoder(parts)


def _check_parts(names: Sequence[str], each: Sequence[Mapping[str, Any]]) -> None:
    """Refuse unknown encoders, one that is there twice, and networks whose tiles do not go together, before weights are fetched.

    Raises
    ------
    ValueError
        As `open_combination`.
    """
    _require_different([split_name(name)[0] for name in names])
    planned = []
    for name, given in zip(names, each, strict=True):
        require_name(name)
        network, maps = split_name(name)
        if network in DEEP_NAMES and {"low", "high"} <= given.keys():
            own = {k: given[k] for k in ("low", "high", "tile", "zoom") if k in given}
            own |= {"channels": given.get("channels", 1), "maps": maps, "weights": ""}
            planned.append(plan_spec(network_of(network), **own))
    _common_tile(planned)


def combination_from_spec(spec: EncoderSpec, **options: Any) -> "CombinedEncoder":
    """Make the encoder of a combination's spec; `options` as for `encoder_from_spec`.

    Raises
    ------
    ValueError
        If the parts do not give this spec.
    """
    each = own_options([part.name for part in spec.parts], options)
    parts = zip(spec.parts, each, strict=True)
    found = CombinedEncoder([encoder_from_spec(part, **_options_of(part, spec, own)) for part, own in parts])
    if found.spec.fingerprint() != spec.fingerprint():
        raise ValueError(
            f"expected a combination of version {VERSION} [{found.spec.fingerprint()}], found version {spec.version} "
            f"[{spec.fingerprint()}]; use the forestbridge that made it, or extract and train again"
        )
    return found


def _options_of(part: EncoderSpec, spec: EncoderSpec, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a part: a package is for the part that was made with one, or the only network."""
    networks = [p.name for p in spec.parts if p.name != "filters"]
    if not is_package_name(str(options.get("weights"))):
        return {k: v for k, v in options.items() if part.name != "package" or k in ("device", "threads")}
    for_it = part.name == ("package" if "package" in networks else networks[0])
    return options if for_it else {k: v for k, v in options.items() if k != "weights"}


def combine_specs(specs: Sequence[EncoderSpec]) -> EncoderSpec:
    """Return the spec of a combination.

    Raises
    ------
    ValueError
        As `open_combination`.
    """
    names = [spec.name for spec in specs]
    _require_different(names)
    for spec in specs:
        require_bilinear(spec, "a combination")
    if len({spec.axes for spec in specs}) > 1 or len({spec.channels for spec in specs}) > 1:
        shown = ", ".join(f"{s.name} on {s.axes} with {s.channels} channel(s)" for s in specs)
        raise ValueError(f"expected encoders that see the same pixels, found {shown}; deep encoders see planes")
    return EncoderSpec(
        name="+".join(names),
        version=VERSION,
        axes=specs[0].axes,
        channels=specs[0].channels,
        halo=tuple(max(halo) for halo in zip(*(spec.halo for spec in specs), strict=True)),
        maps=tuple(
            replace(m, name=f"{spec.name}.{m.name}", channels=tuple(f"{spec.name}.{c}" for c in m.channels))
            for spec in specs
            for m in spec.maps
        ),
        intensity={"rule": "parts"},
        options={},
        tile=_common_tile(specs),
        dtype="float32" if any(spec.dtype == "float32" for spec in specs) else "float16",
        parts=tuple(specs),
    )


def _require_different(names: Sequence[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"expected two or more different encoders with + between them, found {'+'.join(names)}")


def _common_tile(specs: Sequence[EncoderSpec]) -> tuple[int, ...] | None:
    """Return the smallest core that is a whole number of each part's cores; None where no part has one.

    Raises
    ------
    ValueError
        If it is too large.
    """
    cores = [spec.tile for spec in specs if spec.tile is not None]
    if not cores:
        return None
    common = tuple(math.lcm(*sides) for sides in zip(*cores, strict=True))
    if max(common) > MOST_PIXELS:
        shown = ", ".join(f"{spec.name} {spec.tile}" for spec in specs if spec.tile is not None)
        networks = [spec for spec in specs if spec.tile is not None]
        raise ValueError(
            f"expected tiles whose cores have a common multiple of at most {MOST_PIXELS} pixels, found cores of {shown}; "
            f"{tiles_text(networks)}, or combine one of them with the filter bank"
        )
    return common


def tiles_text(specs: Sequence[EncoderSpec]) -> str:
    """Return what to do where tiles of networks do not go together."""
    if (tiles := tiles_of_one_core(specs)) is None:
        return "extract with tiles of one core"
    (core, _), *_ = tiles.values()
    given = ",".join(f"{name}={side}" for name, (_, side) in tiles.items())
    return f"extract with --tile {given} (tile={{...}}), which gives each a core of {core}"


class _Piece(NamedTuple):
    """A tile of a part.

    Attributes
    ----------
    tile, core
        As `Encoder.encode` takes them.
    place
        Where its core lies in the core of the combination's tile.
    """

    tile: NDArray[np.float32]
    core: tuple[slice, ...]
    place: tuple[slice, ...]


class CombinedEncoder:
    """Several encoders as one; see `forestbridge.encoders.Encoder` and `forestbridge.encoders.base.BatchEncoder`."""

    def __init__(self, parts: Sequence[Encoder]) -> None:
        self.spec = combine_specs([part.spec for part in parts])
        self.parts = tuple(parts)

    @property
    def batch(self) -> int | None:
        """How many tiles at once: those of its first part that has such a number."""
        return next((part.batch for part in self.parts if isinstance(part, BatchEncoder)), 1)

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the maps of a tile's core: those of the first part, then those of the next."""
        return self._encode([(tile, core)], in_batches=False)[0]

    def encode_batch(self, tiles: Sequence[tuple[NDArray[np.float32], tuple[slice, ...]]]) -> list[tuple[NDArray, ...]]:
        """Return what `encode` returns of each of the tiles with its core, in float32 or in the dtypes of the parts."""
        return self._encode(tiles, in_batches=True)

    def _encode(
        self, tiles: Sequence[tuple[NDArray[np.float32], tuple[slice, ...]]], *, in_batches: bool
    ) -> list[tuple[NDArray, ...]]:
        """Return the maps of tiles; parts that take several tiles at once get them so if asked for."""
        found: list[tuple[NDArray, ...]] = [()] * len(tiles)
        for part in self.parts:
            pieces = [_cut(part.spec, tile, core) for tile, core in tiles]
            flat = [(piece.tile, piece.core) for group in pieces for piece in group]
            if in_batches and isinstance(part, BatchEncoder):
                maps = iter(part.encode_batch(flat))
            else:
                maps = iter([part.encode(*piece) for piece in flat])
            for n, ((_, core), group) in enumerate(zip(tiles, pieces, strict=True)):
                found[n] += _joined(part.spec, core, group, [next(maps) for _ in group])
        return found


def _cut(spec: EncoderSpec, tile: NDArray[np.float32], core: tuple[slice, ...]) -> list[_Piece]:
    """Return the tiles of a part that cover a core: its own core's size, grown by its own halo as far as there are pixels."""
    size = [c.stop - c.start for c in core]
    pieces = []
    for piece in plan_tiles(size, spec.tile or size, spec.halo):
        start = [c.start for c in core]
        outer = tuple(
            slice(max(s + o.start, 0), min(s + o.stop, n))
            for s, o, n in zip(start, piece.outer, tile.shape[1:], strict=True)
        )
        inner = tuple(
            slice(s + c.start - o.start, s + c.stop - o.start) for s, c, o in zip(start, piece.core, outer, strict=True)
        )
        pieces.append(_Piece(tile[(slice(None), *outer)], inner, piece.core))
    return pieces


def _joined(
    spec: EncoderSpec,
    core: tuple[slice, ...],
    pieces: Sequence[_Piece],
    values: Sequence[tuple[NDArray, ...]],
) -> tuple[NDArray, ...]:
    """Return the maps of a part over the whole core."""
    if len(pieces) == 1:
        return values[0]
    joined = []
    for k, m in enumerate(spec.maps):
        *planes, y, x = (c.stop - c.start for c in core)
        dtype = np.result_type(*(maps[k] for maps in values))  # float32 if a piece did not fit into float16
        whole = np.empty((len(m.channels), *planes, m.n_cells(y), m.n_cells(x)), dtype)
        for piece, maps in zip(pieces, values, strict=True):
            *slabs, rows, columns = piece.place
            first = [round(s.start / m.stride) for s in (rows, columns)]
            cells = tuple(slice(f, f + n) for f, n in zip(first, maps[k].shape[-2:], strict=True))
            whole[(slice(None), *slabs, *cells)] = maps[k]
        joined.append(whole)
    return tuple(joined)
