"""Packages of other programs whose outputs are maps: small torch networks, exported to ONNX, described as bioimage.io does."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deep_weights import randomise
from packages import build, good_files, npy, to_yaml, write_zip

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


def onnx_of(network: nn.Module, *, channels: int = 1, size: int | None = None, opset: int = 17) -> bytes:
    """Return a network as ONNX, of one size or of any."""
    example = torch.zeros(1, channels, size or 64, size or 64)
    names = [f"map{n}" for n in range(len(network(example)))]
    dynamic = {name: {0: "b", 2: f"y{n}", 3: f"x{n}"} for n, name in enumerate(["raw", *names])}
    axes = None if size else dynamic
    return exported(network, example, opset=opset, input_names=["raw"], output_names=names, dynamic_axes=axes)


def exported(network: nn.Module, example: Tensor, opset: int = 17, **options: Any) -> bytes:
    """Return a network as ONNX by torch's exporter that needs no further library."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (example,), buffer, opset_version=opset, dynamo=False, **options)
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
    graph: bytes | None = None,
    change: Change | None = None,
) -> Path:
    """Write a package whose outputs are the maps of a network; `graph` is another ONNX file of it."""
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
    files = {"weights.onnx": graph or onnx_of(network, channels=channels, size=size), "test_raw.npy": raw, **tests}
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


def old_package(
    path: Path,
    network: nn.Module,
    *,
    channels: int = 1,
    size: int | None = None,
    least: int = 16,
    step: int = 16,
    steps: Sequence[dict[str, Any]] = (),
    after: Sequence[dict[str, Any]] = (),
    halo: int = 0,
    dtype: str = "float32",
    change: Change | None = None,
) -> Path:
    """Write the package of `foreign_package` in format 0.4: one list of sizes per tensor, sizes of outputs by scale and offset.

    Parameters
    ----------
    after
        Steps after the model, on the first map.
    halo
        Of each map, in pixels of the input; the sizes of the maps then follow from the input's.
    """
    side = size or 64
    with torch.no_grad():
        values = [m.numpy() for m in network(torch.zeros(1, channels, side, side))]
    outputs = []
    for n, m in enumerate(values):
        ratios = [cells / side for cells in m.shape[2:]]
        # the number of channels does not follow from the input's: scale 0, and twice the offset
        implicit = {"reference_tensor": "raw", "scale": [1, 0, *ratios], "offset": [0, m.shape[1] / 2, 0, 0]}
        output = {"name": f"map{n}", "axes": "bcyx", "data_type": "float32"}
        output |= {"shape": list(m.shape) if size and not halo else implicit}
        output |= {"halo": [0, 0, *(round(halo * ratio) for ratio in ratios)]}
        outputs.append(output | ({"postprocessing": list(after)} if after and n == 0 else {}))
    given = {"name": "raw", "axes": "bcyx", "data_type": dtype, "preprocessing": list(steps)}
    either = {"min": [1, channels, least, least], "step": [0, 0, step, step]}
    given["shape"] = [1, channels, side, side] if size else either
    files = {
        "README.md": b"# Maps\n\n## Validation\n\nNone.\n",
        "cover.png": good_files()["cover.png"],
        "test_raw.npy": npy(np.zeros((1, channels, side, side), dtype)),
        **{f"test_map{n}.npy": npy(m) for n, m in enumerate(values)},
        "weights.onnx": onnx_of(network, channels=channels, size=size),
    }
    rdf = {
        "format_version": "0.4.10",
        "type": "model",
        "name": "Old maps",
        "description": "Maps of a network.",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A. Author, 2021", "url": "https://example.org"}],
        "license": "CC-BY-4.0",
        "tags": ["2d"],
        "timestamp": "2021-05-04T12:00:00",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "inputs": [given],
        "outputs": outputs,
        "test_inputs": ["test_raw.npy"],
        "test_outputs": [f"test_map{n}.npy" for n in range(len(values))],
        "weights": {
            "onnx": {
                "source": "weights.onnx",
                "sha256": hashlib.sha256(files["weights.onnx"]).hexdigest(),
                "opset_version": 17,
            }
        },
    }
    if change is not None:
        change(rdf)
    return write_zip(path, {"rdf.yaml": to_yaml(rdf), **files})
