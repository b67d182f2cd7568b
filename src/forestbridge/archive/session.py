"""From the bytes of an ONNX file to a session that runs it: the only place where forestbridge makes one."""

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive.onnx_graph import onnx_facts
from forestbridge.devices import gpu_number
from forestbridge.errors import MissingExtraError, PackageError, ResourceError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_log = logging.getLogger(__name__)


def onnx_session(
    data: bytes, *, device: str = "cpu", threads: int | None = None, arena: bool = True
) -> "InferenceSession":
    """Make a session from the bytes of an ONNX file, after `onnx_facts` has checked them.

    Parameters
    ----------
    device
        "cpu"; "cuda" or "cuda:1" for one GPU, refused where there is none; "auto": a GPU where one is usable, and the
        log says which it became.
    threads
        Threads of the CPU; None lets ONNX Runtime choose.
    arena
        Whether memory is kept from one run to the next: for deep encoders it doubles what they take, and saves no time.

    Raises
    ------
    MissingExtraError
        If onnxruntime is not installed.
    PackageError
        If the file is refused, or newer than this ONNX Runtime.
    ResourceError
        If the device is not there.
    ValueError
        If the device is not known, or `threads` is below 1.
    """
    number = gpu_number(device)
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, found {threads}")
    onnx_facts(data)
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("running a package", "cpu") from error
    present = onnxruntime.get_available_providers()
    if device.startswith("cuda") and "CUDAExecutionProvider" not in present:
        raise ResourceError(
            f"expected a GPU for device={device!r}, found the providers {', '.join(present)}; use device='cpu', or install "
            "forestbridge[gpu] in place of forestbridge[cpu]"
        )
    on_gpu = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in present)
    gpu = ("CUDAExecutionProvider", {"device_id": number})
    session = _open(data, [gpu, "CPUExecutionProvider"] if on_gpu else ["CPUExecutionProvider"], threads, arena)
    used = session.get_providers()[0]
    if device.startswith("cuda") and used != "CUDAExecutionProvider":
        # onnxruntime itself only warns when the GPU's libraries cannot be loaded
        raise ResourceError(
            f"expected a GPU for device={device!r}, found that ONNX Runtime fell back to {used}; check the GPU's driver and "
            "CUDA libraries, or use device='cpu'"
        )
    if device == "auto":
        _log.info("device='auto' became %s", used)
    return session


def run_session(session: "InferenceSession", inputs: Sequence[NDArray]) -> list[NDArray]:
    """Return the outputs of a session for its inputs, both in the order of the graph.

    Raises
    ------
    PackageError
        If the graph cannot take inputs of these shapes.
    ResourceError
        If they need more memory than there is.
    """
    import onnxruntime.capi.onnxruntime_pybind11_state as state  # pyright: ignore[reportMissingImports]

    feeds = {node.name: array for node, array in zip(session.get_inputs(), inputs, strict=True)}
    try:
        return [np.asarray(output) for output in session.run(None, feeds)]
    except (state.Fail, state.InvalidArgument, state.NotImplemented, state.RuntimeException) as error:
        shapes = ", ".join(str(array.shape) for array in inputs)
        if "allocat" in str(error):
            raise ResourceError(
                f"expected enough memory to run the graph on {shapes}, found: {str(error)[:300]}; give a smaller tile"
            ) from error
        raise PackageError(
            f"expected an ONNX graph that takes an input of shape {shapes}, found: {str(error)[:300]}; rdf.yaml allows sizes "
            "that the graph does not: export the package again"
        ) from error


def _open(data: bytes, providers: list[Any], threads: int | None, arena: bool) -> "InferenceSession":
    import onnxruntime
    import onnxruntime.capi.onnxruntime_pybind11_state as state  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 4  # it would print what we raise
    if threads is not None:
        options.intra_op_num_threads = threads
    # Threads that wait for work would spin on cores that the rest of the program needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Bytes that were checked as ONNX must not be taken for ONNX Runtime's own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        # without the fallback, which would print and go on without the GPU
        return onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except (
        state.Fail,
        state.InvalidGraph,
        state.InvalidArgument,
        state.InvalidProtobuf,
        state.NotImplemented,
    ) as error:
        raise PackageError(_reword(str(error), data)) from error
    except (RuntimeError, state.RuntimeException, state.EPFail, state.EngineError) as error:
        raise ResourceError(
            f"expected ONNX Runtime to load the graph on {providers[0]}, found: {error}; free memory or use "
            "device='cpu'"
        ) from error


def _reword(message: str, data: bytes) -> str:
    import onnxruntime

    facts, version = onnx_facts(data), onnxruntime.__version__
    if best := re.search(r"official support for domain (\S+) is till opset (\d+)", message):
        needed = facts.opsets.get(best.group(1), "?")
        return (
            f"expected an ONNX graph of at most {best.group(1)} opset {best.group(2)}, which ONNX Runtime {version} "
            "has, found "
            f"opset {needed}; update onnxruntime, or export the package with opset 17"
        )
    if best := re.search(r"max supported IR version: (\d+)", message):
        return (
            f"expected an ONNX file of at most IR version {best.group(1)}, which ONNX Runtime {version} has, found "
            "IR version "
            f"{facts.ir_version}; update onnxruntime, or export the package with IR version 8"
        )
    return (
        f"expected an ONNX graph that ONNX Runtime {version} can run, found: {message[:300]}; export the package again"
    )
