"""An encoder, or several as one, on the fixed tile of a package: which pixels each part sees, and where its cells lie.

package's tile   |<- halo ->|        core        |<- halo ->|       halo: the largest of all parts
network             |<-own->|        core        |<-own->|          sees what it sees alone
filter bank      |              the whole tile              |       its values do not depend on the tile
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.combined import CombinedEncoder, tiles_text
from forestbridge.encoders.filters import FilterBank
from forestbridge.encoders.fixed_tiles import package_halo, package_sides
from forestbridge.encoders.package import PackageEncoder
from forestbridge.engine import MapPart
from forestbridge.errors import ForestError
from forestbridge.graphs.encoder import GraphEncoder, noise_in, stored_maps
from forestbridge.spec import EncoderSpec, MapSpec

TileEncoder: TypeAlias = GraphEncoder | CombinedEncoder
"""What a package of one fixed tile holds."""


class TilePart(NamedTuple):
    """An encoder in the tile of a package.

    Attributes
    ----------
    encoder
        A network or a filter bank.
    inset
        Rows and columns at each border of the package's tile that it does not see.
    sides
        Rows and columns that it sees.
    """

    encoder: GraphEncoder | FilterBank
    inset: tuple[int, int]
    sides: tuple[int, int]

    @property
    def spec(self) -> EncoderSpec:
        """The encoder's."""
        return self.encoder.spec

    def cells(self, m: MapSpec) -> tuple[int, int]:
        """Return the rows and columns of one of its maps."""
        return m.n_cells(self.sides[0]), m.n_cells(self.sides[1])

    def offset(self, m: MapSpec) -> tuple[float, float]:
        """Return the pixel of the package's tile on which the first cell of one of its maps is centred, along y and x."""
        return m.offset + self.inset[0], m.offset + self.inset[1]

    def stored_maps(self, raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the (F, t, t) float32 maps of a package's tile (C, T, T), as a store holds their values."""
        y, x = (slice(i, i + n) for i, n in zip(self.inset, self.sides, strict=True))
        if isinstance(self.encoder, FilterBank):
            return self.encoder.encode(np.ascontiguousarray(raw[:, y, x]), (slice(0, y.stop), slice(0, x.stop)))
        return stored_maps(self.encoder, raw[:, y, x])


def tile_parts(encoder: TileEncoder) -> tuple[TilePart, ...]:
    """Return the parts of a combination, or an encoder alone as the only part, in the order of the spec.

    Raises
    ------
    ForestError
        If a part cannot stand in the tile of a package.
    """
    require_one_core(encoder.spec)
    halo, (height, width) = package_halo(encoder.spec), package_sides(encoder.spec)
    found = []
    for part in encoder.parts if isinstance(encoder, CombinedEncoder) else (encoder,):
        if isinstance(part, FilterBank):
            found.append(TilePart(part, (0, 0), (height, width)))
            continue
        if not isinstance(part, PackageEncoder) and not hasattr(part, "module"):
            raise ForestError(
                f"expected a forest over networks and the filter bank for a package, found the encoder {part.spec.name} of "
                f"{encoder.spec.name}, which no graph holds; predict with the .forest file, which needs no package"
            )
        y, x = (a - b for a, b in zip(halo, part.spec.halo, strict=True))
        found.append(TilePart(part, (y, x), (height - 2 * y, width - 2 * x)))  # pyright: ignore[reportArgumentType]
    return tuple(found)


def require_one_core(spec: EncoderSpec) -> None:
    """Refuse a combination whose networks see tiles of different cores: none of them could go through a package's tile at once.

    Raises
    ------
    ForestError
        With the tiles that go together.
    """
    networks = [part for part in spec.parts if part.tile is not None]
    if len({part.tile for part in networks}) > 1:
        shown = ", ".join(f"{part.name} {part.tile}" for part in networks)
        raise ForestError(
            f"expected networks with cores of one size for a package, found cores of {shown}; {tiles_text(networks)} and train "
            "again, or predict with the .forest file, which needs no package"
        )


def networks_of(parts: Sequence[TilePart]) -> list[GraphEncoder]:
    """Return the parts with weights."""
    return [part.encoder for part in parts if not isinstance(part.encoder, FilterBank)]


def map_parts(parts: Sequence[TilePart], raw: NDArray[np.float32]) -> list[MapPart[NDArray[np.float32]]]:
    """Return the stored maps of a package's tile (C, T, T) with their places in it, for the engine."""
    return [
        MapPart(values, (m.stride, m.stride), part.offset(m), part.cells(m))
        for part in parts
        for m, values in zip(part.spec.maps, part.stored_maps(raw), strict=True)
    ]


def noise_raw(encoder: TileEncoder) -> NDArray[np.float32]:
    """Return (C, T, T) float32 noise of a package's tile in the range of the first network's intensities; always the same."""
    spec = next((part for part in encoder.spec.parts if part.tile is not None), encoder.spec)
    return noise_in(spec, package_sides(encoder.spec))
