"""rdf.yaml: the description of a package in bioimage.io format 0.5.9, written by us.

0.5.9 with `covers` and `documentation` as plain strings is what every consumer reads: bioimageio.spec 0.5.3 to 0.5.14, JDLL,
QuPath. Loading and saving through newer spec classes turns them into mappings that older readers refuse.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from forestbridge.archive import PACKAGE_FORMAT
from forestbridge.forest import PixelForest
from forestbridge.package.about import About
from forestbridge.package.geometry import SpatialAxis
from forestbridge.spec import EncoderSpec

FORMAT_VERSION = "0.5.9"

PYTORCH_VERSION = "2.5.1"
"""Declared for the TorchScript weights: a version that conda-forge has. The graph uses operators of torch 1.13 only."""

ONNX_OPSET = 17

MISMATCHED_PER_MILLION = (100, 1000)
"""Elements of a test output that may differ: a forest is a step function, and a feature that differs by float rounding may fall on
the other side of a threshold. 100 is the most that bioimageio.spec 0.5.4 (ilastik in early 2025) takes; the second is for packages
that need more, and the most that 0.5.9 (ilastik since) takes."""


def describe_package(
    forest: PixelForest,
    spec: EncoderSpec,
    about: About,
    *,
    kind: str,
    axes: Sequence[SpatialAxis],
    input_names: Sequence[str],
    channels: Sequence[str],
    weights: Mapping[str, str],
    hashes: Mapping[str, str],
    deviations: Mapping[str, Mapping[str, float]],
    channel_names: Sequence[str],
    per_million: int = MISMATCHED_PER_MILLION[0],
    network: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the description of a fused or forest package as YAML values.

    Parameters
    ----------
    kind
        "fused": image → probabilities. "forest": feature maps → probabilities.
    input_names
        Id of each input tensor; its test tensor is ``<id>_test.npy``.
    channels
        Identifiers of the output channels, one per class.
    weights
        Weight format → file name.
    hashes
        File name → sha256.
    deviations
        Weight format → measured deviation from the engine.
    channel_names
        Identifiers of the input channels.
    per_million
        Elements of a test output that may differ, of a million.
    network
        Hash, licence and citation of a deep encoder's weights.
    """
    inputs = [
        _input(
            name,
            axes,
            channel_names,
            hashes,
            "raw intensities, not normalised" if kind == "fused" else "features of the encoder",
        )
        for name in input_names
    ]
    return {
        **_head(about, _tags(spec, about, kind, weights), hashes),
        "inputs": inputs,
        "outputs": [_output(input_names[0], axes, channels, hashes)],
        "weights": _weights(weights, hashes),
        "config": {
            "bioimageio": _tolerance(about, {None: 1e-3}, per_million),
            "forestbridge": {
                "format": PACKAGE_FORMAT,
                "kind": kind,
                "spec": json.loads(spec.to_json()),
                "fingerprint": spec.fingerprint(),
                "classes": [
                    {"value": value, "name": name, "colour": colour, "channel": channel}
                    for value, name, colour, channel in zip(
                        forest.classes, forest.names, forest.colours, channels, strict=True
                    )
                ],
                "trees": forest.n_trees,
                "depth": forest.depth(),
                "training": json.loads(json.dumps(dict(forest.training), sort_keys=True)),
                "deviations": {name: dict(values) for name, values in deviations.items()},
                **({"weights": dict(network)} if network else {}),
            },
        },
    }


