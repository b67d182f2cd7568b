"""The parts of every package: its formats, test tensors as files, the zip, and the check before it appears under its name."""

import io
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo
from forestbridge.consumers import ConsumerVerdict, consumer_report
from forestbridge.encoders.features import check_image
from forestbridge.errors import MissingExtraError
from forestbridge.graphs.torchscript import require_torch
from forestbridge.image import Image, as_image
from forestbridge.package.check import CheckReport, check_package
from forestbridge.package.description import MISMATCHED_PER_MILLION
from forestbridge.package.geometry import spatial_axes
from forestbridge.spec import EncoderSpec

_log = logging.getLogger(__name__)

FORMATS = ("onnx", "torchscript")

WEIGHT_FILES = {"onnx": "weights.onnx", "torchscript": "weights.pt"}
"""What each format is called in the zip."""


def pack_and_check(pack: Callable[[Sequence[ConsumerVerdict], int], PackageInfo]) -> CheckReport:
    """Pack with the strictest tolerance that leaves room for another machine, where other features fall beyond their threshold."""
    for per_million in MISMATCHED_PER_MILLION:
        info = pack((), per_million)
        info = pack(consumer_report(info), per_million)  # the README says where the package runs
        report = check_package(info.path, trust=f"sha256:{info.sha256}")
        found = max((1e6 * f.mismatched / f.elements for f in report.formats if f.elements), default=0.0)
        if not per_million / 2 < found <= MISMATCHED_PER_MILLION[-1]:
            break
        _log.info("%.0f of a million values of the test output differ, tolerance %d", found, per_million)
    return report


def check_formats(formats: Sequence[str]) -> None:
    """Refuse weight formats that are not known, or cannot be written or checked here.

    Raises
    ------
    ValueError, MissingExtraError
        With what is wrong.
    """
    if not formats or set(formats) - set(FORMATS):
        raise ValueError(f"expected weight formats of {', '.join(FORMATS)}, found {list(formats)}")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("writing a package", "cpu") from error
    if "torchscript" in formats:
        try:
            require_torch()
        except MissingExtraError as error:
            what = "TorchScript, which ilastik and QuPath need (leave it out with --formats onnx),"
            raise MissingExtraError(what, "torch") from error


def test_image(image: Image | NDArray | None, spec: EncoderSpec) -> tuple[Image, str]:
    """Return the image whose middle becomes the test tensor, and a sentence on where it comes from."""
    if image is None:
        from forestbridge.phantom import phantom

        shape = (256, 256) if spec.axes == "yx" else (128, 160, 160)
        if spec.tile is not None:
            shape = tuple(axis.minimum for axis in spatial_axes(spec))
        picture = phantom(shape, channels=spec.channels).image
        axes = ("C" if spec.channels > 1 else "") + spec.axes.upper()
        return as_image(picture, axes=axes), "a synthetic image"
    image = as_image(image)
    check_image(spec, image)
    return image, "a crop from the middle of the image given at export"


def tensor_files(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, bytes]:
    """Return the test tensors as .npy, and the same as TIFF of the same rank."""
    import tifffile

    files = {}
    for name, tensor in tensors.items():
        npy, tiff = io.BytesIO(), io.BytesIO()
        np.save(npy, tensor)
        tifffile.imwrite(
            tiff, tensor, photometric="minisblack", software="", metadata={"axes": "QC" + "ZYX"[-(tensor.ndim - 2) :]}
        )
        files[f"{name}_test.npy"], files[f"{name}_sample.tif"] = npy.getvalue(), tiff.getvalue()
    return files


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Return a zip whose bytes depend on the files alone: rdf.yaml first, then by name, fixed dates and rights."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files, key=lambda name: (name != "rdf.yaml", name)):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16  # a plain file, readable by all: shared drives
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return data.getvalue()
