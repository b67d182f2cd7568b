"""A deep encoder and its forest in one ONNX graph: raw intensities (1, C, T, T) in, class probabilities (1, K, T, T) out.

    network ── rounding ── used channels ──▶ Loop over strips of rows: interpolate, classify ──▶ probabilities

The features of all pixels are never in memory together: at 768 features and a tile of 1024 they would take 3 GB, several times.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from forestbridge.engine import MapPart, predict_block
from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.graphs.builder import GraphBuilder
from forestbridge.graphs.deviation import Deviation, Runner, compare_probabilities, onnx_runner
from forestbridge.graphs.encoder import (
    GraphEncoder,
    cell_counts,
    internal_name,
    network_graph,
    noise_tile,
    stored_maps,
    tile_sides,
)
from forestbridge.graphs.forest import add_trees
from forestbridge.graphs.strips import Lines, MapLines, used_maps
from forestbridge.spec import require_same_spec

STRIP = 16384
"""Pixels at a time, at most."""


def export_deep_fused_onnx(
    forest: PixelForest, path: str | Path, *, encoder: GraphEncoder, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write a forest together with its deep encoder; input ``raw``, output ``probabilities``, of one fixed tile.

    Parameters
    ----------
    encoder
        The forest's.
    image
        (C, T, T) float32 raw intensities to measure the deviation on; by default noise.

    Returns
    -------
    deviation
        From the network in torch and the engine.

    Raises
    ------
    ForestError, SpecMismatchError
        If the forest was not trained on this encoder.
    ResourceError
        If the weights are larger than one ONNX file can be.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    require_own_encoder(forest, encoder)
    spec, sides = encoder.spec, tile_sides(encoder.spec)
    lines, pruned = used_maps(forest, spec)
    graph = GraphBuilder("fused", prefix="pixels/")
    raw_shape = (1, spec.channels, *sides)
    graph.input("raw", raw_shape)
    graph.include(network_graph(encoder))
    maps = [_used_cells(graph, internal_name(spec.maps[line.index].name), line) for line in lines]
    rows = max(n for n in range(1, sides[0] + 1) if sides[0] % n == 0 and n * sides[1] <= max(STRIP, sides[1]))
    body = _strip_body(lines, maps, pruned, rows=rows, width=sides[1])
    count = graph.constant(np.asarray(sides[0] // rows, np.int64))
    sums = graph.node("Loop", count, "", body=body.graph())  # (strips, rows, T, K)
    mean = graph.node("Div", sums, graph.constant(np.array([forest.n_trees], np.float32)))
    zero, one = graph.constant(np.asarray(0, np.float32)), graph.constant(np.asarray(1, np.float32))
    clipped = graph.node("Clip", mean, zero, one)
    picture = graph.node("Reshape", clipped, graph.constant(np.array([1, *sides, forest.n_classes])))
    graph.node("Transpose", picture, perm=[0, 3, 1, 2], output="probabilities")
    graph.output("probabilities", (1, forest.n_classes, *sides))
    graph.write(path)
    return measure_deep_fused(forest, encoder, onnx_runner(path), image=image)


def measure_deep_fused(
    forest: PixelForest, encoder: GraphEncoder, run: Runner, *, image: NDArray[np.float32] | None
) -> Deviation:
    """Compare a fused graph with the network in torch and the engine, on one tile."""
    raw = noise_tile(encoder.spec) if image is None else image
    return compare_probabilities(run(raw[None])[0], tile_probabilities(forest, encoder, raw))


def tile_probabilities(forest: PixelForest, encoder: GraphEncoder, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (K, T, T) probabilities of a whole tile (C, T, T), its halo included, from the engine."""
    sides = tile_sides(encoder.spec)
    parts = [
        MapPart(values, (m.stride, m.stride), (m.offset, m.offset), (cells[0], cells[1]))
        for m, values, cells in zip(
            encoder.spec.maps, stored_maps(encoder, raw), cell_counts(encoder.spec), strict=True
        )
    ]
    result = np.empty((forest.n_classes, *sides), np.float32)
    predict_block(forest, parts, (slice(0, sides[0]), slice(0, sides[1])), result)
    return result


def require_own_encoder(forest: PixelForest, encoder: GraphEncoder) -> None:
    """Refuse a forest that was trained on something else.

    Raises
    ------
    ForestError, SpecMismatchError
        If so.
    """
    if forest.spec is None:
        raise ForestError(
            "expected a forest with the spec of its features, found one without; train it with forestbridge"
        )
    require_same_spec(
        forest.spec, encoder.spec, expected_by="the forest", found_in="the encoder", remedy="open the forest's encoder"
    )


def _used_cells(graph: GraphBuilder, name: str, line: MapLines) -> str:
    """Add the used channels of a map, channels last: (t, t, F)."""
    last = graph.node("Transpose", name, perm=[0, 2, 3, 1])  # (1, t, t, F)
    plain = graph.node("Squeeze", last, graph.constant(np.array([0])))
    return graph.node("Gather", plain, graph.constant(line.channels), axis=2)


def _strip_body(lines: list[MapLines], maps: list[str], forest: PixelForest, *, rows: int, width: int) -> GraphBuilder:
    """Return the body of the loop: the sums of leaf fractions (rows, T, K) of one strip."""
    body = GraphBuilder("strip", prefix="strip/")
    number = body.input("strip/number", (), dtype=TensorProto.INT64)
    body.input("strip/go_on", (), dtype=TensorProto.BOOL)
    row_numbers = body.constant(np.arange(rows))
    pixel_rows = body.node("Add", body.node("Mul", number, body.constant(np.asarray(rows))), row_numbers)  # (rows,)
    features = []
    for line, cells in zip(lines, maps, strict=True):
        own = Lines(*(body.node("Gather", body.constant(values), pixel_rows, axis=0) for values in line.rows))  # type: ignore[arg-type]
        across = Lines(*(body.constant(values) for values in line.columns))  # type: ignore[arg-type]
        between = _blend(body, cells, own, axis=0, shape=[rows, 1, 1])  # (rows, t, F)
        features.append(_blend(body, between, across, axis=1, shape=[1, width, 1]))  # (rows, T, F)
    joined = body.node("Concat", *features, axis=2)
    flat = body.node("Reshape", joined, body.constant(np.array([rows * width, forest.n_features])))
    sums = add_trees(body, flat, forest)
    result = body.node("Reshape", sums, body.constant(np.array([rows, width, forest.n_classes])))
    body.node("Identity", "strip/go_on", output="strip/go_on_again")
    body.output("strip/go_on_again", (), dtype=TensorProto.BOOL)
    body.output(result, (rows, width, forest.n_classes))
    return body


def _blend(body: GraphBuilder, cells: str, lines: Lines, *, axis: int, shape: list[int]) -> str:
    """Add (1 - weight)·cells[first] + weight·cells[second] along an axis, as the engine computes it."""
    first, second, weight = map(str, lines)
    factor = body.node("Reshape", weight, body.constant(np.array(shape)))
    rest = body.node("Sub", body.constant(np.asarray(1, np.float32)), factor)
    a = body.node("Mul", body.node("Gather", cells, first, axis=axis), rest)
    b = body.node("Mul", body.node("Gather", cells, second, axis=axis), factor)
    return body.node("Add", a, b)
