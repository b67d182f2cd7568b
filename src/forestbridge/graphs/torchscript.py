"""Filter bank, forest and the two fused as TorchScript files; the only module that calls torch.jit.

TorchScript is deprecated in PyTorch 2.9 and later, but it is what ilastik and QuPath run. Exactly its warnings are silenced here.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filters import FilterBank, filter_bank_from_spec
from forestbridge.encoders.fixed_tiles import package_sides
from forestbridge.encoders.package import PackageEncoder
from forestbridge.errors import ForestError, MissingExtraError
from forestbridge.files import new_file
from forestbridge.forest import PixelForest
from forestbridge.graphs.deviation import Deviation, Runner, measure_filters, measure_forest, measure_fused
from forestbridge.graphs.encoder import (
    NetworkEncoder,
    fixed_positions,
    measure_encoder,
    noise_tile,
    require_one_file,
)
from forestbridge.graphs.forest import forest_input
from forestbridge.graphs.fused import bank_of
from forestbridge.graphs.fused_deep import measure_deep_fused, require_own_encoder
from forestbridge.graphs.parts import TileEncoder, TilePart, networks_of, tile_parts
from forestbridge.graphs.strips import MapLines, used_maps
from forestbridge.prune import drop_unused_filters, used_filters
from forestbridge.spec import EncoderSpec

if TYPE_CHECKING:
    from torch import nn

MAX_TORCHSCRIPT_DEPTH = 10
"""A perfect tree has 2^depth leaves: 1024 here, and twice as many with each further level."""

FUSED_ATTENTION = "aten::scaled_dot_product_attention"

ALIGNMENT = 64
"""PyTorch starts each member of its archives at a multiple of this many bytes, so that tensors can be mapped into memory."""
LOCAL_HEADER = 30
"""Bytes of a zip member's header before its name."""


def export_filters_torchscript(spec: EncoderSpec, path: str | Path) -> Deviation:
    """Write the filter bank of a spec: raw intensities (b, C, ...) in, features (b, F, ...) out.

    Returns
    -------
    deviation
        From `FilterBank.encode` on an image with intensities from 0 to 1.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ValueError
        If the spec is not one of this version's filter bank.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    require_torch()
    from forestbridge.graphs.torch_filters import FilterBankModule

    bank = filter_bank_from_spec(spec)
    run = _write(FilterBankModule(bank.filters, channels=spec.channels, ndim=len(spec.axes)), path)
    return measure_filters(bank, run)


def export_forest_torchscript(forest: PixelForest, path: str | Path) -> Deviation:
    """Write a forest: features (b, F, ...) in, class probabilities (b, K, ...) out.

    Returns
    -------
    deviation
        From the engine, on synthetic features around the forest's thresholds.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ForestError
        If the forest is deeper than `MAX_TORCHSCRIPT_DEPTH`, looks at more than one map, or at one of another stride than 1.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    require_torch()
    from forestbridge.graphs.torch_forest import ForestModule

    _, axes = forest_input(forest)
    _require_shallow(forest)
    return measure_forest(forest, _write(ForestModule(forest), path), ndim=len(axes))


