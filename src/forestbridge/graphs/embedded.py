"""The ONNX graph of a package inside of a graph of ours: its nodes under names of their own, in our opset, and its steps as nodes.

raw (1, C, T, T) ── steps ── axes of its input ── its nodes ── axes b c y x ── steps after the model ──▶ maps (1, F, t, t)
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from forestbridge.archive import read_member
from forestbridge.archive.onnx_graph import onnx_facts
from forestbridge.encoders.package import PackageEncoder
from forestbridge.encoders.package_steps import LARGEST_WHOLE, Step
from forestbridge.errors import PackageError
from forestbridge.graphs.builder import OPSET, GraphBuilder

PREFIX = "network/"
"""Before every name of the package's graph."""


def embedded_graph(encoder: PackageEncoder, names: Sequence[str]) -> onnx.GraphProto:
    """Return the nodes and weights of a package as an encoder: from "raw" to each of its maps.

    Parameters
    ----------
    names
        What the maps are called, in the order of the spec.

    Raises
    ------
    PackageError
        If the graph has other operators than those of ONNX, or cannot be brought to our opset.
    """
    info = encoder.graph.info
    weights = info.weights_of("onnx")
    assert weights is not None
    data = read_member(info, weights.source)
    facts = onnx_facts(data)
    own = _own_nodes(data, f"{info.path}: {weights.source}")
    graph = GraphBuilder("network", prefix="steps/")
    pixels, dtype = _add_steps(graph, "raw", encoder.steps, "float32")
    if absent := [axis for axis, letter in enumerate("bc") if letter not in encoder.graph.axes]:
        pixels = graph.node("Squeeze", pixels, graph.constant(np.array(absent)))
    letters = "".join(letter for letter in "bcyx" if letter in encoder.graph.axes)
    turned = graph.node("Transpose", pixels, perm=[letters.index(letter) for letter in encoder.graph.axes])
    last = _add_cast(graph, turned, dtype, encoder.graph.dtype)
    graph.node("Identity", last, output=PREFIX + facts.inputs[0].name)
    graph.include(own)
    for name, (n, axes), steps in zip(names, encoder.graph.places, encoder.graph.after, strict=True):
        values, axes = PREFIX + facts.outputs[n].name, axes
        for letter in "bc":
            if letter not in axes:
                values, axes = graph.node("Unsqueeze", values, graph.constant(np.array([0]))), letter + axes
        turned = graph.node("Transpose", values, perm=[axes.index(letter) for letter in "bcyx"])  # (1, F, t, t)
        plain = graph.node("Cast", turned, to=_code("float32"))
        done, dtype = _add_steps(graph, plain, steps, "float32")
        graph.node("Cast", done, to=_code("float32"), output=name)
    return graph.graph()


def _own_nodes(data: bytes, source: str) -> onnx.GraphProto:
    """Return a package's graph in our opset, every name with `PREFIX`.

    Raises
    ------
    PackageError
        If that cannot be.
    """
    import onnx.compose
    import onnx.inliner
    import onnx.version_converter

    model = onnx.load_model_from_string(data)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    version = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
    remedy = "predict with the .forest file and --weights, which need no other opset"
    others = sorted({domain for domain in _domains(model.graph) if domain not in ("", "ai.onnx")})
    if others or model.graph.sparse_initializer:
        found = ", ".join(others) or "sparse weights"
        raise PackageError(
            f"{source}: expected operators of ONNX alone and dense weights, to travel in a package, found {found}; {remedy}"
        )
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("doc_string")
    _strip(model.graph)
    try:
        if version != OPSET:
            model = onnx.version_converter.convert_version(model, OPSET)
        named = onnx.compose.add_prefix_graph(model.graph, PREFIX)
        whole = helper.make_model(named, ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)])
        onnx.checker.check_model(whole)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise PackageError(
            f"{source}: expected a graph that can be brought to ONNX opset {OPSET}, which other programs run, found opset {version} and: "
            f"{str(error).strip()[:200]}; export the model with opset {OPSET}, or {remedy}"
        ) from error
    return named


def _domains(graph: onnx.GraphProto) -> set[str]:
    """Return the domains of all nodes, those inside of nodes too."""
    found: set[str] = set()
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            found.add(node.domain)
            waiting.extend(a.g for a in node.attribute if a.HasField("g"))
            waiting.extend(g for a in node.attribute for g in a.graphs)
    return found


def _strip(graph: onnx.GraphProto) -> None:
    """Remove the texts of nodes, which name source files of whoever exported the graph."""
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            node.ClearField("doc_string")
            waiting.extend(a.g for a in node.attribute if a.HasField("g"))


def _add_steps(graph: GraphBuilder, x: str, steps: Sequence[Step], dtype: str) -> tuple[str, str]:
    """Add frozen steps on (1, C, y, x) values of a dtype, as `apply_steps` computes them; return the result and its dtype."""
    for step in steps:
        match step["step"]:
            case "ensure_dtype":
                x, dtype = _add_cast(graph, x, dtype, step["dtype"]), step["dtype"]
                continue
            case "clip":
                wide = dtype if np.dtype(dtype).kind == "f" else "float64"
                ends = (
                    "" if step.get(k) is None else graph.constant(np.asarray(step[k], wide)) for k in ("min", "max")
                )
                x, dtype = graph.node("Clip", _add_cast(graph, x, dtype, wide), *ends), wide
                continue
        wide = str(np.result_type(dtype, np.float32))
        x = _add_cast(graph, x, dtype, wide)
        match step["step"]:
            case "binarize":
                x = graph.node("Greater", x, _column(graph, step["threshold"], wide))
            case "fixed_zero_mean_unit_variance":
                span = np.asarray(step["std"], np.float32) + np.float32(step["eps"])
                x = graph.node("Sub", x, _column(graph, step["mean"], wide))
                x = graph.node("Div", x, _column(graph, span, wide))
            case "scale_linear":
                x = graph.node("Mul", x, _column(graph, step["gain"], wide))
                x = graph.node("Add", x, _column(graph, step["offset"], wide))
            case "sigmoid":
                half, one = (graph.constant(np.asarray(v, wide)) for v in (0.5, 1))
                x = graph.node("Tanh", graph.node("Mul", half, x))
                x = graph.node("Mul", half, graph.node("Add", one, x))
        x, dtype = graph.node("Cast", x, to=_code("float32")), "float32"
    return x, dtype


def _add_cast(graph: GraphBuilder, x: str, dtype: str, to: str) -> str:
    """Add what `forestbridge.encoders.package_steps.cast` does: whole numbers are cut at their dtype's ends."""
    if dtype == to:
        return x
    if np.dtype(to).kind in "iu":
        ends = np.iinfo(to)
        low, high = max(float(ends.min), -LARGEST_WHOLE), min(float(ends.max), LARGEST_WHOLE)
        x = graph.node("Cast", x, to=_code("float64"))
        x = graph.node("Clip", x, graph.constant(np.asarray(low)), graph.constant(np.asarray(high)))
    return graph.node("Cast", x, to=_code(to))


def _column(graph: GraphBuilder, values: Sequence[float] | NDArray, dtype: str) -> str:
    """Add constants of channels, float32 as `apply_steps` has them, shaped for (1, C, y, x)."""
    return graph.constant(np.asarray(values, np.float32).astype(dtype).reshape(1, -1, 1, 1))


def _code(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
