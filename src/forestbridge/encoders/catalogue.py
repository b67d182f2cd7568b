"""What there is to choose from: facts about each encoder, its weights, and what it costs on this machine."""

import logging
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forestbridge.encoders.base import RESERVED, Encoder, open_encoder, require_torch
from forestbridge.encoders.networks import DEEP_NAMES, network_of, plan_spec, split_name
from forestbridge.encoders.plugins import find_plugins, package_of
from forestbridge.spec import EncoderSpec
from forestbridge.threads import cores
from forestbridge.weights import WeightsFile, checkpoint_of, weights_file, weights_status
from forestbridge.weights.cache import converted_weights
from forestbridge.weights.download import Progress

_log = logging.getLogger(__name__)

ADVICE = "the first choice for most images: needs no weights, and is fast"
"""When to choose the filter bank."""

FILTER_CORE = (512, 512)
"""That the filter bank is measured on."""

SHORT = 10.0
"""CPU-seconds below which a tile is measured again: the first one pays for what is made ready once."""


class Cost(NamedTuple):
    """What an encoder costs, for images of one channel.

    Attributes
    ----------
    cpu_seconds_per_megapixel
        Of all threads together, for 10⁶ pixels of an image.
    seconds_per_megapixel
        That pass meanwhile, with `threads` threads.
    peak_memory_mb
        The most that this process ever had, in 10⁶ bytes; None where the system does not say.
    weights
        Which were there: "none needed", a sha256, or "random", which cost the same.
    """

    name: str
    cpu_seconds_per_megapixel: float
    seconds_per_megapixel: float
    threads: int
    peak_memory_mb: float | None
    weights: str


def describe_encoder(name: str) -> dict[str, Any]:
    """Return facts about an encoder as JSON values; needs no torch and reads no weights.

    Parameters
    ----------
    name
        One of `encoder_names`, or a name of FeatureForest's.

    Raises
    ------
    PluginError
        If the encoder of a plugin fails.
    """
    if point := find_plugins(RESERVED).get(name):
        spec = open_encoder(name).spec
        facts = {"title": name, "advice": f"of the package {package_of(point)}", "parameters": 0, "megabytes": 0}
        facts |= {"licence": "that of its package", **_spec_facts(spec), "weights": spec.weights or "none needed"}
        return {"name": name, **facts, "fingerprint": spec.fingerprint()}
    if name == "filters":
        spec = open_encoder("filters").spec
        facts = {
            "title": "ilastik's filter bank",
            "advice": ADVICE,
            "parameters": 0,
            "megabytes": 0,
            "licence": "none needed",
        }
        return {"name": name, **facts, **_spec_facts(spec), "weights": "none needed", "fingerprint": spec.fingerprint()}
    network = network_of(split_name(name)[0])
    checkpoint = checkpoint_of(network.name)
    ready = weights_status(network.name)
    every = plan_spec(network, channels=1, low=[0], high=[1], weights="", maps=_possible_maps(network.name))
    return {
        "name": network.name,
        "title": network.title,
        "advice": network.advice,
        "parameters": network.parameters,
        "megabytes": checkpoint.megabytes,
        "licence": checkpoint.licence,
        "citation": checkpoint.citation,
        "url": checkpoint.url,
        **_spec_facts(plan_spec(network, channels=1, low=[0], high=[1], weights="")),
        "all_maps": {m.name: {"features": len(m.channels), "stride": m.stride} for m in every.maps},
        "channels": list(network.inputs),
        "weights": f"present, sha256 {ready.sha256}" if ready else "not downloaded",
        "own_weights": [w.sha256 for w in converted_weights(network.name) if w != ready],
    }


def _possible_maps(name: str) -> list[str]:
    return [m.name for m in network_of(name).maps]


def _spec_facts(spec: EncoderSpec) -> dict[str, Any]:
    tile = None if spec.tile is None else [n + 2 * h for n, h in zip(spec.tile, spec.halo, strict=True)]
    return {
        "features": spec.n_features,
        "maps": {m.name: m.stride for m in spec.maps},
        "tile": tile,
        "halo": list(spec.halo),
        "input_size": list(spec.input_size) if spec.input_size else None,
    }


def fetch_weights(
    name: str, *, weights: str | Path | None = None, offline: bool | None = None, progress: Progress | None = None
) -> WeightsFile:
    """Download the weights of an encoder into the cache, or take a file of the user's own there; what is there stays.

    Raises
    ------
    ValueError
        If it is no deep encoder.
    MissingExtraError, WeightsError, ResourceError
        As `forestbridge.weights.weights_file`.
    """
    network = network_of(split_name(name)[0])
    require_torch(network.name)
    from forestbridge.encoders.deep_module import convert_checkpoint

    return weights_file(network.name, weights, convert=convert_checkpoint(network), offline=offline, progress=progress)


def measure_encoder(name: str) -> Cost:
    """Compute one tile, with the weights that are there or random ones, and return what it cost.

    Raises
    ------
    ValueError, MissingExtraError
        As `forestbridge.encoders.open_encoder`.
    """
    encoder, weights = _any_encoder(name)
    core = encoder.spec.tile or FILTER_CORE
    shape = tuple(c + 2 * h for c, h in zip(core, encoder.spec.halo, strict=True))
    tile = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype(np.float32)
    place = tuple(slice(h, h + c) for c, h in zip(core, encoder.spec.halo, strict=True))
    cpu = wall = 0.0
    for _ in range(2):
        start = time.perf_counter(), time.process_time()
        encoder.encode(tile, place)
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        if cpu > SHORT:
            break
    megapixels = core[0] * core[1] / 1e6
    return Cost(
        encoder.spec.name, round(cpu / megapixels, 2), round(wall / megapixels, 2), cores(), _peak_memory(), weights
    )


def _any_encoder(name: str) -> tuple[Encoder, str]:
    """Return an encoder, and the sha256 of its weights or what stands for it."""
    base, maps = split_name(name)
    if base not in DEEP_NAMES:
        return open_encoder(name), "none needed"
    require_torch(base)
    from forestbridge.encoders.deep import DeepEncoder, deep_encoder_from_spec, plan_run
    from forestbridge.encoders.deep_module import random_module

    found = weights_status(base) or next(iter(converted_weights(base)), None)
    sha256 = found.sha256 if found else ""
    spec = plan_spec(network_of(base), channels=1, low=[0], high=[255], weights=sha256, maps=maps)
    if found:
        return deep_encoder_from_spec(spec, offline=True), sha256
    _log.info("no weights of %s are there; random ones cost the same", base)
    return DeepEncoder(spec, random_module(spec), plan_run(network_of(base))), "random"


def _peak_memory() -> float | None:
    """Return the most memory that this process ever had, in 10⁶ bytes."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
