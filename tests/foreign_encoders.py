"""Packages of other programs whose outputs are maps: small torch networks, exported to ONNX, described as bioimage.io does."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deep_weights import randomise
from packages import build, npy

Change = Callable[[dict[str, Any]], Any]


class Maps(nn.Module):
    """Several chains of layers, one after the other: one map after each."""

    def __init__(self, *chains: Sequence[nn.Module]) -> None:
        super().__init__()
        self.chains = nn.ModuleList(nn.Sequential(*chain) for chain in chains)
        randomise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return one (N, F, y, x) map per chain."""
        found = []
        for chain in self.chains:
            x = chain(x)
            found.append(x)
        return tuple(found)


def onnx_of(network: nn.Module, *, channels: int = 1, size: int | None = None) -> bytes:
    """Return a network as ONNX, of one size or of any."""
    example = torch.zeros(1, channels, size or 64, size or 64)
    names = [f"map{n}" for n in range(len(network(example)))]
    dynamic = {name: {0: "b", 2: f"y{n}", 3: f"x{n}"} for n, name in enumerate(["raw", *names])}
    return exported(network, example, input_names=["raw"], output_names=names, dynamic_axes=None if size else dynamic)


def exported(network: nn.Module, example: Tensor, **options: Any) -> bytes:
    """Return a network as ONNX by torch's exporter that needs no further library."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (example,), buffer, opset_version=17, dynamo=False, **options)
    return buffer.getvalue()


def foreign_package(
    path: Path,
    network: nn.Module,
    *,
    channels: int = 1,
    size: int | None = None,
    least: int = 16,
    step: int = 16,
    steps: Sequence[dict[str, Any]] = (),
    change: Change | None = None,
) -> Path:
    """Write a package whose outputs are the maps of a network."""
    side = size or 64
    with torch.no_grad():
        values = [m.numpy() for m in network(torch.zeros(1, channels, side, side))]
    tests = {f"test_map{n}.npy": npy(m) for n, m in enumerate(values)}

    def describe(rdf: dict[str, Any]) -> None:
        del rdf["config"]["forestbridge"], rdf["weights"]["torchscript"]
        given = rdf["inputs"][0]
        given["axes"][1]["channel_names"] = [f"c{n}" for n in range(channels)]
        for axis in given["axes"][2:]:
            axis["size"] = size or {"min": least, "step": step}
        given["preprocessing"] = list(steps)
        rdf["outputs"] = [_output(n, m, side, size is not None) for n, m in enumerate(values)]
        if change is not None:
            change(rdf)

    raw = npy(np.zeros((1, channels, side, side), np.float32))
    files = {"weights.onnx": onnx_of(network, channels=channels, size=size), "test_raw.npy": raw, **tests}
    return build(path, describe, files={**files, "test_probabilities.npy": None, "weights.pt": None})


def _output(n: int, values: np.ndarray, side: int, fixed: bool) -> dict[str, Any]:
    def axis(letter: str, cells: int) -> dict[str, Any]:
        size = cells if fixed else {"tensor_id": "raw", "axis_id": letter}
        return {"type": "space", "id": letter, "size": size, "scale": side / cells}

    return {
        "id": f"map{n}",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": [f"f{c}" for c in range(values.shape[1])]},
            *(axis(letter, cells) for letter, cells in zip("yx", values.shape[2:], strict=True)),
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": f"test_map{n}.npy"},
    }