def _head(about: About, tags: Sequence[str], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that stands before the tensors."""
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "id": about.id,
        "name": about.name,
        "description": about.description,
        "authors": [dict(author) for author in about.authors],
        "cite": [dict(entry) for entry in about.cite],
        "license": about.license,
        "tags": list(dict.fromkeys(tags)),
        "version": about.version,
        "covers": [next(name for name in hashes if name.startswith("cover."))],
        "documentation": "README.md",
    }


def _tolerance(about: About, absolute: Mapping[Any, float], per_million: int) -> dict[str, Any]:
    """Return what ``config.bioimageio`` holds: how far an output may be from its test; under None that of all outputs."""
    return {
        "nickname": about.id,
        "reproducibility_tolerance": [
            {
                "relative_tolerance": 1e-3,
                "absolute_tolerance": value,
                "mismatched_elements_per_million": per_million,
                **({} if output is None else {"output_ids": [output]}),
            }
            for output, value in absolute.items()
        ],
    }


class MapOutput(NamedTuple):
    """One output of an encoder package."""

    id: str
    channels: tuple[str, ...]
    cells: tuple[int, ...]
    """Rows and columns of the map of a whole tile."""
    stride: float
    """Pixels of the input between neighbouring cells."""


def describe_encoder_package(
    spec: EncoderSpec,
    about: About,
    *,
    axes: Sequence[SpatialAxis],
    outputs: Sequence[MapOutput],
    weights: Mapping[str, str],
    hashes: Mapping[str, str],
    deviations: Mapping[str, float],
    network: Mapping[str, Any],
    absolute: Mapping[str, float],
    per_million: int,
) -> dict[str, Any]:
    """Return the description of an encoder package as YAML values: one image in, one output per map.

    Parameters
    ----------
    axes
        Of the input, of one fixed size.
    weights, hashes, network, per_million
        As `describe_package`.
    deviations
        Weight format → largest deviation from the network in torch, as a share of a map's largest value.
    absolute
        Id of each output → absolute tolerance of its test.
    """
    channels = [f"channel{n}" for n in range(spec.channels)]
    config = {
        "format": PACKAGE_FORMAT,
        "kind": "encoder",
        "spec": json.loads(spec.to_json()),
        "fingerprint": spec.fingerprint(),
        "deviations": dict(deviations),
        "weights": dict(network),
    }
    return {
        **_head(about, ["2d", "feature-extraction", "forestbridge", *about.tags], hashes),
        "inputs": [_input("raw", axes, channels, hashes, "raw intensities, not normalised")],
        "outputs": [_map_output(output, axes, hashes) for output in outputs],
        "weights": _weights(weights, hashes),
        "config": {"bioimageio": _tolerance(about, absolute, per_million), "forestbridge": config},
    }


def _map_output(output: MapOutput, axes: Sequence[SpatialAxis], hashes: Mapping[str, str]) -> dict[str, Any]:
    space = [
        {"type": "space", "id": a.id, "size": cells, "scale": output.stride}
        for a, cells in zip(axes, output.cells, strict=True)
    ]
    test = f"{output.id}_test.npy"
    return {
        "id": output.id,
        "description": f"feature map with one cell every {output.stride:g} pixels of the input",
        "axes": [_batch(axes), {"type": "channel", "channel_names": list(output.channels)}, *space],
        "data": {"type": "float32"},
        "test_tensor": {"source": test, "sha256": hashes[test]},
    }


def to_yaml(document: Mapping[str, Any]) -> bytes:
    """Return the document as YAML in UTF-8: keys in our order, no aliases, no line folding."""
    return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=2**16).encode()


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values again instead of as an alias; our own reader refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _tags(spec: EncoderSpec, about: About, kind: str, weights: Mapping[str, str]) -> list[str]:
    own = [
        "2d" if spec.axes == "yx" else "3d",
        "pixel-classification",
        "semantic-segmentation",
        "random-forest",
        "forestbridge",
    ]
    runs_in = ["deepimagej", "fiji"] if kind == "fused" else []
    if kind == "fused" and "torchscript" in weights:
        runs_in += ["ilastik", "qupath"] if spec.axes == "yx" else ["ilastik"]
    return list(dict.fromkeys([*own, *runs_in, *about.tags]))


def _input(
    name: str, axes: Sequence[SpatialAxis], channels: Sequence[str], hashes: Mapping[str, str], description: str
) -> dict[str, Any]:
    space = [
        {"type": "space", "id": a.id, "size": {"min": a.minimum, "step": a.step} if a.step else a.minimum} for a in axes
    ]
    return {
        "id": name,
        "description": description,
        "axes": [_batch(axes), {"type": "channel", "channel_names": list(channels)}, *space],
        "data": {"type": "float32"},
        **_tensors(name, hashes),
    }


def _batch(axes: Sequence[SpatialAxis]) -> dict[str, Any]:
    """Return the batch axis: graphs of one fixed tile take one at a time."""
    return {"type": "batch"} if all(a.step for a in axes) else {"type": "batch", "size": 1}


def _output(
    reference: str, axes: Sequence[SpatialAxis], channels: Sequence[str], hashes: Mapping[str, str]
) -> dict[str, Any]:
    space = [
        {"type": "space", "id": a.id, "size": {"tensor_id": reference, "axis_id": a.id}, "halo": a.halo} for a in axes
    ]
    return {
        "id": "probabilities",
        "description": "probability of each class; over the classes they sum to 1",
        "axes": [_batch(axes), {"type": "channel", "channel_names": list(channels)}, *space],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        **_tensors("probabilities", hashes),
    }


def _tensors(name: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    test, sample = f"{name}_test.npy", f"{name}_sample.tif"
    return {
        "test_tensor": {"source": test, "sha256": hashes[test]},
        "sample_tensor": {"source": sample, "sha256": hashes[sample]},
    }


def _weights(weights: Mapping[str, str], hashes: Mapping[str, str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if "onnx" in weights:
        entries["onnx"] = {"source": weights["onnx"], "sha256": hashes[weights["onnx"]], "opset_version": ONNX_OPSET}
    if "torchscript" in weights:
        entries["torchscript"] = {
            "source": weights["torchscript"],
            "sha256": hashes[weights["torchscript"]],
            "pytorch_version": PYTORCH_VERSION,
            **({"parent": "onnx"} if "onnx" in weights else {}),
        }
    return entries
