"""From the bytes of an ONNX file to the facts that decide who can run it; the graph is parsed, never executed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forestbridge.errors import PackageError

if TYPE_CHECKING:
    from forestbridge.archive.info import PackageInfo
    from forestbridge.archive.tensors import TensorInfo

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
"""Operators of these domains are arithmetic; others may be anything, and no other program has them."""

_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16"}


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output of a graph.

    Attributes
    ----------
    name
        In the graph.
    dtype
        As numpy names it; "sequence", "map" or the like for what is no tensor.
    shape
        A number for a fixed size, text or None for one that varies; None where not even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        sizes = "unknown shape" if self.shape is None else ", ".join("?" if s is None else str(s) for s in self.shape)
        return f"{self.name!r} ({sizes}) {self.dtype}"


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file asks of the program that runs it.

    Attributes
    ----------
    ir_version
        Of the file format.
    opsets
        Version per operator domain; the standard one is called "ai.onnx".
    inputs, outputs
        Of the graph; inputs without those that are constants.
    operators
        Names of all operators, sorted.
    producer
        Program that wrote it.
    """

    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    operators: tuple[str, ...]
    producer: str


def onnx_facts(data: bytes) -> OnnxFacts:
    """Parse an ONNX file without executing it.

    Raises
    ------
    PackageError
        If it is no ONNX, refers to data outside of the file, or has operators that are not standard ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise PackageError(
            f"expected an ONNX file, found {len(data)} bytes that are none ({error}); export the package again"
        ) from error
    if not model.opset_import or not model.graph.output:
        raise PackageError(
            f"expected an ONNX file with a graph, found {len(data)} bytes without outputs or opset; export the "
            "package again"
        )
    own = {function.domain for function in model.functions}
    operators: set[str] = set()
    for node in _nodes(model):
        if node.domain not in STANDARD_DOMAINS and not any(
            (f.domain, f.name) == (node.domain, node.op_type) for f in model.functions
        ):
            raise PackageError(
                f"expected ONNX operators of the domains ai.onnx and ai.onnx.ml, found {node.domain}::{node.op_type} "
                "(node "
                f"{node.name!r}); export it with standard operators"
            )
        operators.add(node.op_type)
    if standard := own & set(STANDARD_DOMAINS):
        raise PackageError(
            f"expected functions in a domain of their own, found some that replace operators of {sorted(standard)}; "
            "export it "
            "with standard operators"
        )
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}.get("location", "?")
            raise PackageError(
                f"expected all numbers inside of the ONNX file, found the tensor {tensor.name!r} in another file "
                f"({place}); "
                "save it as one file"
            )
    opsets: dict[str, int] = {}
    for entry in model.opset_import:  # some writers list a domain twice
        domain = entry.domain or "ai.onnx"
        opsets[domain] = max(opsets.get(domain, 0), entry.version)
    constants = {tensor.name for tensor in model.graph.initializer}
    return OnnxFacts(
        ir_version=model.ir_version,
        opsets=opsets,
        inputs=tuple(_facts_of(value) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_facts_of(value) for value in model.graph.output),
        operators=tuple(sorted(operators)),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
    )


def _graphs(model: Any) -> Iterator[Any]:
    """Yield the graph, the functions and all graphs inside of nodes."""
    # without recursion: how deep they nest is up to the file
    waiting = [model.graph, *model.functions]
    waiting += [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _nodes(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())  # functions have none
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        attributes = [a for node in graph.node for a in node.attribute] + list(getattr(graph, "attribute_proto", ()))
        for attribute in attributes:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *attribute.sparse_tensors,
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            ):
                yield from (sparse.values, sparse.indices)


def _facts_of(value: Any) -> OnnxTensor:
    import onnx

    kind = value.type.WhichOneof("value") or "unknown_type"
    if kind != "tensor_type":
        return OnnxTensor(value.name, kind.removesuffix("_type"), None)
    tensor = value.type.tensor_type
    known = tensor.elem_type in onnx.TensorProto.DataType.values()
    name = onnx.TensorProto.DataType.Name(tensor.elem_type) if known else "unknown"
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
            for d in tensor.shape.dim
        )
    return OnnxTensor(value.name, _DTYPES.get(name, name.lower()), shape)


def check_graph_against_rdf(info: "PackageInfo", facts: OnnxFacts) -> None:
    """Refuse a graph whose inputs and outputs are not those of rdf.yaml.

    Programs match them by position, not by name. Extra outputs at the end are not refused here: `consumer_report` says
    who
    cannot have them.

    Raises
    ------
    PackageError
        If their number, rank, dtype or a fixed size differs; the message shows both.
    """
    for side, described, found in (("inputs", info.inputs, facts.inputs), ("outputs", info.outputs, facts.outputs)):
        enough = len(found) == len(described) if side == "inputs" else len(found) >= len(described)
        if not enough or any(not _fits(tensor, value) for tensor, value in zip(described, found)):
            raise PackageError(
                f"{info.path}: expected an ONNX graph with the {side} of rdf.yaml: "
                f"{'; '.join(map(show_tensor, described))}; "
                f"found: {'; '.join(map(str, found)) or 'none'}; export the package again"
            )


def _fits(tensor: "TensorInfo", value: OnnxTensor) -> bool:
    if value.dtype != tensor.dtype:
        return False
    if value.shape is None:
        return True
    if len(value.shape) != len(tensor.axes):
        return False
    for axis, size in zip(tensor.axes, value.shape):
        if not isinstance(size, int) or (axis.type == "batch" and size == 1):
            continue  # many graphs are fixed to the one image that everybody sends
        if size != axis.size and (axis.size is not None or axis.min is not None):
            return False
    return True


def show_tensor(tensor: "TensorInfo") -> str:
    """Return a tensor of rdf.yaml in a line: ``'raw' (batch, channel=1, y>=64, x>=64) float32``."""
    sizes = []
    for axis in tensor.axes:
        if axis.size is not None:
            sizes.append(f"{axis.id}={axis.size}")
        else:
            sizes.append(axis.id if axis.min is None else f"{axis.id}>={axis.min}")
    return f"{tensor.id!r} ({', '.join(sizes)}) {tensor.dtype}"
