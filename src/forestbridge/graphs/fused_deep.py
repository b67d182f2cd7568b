"""An encoder of fixed tiles and its forest in one ONNX graph: raw intensities (1, C, T, T) in, class probabilities (1, K, T, T) out.

    network ── rounding ── used channels ──▶ Loop over strips of rows: interpolate, classify ──▶ probabilities
    filter bank ────────── used channels ──▶

The features of all pixels are never in memory together: at 768 features and a tile of 1024 they would take 3 GB, several times.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from forestbridge.encoders.filters import FilterBank
from forestbridge.encoders.fixed_tiles import package_sides
from forestbridge.engine import predict_block
from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.graphs.builder import GraphBuilder
from forestbridge.graphs.deviation import Deviation, Runner, compare_probabilities, onnx_runner
from forestbridge.graphs.encoder import internal_name, network_graph, require_one_file
from forestbridge.graphs.filters import add_filters
from forestbridge.graphs.forest import add_trees
from forestbridge.graphs.parts import TileEncoder, TilePart, map_parts, networks_of, noise_raw, tile_parts
from forestbridge.graphs.strips import Lines, MapLines, used_maps
from forestbridge.prune import used_filters
from forestbridge.spec import require_same_spec

STRIP = 16384
"""Pixels at a time, at most."""


def export_deep_fused_onnx(
    forest: PixelForest, path: str | Path, *, encoder: TileEncoder, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write a forest together with its deep encoder, or a combination; input ``raw``, output ``probabilities``, of one fixed tile.

    Parameters
    ----------
    encoder
        The forest's.
    image
        (C, T, T) float32 raw intensities to measure the deviation on; by default noise.

    Returns
    -------
    deviation
        From the encoder and the engine.

    Raises
    ------
    ForestError, SpecMismatchError
        If the forest was not trained on this encoder, or its parts do not fit into one tile.
    ResourceError
        If the weights are larger than one ONNX file can be.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    require_own_encoder(forest, encoder)
    spec, sides, parts = encoder.spec, package_sides(encoder.spec), tile_parts(encoder)
    require_one_file(*networks_of(parts))
    lines, pruned = used_maps(forest, parts)
    graph = GraphBuilder("fused", prefix="pixels/")
    graph.input("raw", (1, spec.channels, *sides))
    maps = []
    for n, part in enumerate(parts):
        if own := [line for line in lines if line.part == n]:
            alone = len(parts) == 1 and not any(part.inset)
            maps += _part_cells(graph, part, own, prefix="" if alone else f"{part.spec.name}/")
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
    forest: PixelForest, encoder: TileEncoder, run: Runner, *, image: NDArray[np.float32] | None
) -> Deviation:
    """Compare a fused graph with the encoder and the engine, on one tile."""
    raw = noise_raw(encoder) if image is None else image
    return compare_probabilities(run(raw[None])[0], tile_probabilities(forest, encoder, raw))


def tile_probabilities(forest: PixelForest, encoder: TileEncoder, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (K, T, T) probabilities of a whole tile (C, T, T), its halo included, from the engine."""
    height, width = package_sides(encoder.spec)
    result = np.empty((forest.n_classes, height, width), np.float32)
    predict_block(forest, map_parts(tile_parts(encoder), raw), (slice(0, height), slice(0, width)), result)
    return result


def require_own_encoder(forest: PixelForest, encoder: TileEncoder) -> None:
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


def _part_cells(graph: GraphBuilder, part: TilePart, lines: list[MapLines], *, prefix: str) -> list[str]:
    """Add an encoder; return the (t, t, F) used channels of each of its maps that are used.

    Parameters
    ----------
    prefix
        Of its names in the graph; its input has the name "raw" after it.
    """
    if isinstance(part.encoder, FilterBank):
        [line] = lines
        bank, kept = used_filters(part.encoder, line.channels.tolist())
        features = add_filters(graph, "raw", bank.filters, channels=part.spec.channels, ndim=2)
        return [_used_cells(graph, features, np.searchsorted(kept, line.channels))]
    if prefix:
        ends = [inset + side for inset, side in zip(part.inset, part.sides, strict=True)]
        window = (graph.constant(np.array(values)) for values in (part.inset, ends, (2, 3)))
        graph.node("Slice", "raw", *window, output=f"{prefix}raw")
    graph.include(network_graph(part.encoder), prefix=prefix)
    names = [prefix + internal_name(part.spec.maps[line.index].name) for line in lines]
    return [_used_cells(graph, name, line.channels) for name, line in zip(names, lines, strict=True)]


def _used_cells(graph: GraphBuilder, name: str, channels: NDArray[np.int64]) -> str:
    """Add some channels of a map, channels last: (t, t, F)."""
    last = graph.node("Transpose", name, perm=[0, 2, 3, 1])  # (1, t, t, F)
    plain = graph.node("Squeeze", last, graph.constant(np.array([0])))
    return graph.node("Gather", plain, graph.constant(channels), axis=2)


def _strip_body(lines: list[MapLines], maps: list[str], forest: PixelForest, *, rows: int, width: int) -> GraphBuilder:
    """Return the body of the loop: the sums of leaf fractions (rows, T, K) of one strip."""
    body = GraphBuilder("strip", prefix="strip/")
    number = body.input("strip/number", (), dtype=TensorProto.INT64)
    body.input("strip/go_on", (), dtype=TensorProto.BOOL)
    row_numbers = body.constant(np.arange(rows))
    pixel_rows = body.node("Add", body.node("Mul", number, body.constant(np.asarray(rows))), row_numbers)  # (rows,)
    features = []
    for line, cells in zip(lines, maps, strict=True):
        if line.rows is None or line.columns is None:
            features.append(body.node("Gather", cells, pixel_rows, axis=0))  # (rows, T, F)
            continue
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
