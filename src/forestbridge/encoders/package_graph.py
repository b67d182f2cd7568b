"""The graph of a bioimage.io package between planes and maps, whatever the order of its axes; packages that have none are refused."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import (
    AxisInfo,
    PackageInfo,
    TensorInfo,
    check_graph_against_rdf,
    inspect_package,
    onnx_session,
    read_member,
    require_trust,
    run_session,
)
from forestbridge.encoders.package_steps import apply_steps, cast, read_steps
from forestbridge.errors import PackageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_log = logging.getLogger(__name__)


class PackageGraph:
    """The ONNX session of a package, between planes of (C, y, x) and maps of (F, y, x), whatever the order of its axes.

    Attributes
    ----------
    info, sha256
        Of the package, and of its ONNX weights.
    axes, channels, dtype
        Of its input: axes as letters of b, c, y, x; what the graph is fed.
    maps, places, after
        Its outputs that are maps; number among the graph's outputs and axes of each; the steps after the model of each.
    """

    def __init__(self, info: PackageInfo, *, device: str = "cpu", threads: int | None = None) -> None:
        self.info = info
        if len(info.inputs) != 1:
            raise refused(info, f"{len(info.inputs)} inputs")
        [self._input] = info.inputs
        self.axes = _letters(info, self._input, needed="yx")
        sizes = [a for a in self._input.axes if a.type == "channel"]
        self.channels = (sizes[0].size or len(sizes[0].channel_names) or 1) if sizes else 1
        maps = [n for n, tensor in enumerate(info.outputs) if {"y", "x"} <= {axis.id for axis in tensor.axes}]
        if not maps:
            raise refused(info, f"outputs {'; '.join(_shown(t) for t in info.outputs)}, of which none is a map")
        if left := [info.outputs[n].id for n in range(len(info.outputs)) if n not in maps]:
            _log.warning("%s: the outputs %s are no maps and are left out", info.path, ", ".join(left))
        self.maps = [info.outputs[n] for n in maps]
        self.places = [(n, _letters(info, info.outputs[n], needed="yx")) for n in maps]
        self.after = [read_steps(info, tensor, after=True) for tensor in self.maps]
        weights = info.weights_of("onnx")
        assert weights is not None and weights.sha256 is not None and info.onnx is not None
        self.dtype = info.onnx.inputs[0].dtype
        self.sha256 = weights.sha256
        self._session: InferenceSession = onnx_session(
            read_member(info, weights.source), device=device, threads=threads, arena=False
        )

    @property
    def space(self) -> list[AxisInfo]:
        """The input's axes y and x."""
        return [next(a for a in self._input.axes if a.id == letter) for letter in "yx"]

    def facts(self) -> dict[str, Any]:
        """Return what, besides the weights, decides the values: axes, dtype and steps; and the package's name."""
        return {
            "package": self.info.id or self.info.name,
            "axes": self.axes,
            "dtype": self.dtype,
            "maps": [[tensor.id, axes] for tensor, (_, axes) in zip(self.maps, self.places, strict=True)],
            "postprocessing": self.after,
        }

    def __call__(self, pixels: NDArray) -> list[NDArray]:
        """Return one (F, y, x) float32 array per map of a (C, y, x) input after its steps."""
        kept = {"b": pixels[None], "c": pixels}["b" if "b" in self.axes else "c"]  # (1, C, y, x) or (C, y, x)
        letters = "bcyx" if "b" in self.axes else "cyx"
        if "c" not in self.axes:
            kept, letters = kept.squeeze(letters.index("c")), letters.replace("c", "")
        fed = np.ascontiguousarray(kept.transpose([letters.index(a) for a in self.axes]))
        results = run_session(self._session, [cast(fed, self.dtype)])
        return [
            apply_steps(steps, self._as_map(results[n], axes)).astype(np.float32, copy=False)
            for (n, axes), steps in zip(self.places, self.after, strict=True)
        ]

    def _as_map(self, values: NDArray, axes: str) -> NDArray[np.float32]:
        """Return a result as (F, y, x) float32."""
        if values.ndim != len(axes) or ("b" in axes and values.shape[axes.index("b")] != 1):
            raise PackageError(
                f"{self.info.path}: expected an output with the axes {axes} for one picture, found the shape {values.shape}; the graph "
                "does not do what rdf.yaml says"
            )
        for letter in "bc":
            if letter not in axes:
                values, axes = values[None], letter + axes
        return values.transpose([axes.index(letter) for letter in "bcyx"])[0].astype(np.float32)


def inspect_encoder(path: str | Path, trust: str | None) -> PackageInfo:
    """Return what a package is, if its ONNX weights can run."""
    info = inspect_package(path)
    require_trust(info, trust, weights="onnx")
    weights = info.weights_of("onnx")
    if weights is None or weights.sha256 is None:
        found = ", ".join(w.format if w.bytes is not None else f"{w.format} at {w.source}" for w in info.weights)
        raise PackageError(
            f"{info.path}: expected ONNX weights in the zip, found {found or 'none'}; export the model as ONNX (--formats onnx)"
        )
    if info.kind in ("fused", "forest"):
        raise PackageError(
            f"{info.path}: expected a package from an image to feature maps, found one of kind {info.kind!r} by forestbridge; its results "
            "are classes: run it with forestbridge predict --package"
        )
    if info.onnx is not None:
        check_graph_against_rdf(_as_fed(info, [given.dtype for given in info.onnx.inputs]), info.onnx)
    return info


def _as_fed(info: PackageInfo, dtypes: Sequence[str]) -> PackageInfo:
    """Return a package whose inputs have the dtypes of the graph where its steps end in these; format 0.4 ends in float32."""
    inputs = []
    for tensor, entry, dtype in zip(info.inputs, info.rdf["inputs"], dtypes):
        steps = [step.get("kwargs") for step in entry.get("preprocessing") or [] if step.get("id") == "ensure_dtype"]
        last = {"dtype": "float32"} if info.format_version.startswith("0.4.") else steps[-1] if steps else None
        fits = isinstance(last, dict) and last.get("dtype") == dtype
        inputs.append(replace(tensor, dtype=dtype) if fits else tensor)
    return replace(info, inputs=tuple(inputs)) if len(inputs) == len(info.inputs) else info


def refused(info: PackageInfo, found: str) -> PackageError:
    return PackageError(
        f"{info.path}: expected a model from one 2D image (axes y, x, and perhaps batch and channel) to maps with y and x, found {found}; "
        "such a model is no encoder"
    )


def _letters(info: PackageInfo, tensor: TensorInfo, *, needed: str) -> str:
    """Return the axes of a tensor as letters of b, c, y, x."""
    letters = ""
    for axis in tensor.axes:
        letter = {"batch": "b", "channel": "c"}.get(axis.type, axis.id)
        if letter == "z":
            raise refused(info, f"an axis z in {tensor.id!r}; 3D models are not run as encoders yet")
        if letter not in ("b", "c", "y", "x"):
            raise refused(info, f"the axis {axis.id} in {tensor.id!r}")
        letters += letter
    if not set(needed) <= set(letters):
        raise refused(info, f"{_shown(tensor)} without {' or '.join(needed)}")
    return letters


def _shown(tensor: TensorInfo) -> str:
    return f"{tensor.id!r} ({', '.join(axis.id for axis in tensor.axes)})"
