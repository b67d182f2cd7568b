"""Rules about what flows through a package: inputs, outputs, axes, sizes, tiles, and the steps before and after."""

import math
from collections.abc import Iterator
from keyword import iskeyword

from forestbridge.archive import AxisInfo, PackageInfo, TensorInfo
from forestbridge.consumers.rules import GRAPHICAL, OLD_SPEC, Finding

ILASTIK_MESSAGE = 100 * 2**20
"""Bytes of one message between ilastik and its server, which carries one tile as float32."""

_JAVA_STEPS = ("binarize", "clip", "ensure_dtype", "scale_linear", "scale_range", "sigmoid", "zero_mean_unit_variance")
_JAVA_STEPS += ("fixed_zero_mean_unit_variance",)
_QUPATH_STEPS = (
    "binarize",
    "clip",
    "ensure_dtype",
    "scale_linear",
    "scale_range",
    "sigmoid",
    "zero_mean_unit_variance",
)
_STATISTICS = ("scale_range", "zero_mean_unit_variance", "scale_mean_variance")
_LARGEST_TILE = 4096
"""deepImageJ takes an image of up to 4096 × 4096 × 3 values as one tile."""


def data_findings(info: PackageInfo) -> Iterator[Finding]:
    """Yield the findings about inputs, outputs, axes, sizes, tiles and steps."""
    if info.kind in ("encoder", "forest"):
        what = "gives feature maps" if info.kind == "encoder" else "takes feature maps"
        text = f"config.forestbridge.kind: the package {what}, which only Python can use; export a fused one"
        yield Finding(GRAPHICAL, f"{text}: ff-package fused")
    for side, tensors in (("inputs", info.inputs), ("outputs", info.outputs)):
        if len(tensors) != 1:
            text = f"{side}: expected one, found {len(tensors)}; export one image in and one probability image out"
            yield Finding(GRAPHICAL, text)
        for n, tensor in enumerate(tensors):
            yield from _tensor(f"{side}[{n}]", tensor, is_output=side == "outputs")
    if len(info.inputs) == len(info.outputs) == 1:
        yield from _pair(info.inputs[0], info.outputs[0])
        yield from _tiles(info, info.inputs[0], info.outputs[0])
    yield from _steps(info)


def _tensor(key: str, tensor: TensorInfo, *, is_output: bool) -> Iterator[Finding]:
    if tensor.dtype != "float32":
        text = f"{key}.data.type: expected float32, which all programs have, found {tensor.dtype}; cast in the graph"
        yield Finding(GRAPHICAL, text)
    ids = [axis.id for axis in tensor.axes]
    wanted = ["batch", "channel", *(["z"] if "z" in ids else []), "y", "x"]
    if is_output and ids != wanted and [wanted[1] if a.type == "channel" else a.id for a in tensor.axes] == wanted:
        text = f"{key}.axes[1].id: expected the output's channel axis to be called channel, found {ids[1]}; rename it"
        yield Finding(("ilastik",), text)
    elif ids != wanted:
        text = f"{key}.axes: expected {', '.join(wanted)}, found {', '.join(ids)}; name and order the axes so"
        yield Finding(GRAPHICAL, text)
    for n, axis in enumerate(tensor.axes):
        if axis.type == "channel" and axis.size is None:
            yield Finding(GRAPHICAL, f"{key}.axes[{n}].size: expected a fixed number of channels, found none; fix it")
        if bad := [name for name in axis.channel_names if not _is_identifier(name)]:
            text = (
                f"{key}.axes[{n}].channel_names: expected ASCII letters, digits and _ as in names of Python, found "
                f"{', '.join(bad[:3])}; rename them and keep the display names under config"
            )
            yield Finding(OLD_SPEC, text)
        if axis.halo % 2:
            text = f"{key}.axes[{n}].halo: expected an even number, as releases of 2025 do, found {axis.halo}; round up"
            yield Finding(("ilastik",), text)


