"""Small packages for tests: one that is good in every program, and ways to spoil it.

build(tmp_path / "a.zip")                                       # good
build(tmp_path / "a.zip", lambda rdf: rdf.pop("id"))            # description changed
build(tmp_path / "a.zip", files={"weights.onnx": None})         # file left out
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("background", "nucleus")


def graph(
    *,
    opset: int = 17,
    ml: int = 3,
    ir: int = 8,
    inputs: Sequence[Any] = ("b", 1, "y", "x"),
    outputs: int = 1,
    classes: int = len(CLASSES),
    dtype: int = TensorProto.FLOAT,
    extra: Callable[[onnx.ModelProto], None] | None = None,
) -> bytes:
    """Return an ONNX file: (b, 1, y, x) → (b, K, y, x), channel k = (k + 1) · input."""
    kernel = np.arange(1, classes + 1, dtype=np.float32).reshape(classes, 1, 1, 1)
    names = ["probabilities", *(f"extra{n}" for n in range(outputs - 1))]
    nodes = [helper.make_node("Conv", ["raw", "kernel"], ["probabilities"])]
    nodes += [helper.make_node("Identity", ["probabilities"], [name]) for name in names[1:]]
    shape = [inputs[0], classes, *inputs[2:]]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "fused",
            [helper.make_tensor_value_info("raw", dtype, list(inputs))],
            [helper.make_tensor_value_info(name, dtype, shape) for name in names],
            [numpy_helper.from_array(kernel, "kernel")],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)],
        ir_version=ir,
    )
    if extra is not None:
        extra(model)
    return model.SerializeToString()


def npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def good_files() -> dict[str, bytes]:
    """Return the files of a good package, without rdf.yaml."""
    raw = np.linspace(0, 1, 128 * 128, dtype=np.float32).reshape(1, 1, 128, 128)
    return {
        "README.md": b"# Nuclei\n\n## Validation\n\nChecked.\n",
        "cover.png": b"\x89PNG\r\n\x1a\n",
        "test_raw.npy": npy(raw),
        "test_probabilities.npy": npy(np.concatenate([raw, 2 * raw], axis=1)),
        "weights.onnx": graph(),
        # inspection hashes it and never opens it
        "weights.pt": b"TorchScript stands here",
    }


def good_rdf(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the description of a good package with these files."""

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    def axes(channels: Sequence[str], size: Callable[[str], Any], **more: Any) -> list[dict[str, Any]]:
        space = [{"type": "space", "id": axis, "size": size(axis), **more} for axis in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": list(channels)}, *space]

    return {
        "format_version": "0.5.9",
        "type": "model",
        "id": "nuclei-filters",
        "name": "Nuclei by filters",
        "description": "Probability of nuclei in each pixel.",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A. Author, 2026", "url": "https://example.org"}],
        "license": "CC-BY-4.0",
        "documentation": "README.md",
        "covers": ["cover.png"],
        "tags": ["2d"],
        "inputs": [
            {
                "id": "raw",
                "axes": axes(["intensity"], lambda axis: {"min": 64, "step": 16}),
                "data": {"type": "float32"},
                "test_tensor": file("test_raw.npy"),
            }
        ],
        "outputs": [
            {
                "id": "probabilities",
                "axes": axes(CLASSES, lambda axis: {"tensor_id": "raw", "axis_id": axis}, halo=16),
                "data": {"type": "float32"},
                "test_tensor": file("test_probabilities.npy"),
            }
        ],
        "weights": {
            "onnx": {**file("weights.onnx"), "opset_version": 17},
            "torchscript": {**file("weights.pt"), "parent": "onnx", "pytorch_version": "2.5.1"},
        },
        "config": {
            "bioimageio": {
                "nickname": "nuclei-filters",
                "reproducibility_tolerance": [{"mismatched_elements_per_million": 100}],
            },
            "forestbridge": {"format": 1, "kind": "fused"},
        },
    }


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(rdf: dict[str, Any]) -> bytes:
    """Return a description as YAML without anchors and aliases."""
    return yaml.dump(rdf, Dumper=_PlainDumper, sort_keys=False).encode()


def members(**more: bytes) -> dict[str, bytes]:
    """Return the files of a good package with its description."""
    files = {**good_files(), **more}
    return {"rdf.yaml": to_yaml(good_rdf(files)), **files}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a zip, in order, stored, with fixed dates."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def build(
    path: Path,
    change: Callable[[dict[str, Any]], Any] | None = None,
    *,
    files: Mapping[str, bytes | None] | None = None,
) -> Path:
    """Write a good package, or one that is spoiled.

    Parameters
    ----------
    change
        Spoils the description, in place, after the hashes of the files were put in.
    files
        Replaces or adds files; None leaves one out. With "rdf.yaml" `change` is not used.
    """
    content: dict[str, bytes | None] = {**good_files(), **(files or {})}
    present = {name: data for name, data in content.items() if data is not None}
    rdf = good_rdf({**good_files(), **present})
    if change is not None:
        change(rdf)
    if "rdf.yaml" not in content:
        present = {"rdf.yaml": to_yaml(rdf), **present}
    return write_zip(path, present)
