"""From what a user asks of a deep encoder to its spec, and whether a spec is one that this version makes; loads no torch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from forestbridge.encoders.networks import NETWORKS, VERSION, Network, Preprocessing, network_of, plan_spec
from forestbridge.encoders.patchwise import plan_patches, seen_tile
from forestbridge.spec import INTERPOLATIONS, EncoderSpec, Interpolation


def plan_deep(
    network: Network,
    *,
    channels: int,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    maps: Sequence[str] | None = None,
    tile: int | None = None,
    zoom: int | None = None,
    preprocessing: Preprocessing | None = None,
    interpolation: Interpolation = "bilinear",
    overlap: int | None = None,
) -> EncoderSpec:
    """Return the spec of a deep encoder without the hash of its weights; arguments as for `open_deep_encoder`.

    Raises
    ------
    ValueError
        If the network has no such maps, takes no such channels or tiles, or settings contradict the interpolation.
    """
    options: dict[str, Any] = {"channels": channels, "maps": maps, "tile": tile, "weights": ""}
    scaling = {"low": low, "high": high, "zoom": zoom, "preprocessing": preprocessing}
    if interpolation == "featureforest":
        _refuse_scaling(scaling)
        return plan_patches(network, overlap=overlap, **options)
    if interpolation != "bilinear" or overlap is not None:
        raise ValueError(
            f"expected the interpolation {' or '.join(INTERPOLATIONS)}, and an overlap with the latter only, found {interpolation!r} and "
            f"overlap {overlap}; leave out the overlap, or choose one of these"
        )
    if low is None or high is None:
        raise ValueError(
            f"expected low and high, the raw intensities that become 0 and 1 for {network.name}, found none; give one value per channel"
        )
    return plan_spec(network, low=low, high=high, zoom=zoom, preprocessing=preprocessing or "network", **options)


def check_spec(spec: EncoderSpec) -> None:
    """Refuse a spec that this version would not have made.

    Raises
    ------
    ValueError
        If planning it anew gives another one.
    """
    try:
        side, _ = seen_tile(spec)
        options: dict[str, Any] = {"channels": spec.channels, "weights": spec.weights or "", "tile": side}
        options["maps"] = spec.options["maps"]
        if spec.interpolation == "featureforest":
            again = plan_patches(network_of(spec.name), overlap=spec.options["overlap"], **options)
        else:
            again = plan_spec(
                network_of(spec.name),
                low=spec.intensity["low"],
                high=spec.intensity["high"],
                zoom=_zoom(spec),
                preprocessing=spec.options["preprocessing"],
                **options,
            )
    except (KeyError, TypeError, IndexError, ZeroDivisionError, ValueError) as error:
        raise ValueError(
            f"expected a spec of {spec.name}, found one that is incomplete or was edited ({error})"
        ) from error
    if again.fingerprint() != spec.fingerprint():
        raise ValueError(
            f"expected {spec.name} version {VERSION} [{again.fingerprint()}], found version {spec.version} "
            f"[{spec.fingerprint()}]; use the forestbridge that made it, or extract and train again"
        )


class OneCore(NamedTuple):
    """A core, and the side of the tile with its halo that has it."""

    core: int
    side: int


def tiles_of_one_core(specs: Sequence[EncoderSpec]) -> dict[str, OneCore] | None:
    """Return tiles of networks by name that all have the same core, as near as can be to those that they have; None without any."""
    networks = {network.name: network for network in NETWORKS}
    if not all(spec.name in networks and spec.tile for spec in specs):
        return None
    sides = [_sides_by_core(networks[spec.name], spec) for spec in specs]
    wanted = [seen_tile(spec)[0] for spec in specs]

    def distance(core: int) -> float:
        return sum(abs(math.log(found[core] / side)) for found, side in zip(sides, wanted, strict=True))

    common = sorted(set.intersection(*map(set, sides)), key=distance)
    return (
        {s.name: OneCore(common[0], found[common[0]]) for s, found in zip(specs, sides, strict=True)}
        if common
        else None
    )


def _sides_by_core(network: Network, spec: EncoderSpec) -> dict[int, int]:
    """Return the sides of tiles by their cores, from half to twice that of a spec, and enlarged as it is; of several the nearest."""
    wanted, channels = seen_tile(spec)[0], network.inputs[0]
    found: dict[int, int] = {}
    for side in sorted(range(wanted // 2, 2 * wanted + 1), key=lambda side: abs(side - wanted)):
        try:
            other = plan_spec(network, channels=channels, low=[0], high=[1], weights="", tile=side)
        except ValueError:
            continue
        assert other.tile is not None
        if _zoom(other) == _zoom(spec):
            found.setdefault(other.tile[0], side)
    return found


def _zoom(spec: EncoderSpec) -> int:
    """Return by how much a tile is enlarged for the network."""
    return spec.input_size[0] // seen_tile(spec)[0] if spec.input_size else 1


def _refuse_scaling(settings: dict[str, Any]) -> None:
    """Refuse settings that FeatureForest has none of.

    Raises
    ------
    ValueError
        With their names.
    """
    kept = {"preprocessing": "featureforest"}
    if given := [name for name, value in settings.items() if value is not None and value != kept.get(name)]:
        raise ValueError(
            f"expected no {', '.join(given)} with the interpolation featureforest, which stretches each plane from its minimum and maximum "
            "and has an enlargement of its own, found some; leave them out (--range, --preprocessing)"
        )
