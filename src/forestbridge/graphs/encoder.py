"""A network from raw intensities to feature maps as an ONNX graph of one fixed tile: opset 17, IR 8, one file."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import onnx
from numpy.typing import NDArray

from forestbridge.archive import onnx_session
from forestbridge.encoders.package import PackageEncoder
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.errors import MissingExtraError, ResourceError
from forestbridge.graphs.builder import IR_VERSION, OPSET, GraphBuilder
from forestbridge.graphs.deviation import Deviation
from forestbridge.graphs.embedded import embedded_graph
from forestbridge.spec import EncoderSpec

if TYPE_CHECKING:
    from torch import nn

MapsRunner = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Runs a graph: (1, C, T, T) in, one (1, F, t, t) per map out."""

MOST_BYTES = 2**31 - 2**24
"""What protobuf can hold in one file, with room for the graph."""


class NetworkEncoder(Protocol):
    """What a deep encoder offers for export."""

    @property
    def spec(self) -> EncoderSpec:
        """Everything that decides the values; with a tile."""
        ...

    @property
    def module(self) -> "nn.Module":
        """From (N, C, T, T) raw intensities to one (N, F, t, t) float32 map per map of the spec; T = core + 2·halo."""
        ...


GraphEncoder = NetworkEncoder | PackageEncoder
"""What goes into an ONNX graph of a fixed tile: a module of torch, which is exported, or a package, whose graph is taken over."""


@runtime_checkable
class FixedPositions(Protocol):
    """A network that resizes what it has learnt of positions to the picture at hand."""

    def positions_for(self, height: int, width: int) -> AbstractContextManager[None]:
        """Hold them ready for a picture of so many pixels; what the network answers stays the same."""
        ...


def tile_sides(spec: EncoderSpec) -> tuple[int, ...]:
    """Return the size of a tile with its halo, per axis.

    Raises
    ------
    ValueError
        If the spec has no tile, or is of FeatureForest's way.
    """
    if spec.tile is None:
        raise ValueError(f"expected an encoder of a fixed tile, found {spec}; export it as a filter bank")
    require_bilinear(spec, "a graph")
    return tuple(core + 2 * halo for core, halo in zip(spec.tile, spec.halo, strict=True))


def cell_counts(spec: EncoderSpec) -> list[tuple[int, ...]]:
    """Return the rows and columns of each map of a whole tile."""
    return [tuple(m.n_cells(side) for side in tile_sides(spec)) for m in spec.maps]


