"""A small builder of ONNX graphs: nodes and constants in, one file out. The same calls give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from forestbridge.files import new_file

OPSET = 17
"""The newest that the ONNX Runtime of deepImageJ (1.12, 1.13) knows."""
ML_OPSET = 3
IR_VERSION = 8
ML_DOMAIN = "ai.onnx.ml"

Shape = Sequence[int | str]
"""Fixed sizes as numbers, varying ones as names."""


class GraphBuilder:
    """Collects the nodes of one graph; values are named by their node, in the order of the calls."""

    def __init__(self, name: str, *, prefix: str = "") -> None:
        self.name = name
        self._prefix = prefix  # keeps the names of a loop's body apart from those around it
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[TensorProto] = []

    def input(self, name: str, shape: Shape, *, dtype: int = TensorProto.FLOAT) -> str:
        """Declare an input, float32 by default; return its name."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def include(self, graph: onnx.GraphProto, *, prefix: str = "") -> None:
        """Take the nodes and constants of another graph, whose inputs, with the prefix, have the names of values here.

        Parameters
        ----------
        prefix
            Set before all names of the graph, which is changed, to keep them apart from those of others.
        """
        if prefix:
            _set_prefix(graph, prefix)
        self._nodes.extend(graph.node)
        self._initializers.extend(graph.initializer)

    def constant(self, values: NDArray) -> str:
        """Return the name of a constant; equal arrays are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"{self._prefix}constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return self._constants[key]

    def node(self, operator: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node of one output; return the output's name."""
        return self.nodes(operator, *inputs, outputs=[output or self._next(operator)], domain=domain, **attributes)[0]

    def nodes(
        self, operator: str, *inputs: str, outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs; return their names."""
        name = self._next(operator)
        self._nodes.append(helper.make_node(operator, list(inputs), list(outputs), name, domain=domain, **attributes))
        return list(outputs)

    def output(self, name: str, shape: Shape, *, dtype: int = TensorProto.FLOAT) -> None:
        """Declare an output, float32 by default."""
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def _next(self, operator: str) -> str:
        return f"{self._prefix}{operator}_{len(self._nodes)}"

    def graph(self) -> onnx.GraphProto:
        """Return the graph alone: the body of a loop."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._initializers)

    def model(self) -> onnx.ModelProto:
        """Return the checked model."""
        opsets = [helper.make_opsetid("", OPSET)]
        if any(_uses_trees(node) for node in self._nodes):
            opsets.append(helper.make_opsetid(ML_DOMAIN, ML_OPSET))
        model = helper.make_model(
            self.graph(), ir_version=IR_VERSION, opset_imports=opsets, producer_name="forestbridge"
        )
        onnx.checker.check_model(model)
        return model

    def write(self, path: str | Path) -> Path:
        """Write the model into one file.

        Raises
        ------
        OutputExistsError, ResourceError
            If the path exists, or its folder cannot be written.
        """
        with new_file(path) as temporary:
            temporary.write_bytes(self.model().SerializeToString(deterministic=True))
        return Path(path)


def _set_prefix(graph: onnx.GraphProto, prefix: str) -> None:
    """Set a prefix before every name of a graph and of the graphs in it, whose names may be those of values around them.

    `onnx.compose.add_prefix_graph` leaves out the constants that branches take from around them.
    """
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        named.name = prefix + named.name
    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [prefix + name if name else "" for name in node.input]
        node.output[:] = [prefix + name if name else "" for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _set_prefix(inner, prefix)


def _uses_trees(node: onnx.NodeProto) -> bool:
    bodies = [inner for attribute in node.attribute if attribute.HasField("g") for inner in attribute.g.node]
    return node.domain == ML_DOMAIN or any(_uses_trees(inner) for inner in bodies)
