"""From the name of a device, as `device=` and --device have it, to a GPU that is there; and what can run on it."""

import ctypes
import logging
import os
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

from forestbridge.errors import MissingExtraError, ResourceError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|cuda(?::([0-9]{1,3}))?")


def gpu_number(device: str) -> int:
    """Return which GPU a name stands for, if it comes to one: 0 for "cpu", "auto" and "cuda".

    Raises
    ------
    ValueError
        If the name is no device's.
    """
    if not (asked := _DEVICE.fullmatch(device)):
        raise ValueError(f"expected the device cpu, cuda, cuda:1 or auto, found {device!r}; give one of these")
    return int(asked.group(1) or 0)


def find_gpu(device: str) -> "torch.device | None":
    """Return the GPU that a name stands for, or None for the CPU.

    Parameters
    ----------
    device
        "cpu"; "cuda" or "cuda:1" for one GPU, refused where there is none; "auto": a GPU where torch sees one, and the log says
        which it became.

    Raises
    ------
    ValueError
        If the name is none of these.
    MissingExtraError
        If a GPU is asked for and torch is not installed.
    ResourceError
        If the GPU is not there.
    """
    number = gpu_number(device)
    if device == "cpu":
        return None
    if device == "auto" and not has_driver():
        _log.info("device='auto' became cpu: there is no driver of a GPU")
        return None
    try:
        import torch
    except ImportError as error:
        if device != "auto":
            raise MissingExtraError("prediction on a GPU", "torch") from error
        _log.info("device='auto' became cpu: torch is not installed")
        return None
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number < present:
        if device == "auto":
            _log.info("device='auto' became cuda:0, %s", torch.cuda.get_device_name(0))
        return torch.device("cuda", number)
    if device == "auto":
        _log.info("device='auto' became cpu: torch %s sees no GPU", torch.__version__)
        return None
    found = f"{present} of them" if present else "none"
    remedy = "choose a smaller number" if present else "check the GPU's driver and that torch was installed with CUDA"
    raise ResourceError(
        f"expected a GPU for device={device!r}, found {found} that torch {torch.__version__} can use; use device='cpu', or {remedy}"
    )


def network_device(device: str) -> "torch.device":
    """Return the device of a neural network: those of `find_gpu`, and besides "mps", Apple's, which has no float64.

    Raises
    ------
    ValueError, MissingExtraError, ResourceError
        As `find_gpu`.
    """
    import torch

    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        if not torch.backends.mps.is_available():
            raise ResourceError(
                f"expected Apple's GPU for device='mps', found none that torch {torch.__version__} can use; use device='cpu'"
            )
        return torch.device("mps")
    return find_gpu(device) or torch.device("cpu")


def has_driver() -> bool:
    """Whether the machine has the driver that torch needs for GPUs of NVIDIA or AMD; without it, torch need not be loaded to ask."""
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def require_float64(device: "torch.device") -> None:
    """Refuse a device that cannot compute in float64; the answer would not be that of the CPU.

    Raises
    ------
    ResourceError
        If it is Apple's, the only one of torch's without float64.
    """
    if device.type == "mps":
        raise ResourceError(
            "expected a device that computes in float64, found mps, which has float32 only; use device='cpu'"
        )


@lru_cache
def triton_runs_on(device: "torch.device") -> bool:
    """Whether Triton is installed and can compile for a device. It needs a C compiler; a GPU without one is told of in the log."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except (RuntimeError, OSError, AssertionError, CalledProcessError) as error:
        _log.warning(
            "expected Triton to compile for %s, found: %s; prediction uses torch alone: the same numbers, but slower. Install a "
            "C compiler and Python's headers to be faster",
            device,
            error,
        )
        return False
    return True
