"""What ``info`` and ``package inspect`` tell of a package: for people what fits on a screen, for machines everything."""

import shlex
from pathlib import Path
from typing import Any

import forestbridge as fb
from forestbridge.archive import PackageInfo
from forestbridge.archive.tensors import AxisInfo, TensorInfo


def package_facts(path: Path, *, short: bool) -> dict[str, Any]:
    """Return what is known of a package; nothing in it is run."""
    info = fb.inspect_package(path)
    return _short_facts(info) if short else info.to_json_dict()


def _short_facts(info: PackageInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "bytes": info.bytes,
        "sha256": info.sha256,
        "kind": info.kind,
        "name": info.name,
        "id": info.id,
        "description": info.description,
        "authors": info.authors,
        "license": info.license,
        "format_version": info.format_version,
        "weights": {w.format: f"{w.source}, {w.bytes} bytes" for w in info.weights},
        "inputs": {tensor.id: _tensor_text(tensor) for tensor in info.inputs},
        "outputs": {tensor.id: _tensor_text(tensor) for tensor in info.outputs},
        "classes": info.metadata.get("classes"),
        "encoder": None if info.spec is None else f"{info.spec.name}, {info.spec.n_features} features",
        "fingerprint": None if info.spec is None else info.spec.fingerprint(),
        "code": [str(code) for code in info.code],
        "addresses": info.addresses,
        "warnings": info.warnings,
        "everything": f"ff-package inspect {shlex.quote(str(info.path))} --json",
    }


def _tensor_text(tensor: TensorInfo) -> str:
    """Return dtype and axes, e.g. "float32, batch, channel 1, y 128 + 16 n, x 128 + 16 n"."""
    parts = [tensor.dtype, *(_axis_text(axis) for axis in tensor.axes)]
    return ", ".join(parts) + (f"; steps {', '.join(tensor.steps)}" if tensor.steps else "")


def _axis_text(axis: AxisInfo) -> str:
    if axis.type == "channel" and axis.channel_names:
        return f"{axis.id} {len(axis.channel_names)} ({', '.join(axis.channel_names[:10])})"
    if axis.size is not None:
        return f"{axis.id} {axis.size}"
    if axis.min is not None:
        return f"{axis.id} {axis.min} + {axis.step} n"
    return axis.id + (f" as {'.'.join(axis.reference)}" if axis.reference else "")