def _is_identifier(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not iskeyword(name)


def _pair(source: TensorInfo, target: TensorInfo) -> Iterator[Finding]:
    """Yield the findings about how the output lies over the input."""
    sizes = {axis.id: axis for axis in source.axes}
    for n, axis in enumerate(target.axes):
        if axis.type != "space" or axis.id not in sizes:
            continue
        fixed = axis.size is not None and axis.size == sizes[axis.id].size
        if not fixed and (axis.reference != (source.id, axis.id) or axis.ratio != 1 or axis.offset != 0):
            text = f"outputs[0].axes[{n}].size: expected the size of the input's {axis.id}, found another"
            yield Finding(
                ("ilastik", "QuPath"), f"{text}; refer to tensor_id {source.id}, axis_id {axis.id} with equal scale"
            )


def _tiles(info: PackageInfo, source: TensorInfo, target: TensorInfo) -> Iterator[Finding]:
    space = [axis for axis in source.axes if axis.type == "space"]
    halos = {axis.id: axis.halo for axis in target.axes}
    wanted = 64 if len(space) == 3 else 512
    tile = {axis.id: _ilastik_tile(axis, wanted) for axis in space}
    for axis in space:
        halo = halos.get(axis.id, 0)
        if tile[axis.id] <= 2 * halo:
            text = f"axis {axis.id}: its tile of {tile[axis.id]} has nothing between two halos of {halo}"
            yield Finding(("ilastik",), f"{text}; use a smaller halo")
        if axis.min is not None and axis.min <= 2 * halo:
            text = f"axis {axis.id}: expected a min above two halos of {halo}, found {axis.min}; raise min"
            yield Finding(("deepImageJ",), text, note=True)
    for side, tensor in (("inputs", source), ("outputs", target)):
        channels = next((axis.size or 1 for axis in tensor.axes if axis.type == "channel"), 1)
        size = 4 * channels * math.prod(tile.values())
        if size > ILASTIK_MESSAGE:
            text = (
                f"{side}[0]: one tile of {channels} channels and {' × '.join(map(str, tile.values()))} has {size} "
                "bytes, more "
                f"than the {ILASTIK_MESSAGE} of a message; fix a smaller size, or export a fused package"
            )
            yield Finding(("ilastik",), text)
    yield from _qupath_tiles(space, halos)
    yield from _deepimagej_tiles(info, space)
    channels = next((axis.size for axis in source.axes if axis.type == "channel"), None)
    if channels is not None:
        text = f"takes images of exactly {channels} channel{'s' * (channels != 1)} (inputs[0])"
        yield Finding(("ilastik",), text, note=True)


def _ilastik_tile(axis: AxisInfo, wanted: int) -> int:
    if axis.min is None or axis.step is None:
        return axis.size or wanted
    return axis.min + max(0, -(-(wanted - axis.min) // axis.step)) * axis.step


def _qupath_tiles(space: list[AxisInfo], halos: dict[str, int]) -> Iterator[Finding]:
    if len(space) != 2:
        yield Finding(("QuPath",), f"inputs[0].axes: QuPath is 2D only, found {len(space)} dimensions; train on planes")
        return
    for axis in space:
        if axis.min is not None and (axis.min > 512 or axis.min & (axis.min - 1) or axis.min % (axis.step or 1)):
            # it takes min for the step, and multiples of it up to 512 for the tile
            text = (
                f"axis {axis.id}: expected min as a power of two up to 512 and a multiple of step, found min {axis.min}"
            )
            yield Finding(("QuPath",), f"{text} and step {axis.step}; use 64 and 16")
        tile = axis.size or 512
        if tile <= 2 * halos.get(axis.id, 0):
            text = f"axis {axis.id}: its tile of {tile} has nothing between two halos of {halos.get(axis.id, 0)}"
            yield Finding(("QuPath",), f"{text}; use a smaller halo")


def _deepimagej_tiles(info: PackageInfo, space: list[AxisInfo]) -> Iterator[Finding]:
    free = [axis for axis in space if axis.min is not None]
    if any(axis.min and axis.step and axis.min % axis.step for axis in free):
        text = "inputs[0].axes: min should be a multiple of step, or its tiles may not fit; change min"
        yield Finding(("deepImageJ",), text, note=True)
    if free:
        axes = [axis for tensor in info.inputs + info.outputs for axis in tensor.axes]
        widest = max((axis.size or 1 for axis in axes if axis.type == "channel"), default=1)
        features = max(widest, 0 if info.spec is None else info.spec.n_features)
        need = 4 * features * _LARGEST_TILE**2 / 2**30
        text = (
            f"takes an image of up to {_LARGEST_TILE} × {_LARGEST_TILE} pixels as one tile, which needs about "
            f"{need:.1f} GiB "
            f"({features} features as float32); crop larger images, or fix the size of the axes"
        )
        yield Finding(("deepImageJ",), text, note=True)


def _steps(info: PackageInfo) -> Iterator[Finding]:
    for side, tensors in (("inputs", info.inputs), ("outputs", info.outputs)):
        key = "preprocessing" if side == "inputs" else "postprocessing"
        for n, tensor in enumerate(tensors):
            for m, step in enumerate(tensor.steps):
                yield from _step(info, f"{side}[{n}].{key}[{m}]", step, (side, n, key, m))


def _step(info: PackageInfo, key: str, step: str, place: tuple[str, int, str, int]) -> Iterator[Finding]:
    side, n, kind, m = place
    kwargs = info.rdf[side][n][kind][m].get("kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    if step in _STATISTICS:
        text = (
            f"{key}: {step} is computed over each tile there and over the image elsewhere; put constants into the graph"
        )
        yield Finding(("ilastik", "QuPath"), text)
    if step not in _QUPATH_STEPS:
        yield Finding(("QuPath",), f"{key}: QuPath leaves {step} out without a word; put it into the graph")
    if step not in _JAVA_STEPS:
        yield Finding(("deepImageJ",), f"{key}: deepImageJ does not know {step}; put it into the graph")
    if step == "scale_range" and kwargs.get("reference_tensor"):
        yield Finding(
            ("deepImageJ",), f"{key}.kwargs.reference_tensor: deepImageJ ignores it; put constants into the graph"
        )
    if step in _STATISTICS and isinstance(axes := kwargs.get("axes"), list) and "batch" in axes:
        # it joins the names and finds the c of batch
        yield Finding(
            ("deepImageJ",), f"{key}.kwargs.axes: deepImageJ reads batch as the channel axis; leave batch out"
        )
