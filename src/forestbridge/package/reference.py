"""bioimageio.core as the judge: run one weight format of a package by name, offline."""

import gc
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo
from forestbridge.errors import PackageError
from forestbridge.graphs.torchscript import one_torch_thread

T = TypeVar("T")

DEVICES = {"onnx": ["CPUExecutionProvider"], "torchscript": ["cpu"]}
"""How core names the CPU; for ONNX it loads the model once for each provider it has, and knows no "cpu"."""


class CoreTest(NamedTuple):
    """What core's own test of one weight format found.

    Attributes
    ----------
    passed
        Whether all its checks passed: test output reproduced, two batch sizes, three image sizes.
    said
        Its errors.
    outputs
        What the weights gave for the test inputs, by tensor id; empty where they did not run.
    """

    passed: bool
    said: str
    outputs: dict[str, NDArray]


def core_version() -> str:
    """Return the version of the installed bioimageio.core."""
    from importlib.metadata import version

    return version("bioimageio.core")


def run_in_core(path: Path, weight_format: str, raw: NDArray[np.float32], *, axes: str) -> NDArray[np.float32]:
    """Run a package in bioimageio.core as its users do.

    Parameters
    ----------
    weight_format
        "onnx" or "torchscript".
    raw
        (1, C, ...) float32 input, axes as in the package.
    axes
        The spatial axes of the package, "yx" or "zyx".

    Returns
    -------
    probabilities
        (1, K, ...) float32. From version 0.11 on core continues the image symmetrically by the halo, so pixels closer to the
        edge than the halo differ from those of the graph itself.
    """
    return _quiet_and_offline(lambda: _predict(path, weight_format, raw, axes))


def _predict(path: Path, weight_format: str, raw: NDArray[np.float32], axes: str) -> NDArray[np.float32]:
    from bioimageio.core import Tensor, create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.spec import load_model_description

    model = load_model_description(path, perform_io_checks=False)
    with create_prediction_pipeline(
        model,
        weight_format=weight_format,  # pyright: ignore[reportArgumentType]
        devices=DEVICES[weight_format],
    ) as pipeline:
        tensor = Tensor(raw, dims=("batch", "channel", *axes))
        result = pipeline.predict_sample_without_blocking(create_sample_for_model(model, inputs=tensor))
    [output] = result.members.values()
    return np.asarray(output.data)


def run_core_test(info: PackageInfo, weight_format: str) -> CoreTest:
    """Run bioimageio.core's own test on one weight format of an inspected package, and keep the outputs it computed."""
    with one_torch_thread() if weight_format == "torchscript" else nullcontext():
        return _quiet_and_offline(lambda: _test(info, weight_format))


def _test(info: PackageInfo, weight_format: str) -> CoreTest:
    from bioimageio.core import test_description
    from bioimageio.spec import ValidationContext

    with (
        zipfile.ZipFile(info.path) as archive,
        tempfile.TemporaryDirectory(prefix="forestbridge-") as folder,
        ValidationContext(root=archive, file_name="rdf.yaml", perform_io_checks=False, progressbar=False),
    ):
        summary = test_description(
            _without_look_ups(info.rdf),
            weight_format=weight_format,  # pyright: ignore[reportArgumentType]
            devices=DEVICES[weight_format],
            working_dir=folder,  # where it saves what it computes
        )
        files = {t.id: Path(folder) / f"actual_output_{t.id}_{weight_format}.npy" for t in info.outputs}
        outputs = {name: np.load(file) for name, file in files.items() if file.is_file()}
    errors = [error.msg for detail in summary.details for error in detail.errors]
    if summary.status == "passed" and len(outputs) < len(info.outputs):
        raise PackageError(
            f"{info.path}: expected bioimageio.core {core_version()} to keep the outputs of its test, found {sorted(outputs)}; "
            "install the version that forestbridge was tested with (pip install bioimageio.core==0.11.0)"
        )
    return CoreTest(summary.status == "passed", "; ".join(errors), outputs)


def _without_look_ups(rdf: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description without the names and addresses that core's test would look up on the network; no number depends on them."""
    dropped = (
        *("cite", "links", "git_repo", "attachments", "icon", "parent", "training_data"),
        *("maintainers", "uploader", "packaged_by"),
    )
    kept = {key: value for key, value in rdf.items() if key not in dropped}
    if isinstance(authors := rdf.get("authors"), list):
        kept["authors"] = [{"name": a["name"]} if isinstance(a, dict) and "name" in a else a for a in authors]
    return kept


def _quiet_and_offline(work: Callable[[], T]) -> T:
    """Do some work with bioimageio, and keep it from the network, from writing to the console, and from leaving files open."""
    import logging

    from bioimageio.spec import ValidationContext
    from loguru import logger

    logger.disable("bioimageio")
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # core loads TorchScript, which torch wants to retire
            warnings.filterwarnings("ignore", r"`torch\.\w+\.\w+` is deprecated", category)
        warnings.filterwarnings(
            "ignore", "The given NumPy array is not writable", UserWarning
        )  # nor does core write to it
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with ValidationContext(perform_io_checks=False, progressbar=False):
                return work()
        finally:
            logging.disable(previous)
            logger.enable("bioimageio")
            gc.collect()  # a model description never closes its zip, nor core the null device; the collector does