def export_encoder_onnx(
    encoder: GraphEncoder, path: str | Path, *, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write an encoder; input ``raw`` (1, C, T, T), one output (1, F, t, t) per map, called after it.

    Where the spec stores float16, the maps are rounded to it in the graph: forests are trained on stored values.

    Parameters
    ----------
    image
        (C, T, T) float32 raw intensities to measure the deviation on; by default noise in the spec's range.

    Returns
    -------
    deviation
        From the network in torch.

    Raises
    ------
    ResourceError
        If the weights are larger than one ONNX file can be, or the path's folder cannot be written.
    ValueError
        If a map overflows the stored dtype.
    OutputExistsError
        If the path exists.
    """
    spec, sides = encoder.spec, tile_sides(encoder.spec)
    graph = GraphBuilder("encoder")
    graph.input("raw", (1, spec.channels, *sides))
    graph.include(network_graph(encoder))
    for m, cells in zip(spec.maps, cell_counts(spec), strict=True):
        graph.node("Identity", internal_name(m.name), output=m.name)
        graph.output(m.name, (1, len(m.channels), *cells))
    graph.write(path)
    session = onnx_session(Path(path).read_bytes())
    return measure_encoder(encoder, lambda raw: [np.asarray(a) for a in session.run(None, {"raw": raw})], image=image)


def measure_encoder(encoder: GraphEncoder, run: MapsRunner, *, image: NDArray[np.float32] | None) -> Deviation:
    """Compare a graph with the network in torch, as a share of the largest value of each map."""
    raw = noise_tile(encoder.spec) if image is None else image
    expected = stored_maps(encoder, raw)
    found = run(raw[None])
    shares = [
        float(np.abs(a[0].astype(np.float64) - b).max() / max(float(np.abs(b).max()), 1e-30))
        for a, b in zip(found, expected, strict=True)
    ]
    return Deviation(max(shares), 0, sum(b[0].size for b in expected))


def stored_maps(encoder: GraphEncoder, raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Return the maps of a whole tile as they are stored, computed by the network in torch.

    Parameters
    ----------
    raw
        (C, T, T) float32.

    Raises
    ------
    ValueError
        If a value is not finite in the stored dtype.
    """
    found = []
    for m, values in zip(encoder.spec.maps, _exact_maps(encoder, raw), strict=True):
        with np.errstate(over="ignore"):
            stored = values.astype(encoder.spec.dtype).astype(np.float32)
        if bad := int(np.count_nonzero(~np.isfinite(stored))):
            raise ValueError(
                f"expected features that {encoder.spec.dtype} can hold, found {bad} values of map {m.name!r} that are not; "
                "check the image, or use another encoder"
            )
        found.append(stored)
    return tuple(found)


def _exact_maps(encoder: GraphEncoder, raw: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    """Return the (F, t, t) maps of a whole tile (C, T, T) before they are rounded."""
    if isinstance(encoder, PackageEncoder):
        return encoder.whole_maps(raw)
    import torch

    with torch.inference_mode():
        maps = encoder.module(torch.from_numpy(np.ascontiguousarray(raw))[None].to(_device_of(encoder.module)))
    return [values[0].float().cpu().numpy() for values in maps]


def noise_tile(spec: EncoderSpec) -> NDArray[np.float32]:
    """Return (C, T, T) float32 noise in the range of the spec's intensities; always the same."""
    return noise_in(spec, tile_sides(spec))


def noise_in(spec: EncoderSpec, sides: Sequence[int]) -> NDArray[np.float32]:
    """Return such noise (C, *sides)."""
    low, high = (np.array(spec.intensity.get(key, [end])).ravel() for key, end in (("low", 0.0), ("high", 255.0)))
    noise = np.random.default_rng(0).random((spec.channels, *sides))
    return (low.reshape(-1, 1, 1) + noise * (high - low).reshape(-1, 1, 1)).astype(np.float32)


def internal_name(map_name: str) -> str:
    """Return how a map is called inside of the graph."""
    return f"map:{map_name}"


def network_graph(encoder: GraphEncoder) -> onnx.GraphProto:
    """Return the nodes and weights of an encoder: from "raw" to each map under its `internal_name`.

    Raises
    ------
    ResourceError
        If the weights are larger than one ONNX file can be, or the exporter gave another opset or IR than asked for.
    MissingExtraError
        If torch is not installed.
    """
    require_one_file(encoder)
    names = [internal_name(m.name) for m in encoder.spec.maps]
    if isinstance(encoder, PackageEncoder):
        return embedded_graph(encoder, names)
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("exporting a deep encoder", "torch") from error
    from forestbridge.graphs.torchscript import tracing_without_warnings  # that module imports this one

    exact = [f"exact:{m.name}" for m in encoder.spec.maps] if encoder.spec.dtype == "float16" else names
    buffer = io.BytesIO()
    with warnings.catch_warnings(), tracing_without_warnings(), fixed_positions(encoder):
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)  # parts of that export
        torch.onnx.export(
            encoder.module.eval(),
            (torch.from_numpy(noise_tile(encoder.spec))[None].to(_device_of(encoder.module)),),
            buffer,  # pyright: ignore[reportArgumentType]
            dynamo=False,
            opset_version=OPSET,
            input_names=["raw"],
            output_names=exact,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    require_versions({entry.domain: entry.version for entry in model.opset_import}, model.ir_version)
    _strip(model.graph.node)
    if exact != names:
        shapes = [(1, len(m.channels), *c) for m, c in zip(encoder.spec.maps, cell_counts(encoder.spec), strict=True)]
        for source, target, shape in zip(exact, names, shapes, strict=True):
            _add_rounding(model.graph, source, target, shape)
    return model.graph


@contextmanager
def fixed_positions(encoder: NetworkEncoder) -> Iterator[None]:
    """Let a transformer that is traced hold the positions of one tile, in place of resizing those that it was trained with."""
    height, width = encoder.spec.input_size or tile_sides(encoder.spec)
    with ExitStack() as stack:
        for part in encoder.module.modules():
            if isinstance(part, FixedPositions):
                stack.enter_context(part.positions_for(height, width))
        yield


def _add_rounding(graph: onnx.GraphProto, source: str, target: str, shape: tuple[int, ...]) -> None:
    """Round a map to float16. Between the casts stands a reshape: onnxruntime 1.13 takes away two casts in a row, and the rounding."""
    half, same, sizes = f"{target}:half", f"{target}:same", f"{target}:shape"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), sizes))
    graph.node.extend(
        [
            onnx.helper.make_node("Cast", [source], [half], half, to=onnx.TensorProto.FLOAT16),
            onnx.helper.make_node("Reshape", [half, sizes], [same], same),
            onnx.helper.make_node("Cast", [same], [target], f"{target}:float", to=onnx.TensorProto.FLOAT),
        ]
    )


def require_versions(opsets: dict[str, int], ir_version: int) -> None:
    """Refuse a graph that other programs cannot read: exporters do not always give the opset that they are asked for.

    Raises
    ------
    ResourceError
        With what was found.
    """
    if opsets.get("") != OPSET or ir_version > IR_VERSION or set(opsets) - {""}:
        raise ResourceError(
            f"expected PyTorch to export opset {OPSET} and IR version {IR_VERSION}, found {opsets} and IR version {ir_version}; "
            "install the PyTorch that forestbridge was tested with"
        )


def require_one_file(*encoders: GraphEncoder) -> None:
    """Refuse networks that do not fit into one ONNX file together.

    Raises
    ------
    ResourceError
        If so.
    """
    if (size := sum(map(weights_bytes, encoders))) > MOST_BYTES:
        names = " and ".join(encoder.spec.name for encoder in encoders)
        raise ResourceError(
            f"expected weights of less than 2 GiB for a package, found {size / 2**30:.1f} GiB for {names}; train on a "
            "smaller encoder, such as sam2_base, or predict with the .forest file, which needs no package"
        )


def weights_bytes(encoder: GraphEncoder) -> int:
    """Return the size of a network's weights, which each format of a package holds once."""
    if isinstance(encoder, PackageEncoder):
        weights = encoder.graph.info.weights_of("onnx")
        return (weights and weights.bytes) or 0
    tensors = [*encoder.module.parameters(), *encoder.module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _device_of(module: "nn.Module"):
    import torch

    return next((t.device for t in module.state_dict().values()), torch.device("cpu"))


def _strip(nodes: Sequence[onnx.NodeProto]) -> None:
    """Remove the texts that name source files with their folders."""
    for node in nodes:
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g.node)