def export_fused_torchscript(
    forest: PixelForest, path: str | Path, *, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write a forest together with its filter bank: raw intensities (b, C, ...) in, class probabilities (b, K, ...) out.

    Parameters
    ----------
    image
        (C, y, x) or (C, z, y, x) float32 raw intensities to measure the deviation on; by default a synthetic image.

    Returns
    -------
    deviation
        From the filter bank and the engine.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    ForestError
        If the forest is deeper than `MAX_TORCHSCRIPT_DEPTH`, or was not trained on the filter bank.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    require_torch()
    from forestbridge.graphs.torch_filters import FilterBankModule
    from forestbridge.graphs.torch_forest import ForestModule
    from forestbridge.graphs.torch_fused import FusedModule

    bank = bank_of(forest)
    _require_shallow(forest)
    used_bank, pruned = drop_unused_filters(bank, forest)
    filter_module = FilterBankModule(used_bank.filters, channels=bank.spec.channels, ndim=len(bank.spec.axes))
    run = _write(FusedModule(filter_module, ForestModule(pruned)), path)
    return measure_fused(forest, run, image=image)


def export_encoder_torchscript(
    encoder: NetworkEncoder, path: str | Path, *, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write a deep encoder: raw intensities (1, C, T, T) in, one (1, F, t, t) per map out; see `export_encoder_onnx`.

    Raises
    ------
    ForestError
        If its attention is fused, which PyTorch before 2.0 cannot load.
    MissingExtraError, ResourceError, OutputExistsError, ValueError
        As `export_encoder_onnx`.
    """
    require_torch()
    import torch

    from forestbridge.graphs.torch_deep import StoredMaps

    require_one_file(encoder)
    traced = _traced(StoredMaps(encoder.module, encoder.spec.dtype), encoder)
    with new_file(path) as temporary:
        temporary.write_bytes(compile_module(traced, frozen=True))
    with torchscript_without_warnings():
        module = torch.jit.load(io.BytesIO(Path(path).read_bytes()), map_location="cpu")

    def run(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with torchscript_without_warnings(), torch.no_grad():
            return [m.numpy() for m in module(torch.from_numpy(batch))]

    return measure_encoder(encoder, run, image=image)


def export_deep_fused_torchscript(
    forest: PixelForest, path: str | Path, *, encoder: TileEncoder, image: NDArray[np.float32] | None = None
) -> Deviation:
    """Write a forest with its deep encoder, or a combination: raw intensities (1, C, T, T) in, probabilities (1, K, T, T) out.

    Parameters, result and errors are those of `export_deep_fused_onnx`.

    Raises
    ------
    ForestError
        If the forest is deeper than `MAX_TORCHSCRIPT_DEPTH`, or the encoder's attention is fused.
    """
    require_torch()
    from forestbridge.graphs.torch_deep import DeepFusedModule, Parts, Window
    from forestbridge.graphs.torch_forest import ForestModule

    require_own_encoder(forest, encoder)
    _require_shallow(forest)
    parts = tile_parts(encoder)
    require_one_file(*networks_of(parts))
    lines, pruned = used_maps(forest, parts)
    modules = []
    for n, part in enumerate(parts):
        if own := [line for line in lines if line.part == n]:
            module = _used_module(part, own)
            modules.append(Window(module, part.inset, part.sides) if any(part.inset) else module)
    network = modules[0] if len(parts) == 1 else Parts(modules)
    module = DeepFusedModule(network, lines, ForestModule(pruned), package_sides(encoder.spec))
    run = _write(module, path, frozen=True)
    return measure_deep_fused(forest, encoder, run, image=image)


def _used_module(part: TilePart, lines: list[MapLines]) -> "nn.Module":
    """Return an encoder that gives the channels of its maps that are used."""
    from forestbridge.graphs.torch_deep import StoredMaps, UsedFilters, UsedMaps
    from forestbridge.graphs.torch_filters import FilterBankModule

    if isinstance(part.encoder, FilterBank):
        [line] = lines
        bank, kept = used_filters(part.encoder, line.channels.tolist())
        module = FilterBankModule(bank.filters, channels=part.spec.channels, ndim=2)
        return UsedFilters(module, np.searchsorted(kept, line.channels))
    if isinstance(part.encoder, PackageEncoder):
        raise ForestError(
            "expected a network of torch for TorchScript, found a package, whose graph is ONNX; export ONNX only"
        )
    return _traced(UsedMaps(StoredMaps(part.encoder.module, part.spec.dtype), lines), part.encoder)


def _traced(module: "nn.Module", encoder: NetworkEncoder) -> "nn.Module":
    """Return a network as TorchScript of one fixed tile, without operations that PyTorch 1.13 does not know."""
    import torch

    with tracing_without_warnings(), fixed_positions(encoder), torch.no_grad():
        example = torch.from_numpy(noise_tile(encoder.spec))[None]
        traced: Any = torch.jit.trace(module.eval(), example, check_trace=False, strict=False)
    if traced.inlined_graph.findAllNodes(FUSED_ATTENTION, recurse=True):
        raise ForestError(
            f"expected attention in plain operations, found {FUSED_ATTENTION}, which PyTorch before 2.0 cannot load; open the "
            "encoder with exportable=True"
        )
    return traced


def _require_shallow(forest: PixelForest) -> None:
    if (depth := forest.depth()) > MAX_TORCHSCRIPT_DEPTH:
        raise ForestError(
            f"expected a forest of depth ≤ {MAX_TORCHSCRIPT_DEPTH} for TorchScript, found depth {depth}; retrain with "
            f"--max-depth {MAX_TORCHSCRIPT_DEPTH}, or export ONNX only (--formats onnx), which ilastik and QuPath do not run"
        )


def require_torch() -> None:
    """Refuse if torch is not installed.

    Raises
    ------
    MissingExtraError
        If so.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("TorchScript", "torch") from error


@contextmanager
def torchscript_without_warnings() -> Iterator[None]:
    """Silence the warnings that TorchScript is deprecated, and nothing else."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # the latter from PyTorch 2.14 on
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", category)
        yield


@contextmanager
def tracing_without_warnings() -> Iterator[None]:
    """Silence what tracing a network says beside that: shapes become constants, and the tile is fixed."""
    import torch

    with torchscript_without_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run torch on one thread: a test image gains little from more, and OpenMP's threads wait for each other by spinning, which
    takes ten times as long where other programs use the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_torchscript(data: bytes) -> Runner:
    """Make a function that runs a TorchScript file of one input and one output on the CPU.

    The file carries code: give it only bytes that this process wrote, or that the user trusts.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    """
    require_torch()
    import torch

    with torchscript_without_warnings():
        module = torch.jit.load(io.BytesIO(data), map_location="cpu")

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return module(torch.from_numpy(batch)).numpy()

    return run


def _write(module: "nn.Module", path: str | Path, *, frozen: bool = False) -> Runner:
    """Compile and write a module; return how to run the file once."""
    import torch

    data = compile_module(module, frozen=frozen)
    with new_file(path) as temporary:
        temporary.write_bytes(data)
    run = load_torchscript(Path(path).read_bytes())

    # compiling takes longer than one run without it
    interpreted = torch.jit.optimized_execution  # pyright: ignore[reportPrivateImportUsage]

    def run_once(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torchscript_without_warnings(), one_torch_thread(), interpreted(False):
            return run(batch)

    return run_once


def compile_module(module: "nn.Module", *, frozen: bool = False) -> bytes:
    """Return the module as a TorchScript file; the same module gives the same bytes.

    Parameters
    ----------
    frozen
        Whether weights become constants, and what follows from them is computed once. The lists of a filter bank stay as they are:
        frozen, they make a graph that fails.
    """
    import torch

    from forestbridge.graphs.torch_filters import FilterBankModule

    banks = [name for name, part in module.named_modules() if isinstance(part, FilterBankModule)]
    kept = [f"{name}.{attribute}" for name in banks for attribute in FilterBankModule.__annotations__]
    buffer = io.BytesIO()
    with torchscript_without_warnings():
        script = torch.jit.script(module.eval())
        torch.jit.save(torch.jit.freeze(script, preserved_attrs=kept) if frozen else script, buffer)
    return normalise_archive(buffer.getvalue())


def normalise_archive(data: bytes) -> bytes:
    """Write a TorchScript archive again without what differs from one machine or run to the next.

    Left out are the debug files, which name the source files with their folders, and the serialization id. Members are sorted, not
    compressed, dated 1980, and start at multiples of 64 bytes as PyTorch has them.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in sorted(old.namelist()):
            if name.endswith((".debug_pkl", "/serialization_id")):
                continue
            info = zipfile.ZipInfo(name)  # dated 1980-01-01
            info.create_system = 0  # by default the number of the operating system
            start = buffer.tell() + LOCAL_HEADER + len(name.encode())
            padding = -(start + 4) % ALIGNMENT
            info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding  # the field PyTorch pads with
            new.writestr(info, old.read(name))
    return buffer.getvalue()
