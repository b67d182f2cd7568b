"""Encoder packages: a network from raw intensities to feature maps, one output per map; they run in Python only."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo, inspect_package
from forestbridge.consumers import ConsumerVerdict
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.errors import PackageError
from forestbridge.files import check_output, new_file
from forestbridge.graphs import export_encoder_onnx, export_encoder_torchscript
from forestbridge.graphs.encoder import NetworkEncoder, require_one_file, stored_maps
from forestbridge.image import Image
from forestbridge.package.about import DEFAULT_CITE, DEFAULT_LICENSE, About
from forestbridge.package.check import CheckReport, format_check
from forestbridge.package.contents import (
    FORMATS,
    WEIGHT_FILES,
    check_formats,
    pack_and_check,
    tensor_files,
    test_image,
    zip_files,
)
from forestbridge.package.cover import draw_cover
from forestbridge.package.deep import validation_row, weights_citation, weights_facts, weights_text
from forestbridge.package.description import MapOutput, describe_encoder_package, to_yaml
from forestbridge.package.geometry import crop_center, spatial_axes
from forestbridge.package.names import model_id, model_name
from forestbridge.package.readme import encoder_readme
from forestbridge.spec import EncoderSpec

_COLOURS = ("#440154", "#31688e", "#35b779", "#fde725")
"""Of the cover: from the lowest quarter of a feature to the highest."""


def write_encoder_package(
    path: str | Path,
    encoder: NetworkEncoder,
    *,
    image: Image | NDArray | None = None,
    name: str | None = None,
    about: About | None = None,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
) -> CheckReport:
    """Write a deep encoder as a package: image → one output per feature map; runs in Python only.

    Parameters
    ----------
    path
        NAME.zip.
    encoder
        A deep encoder, for TorchScript opened with ``exportable=True``. The package takes one fixed tile, and holds the network's
        weights once in each format.
    image
        A crop of its middle travels in the zip as test image and cover. Without one a synthetic image is used.
    name
        Of the package; replaces ``about.name``. By default made from the file name.
    about
        Authors, licence, citation, ...: all have defaults; licence and citation those of published weights.
    formats
        "onnx" and "torchscript".
    overwrite
        Whether `path` may be replaced.

    Returns
    -------
    report
        What the check of the finished package found: always good.

    Raises
    ------
    PackageError
        If the package does not reproduce its own test tensors or is not valid; nothing is written then.
    ForestError
        If the encoder's attention is fused, which TorchScript of older programs has not.
    ResourceError
        If the weights are too large for one file.
    ValueError
        If the encoder has no fixed tile, is no network, or a format is not known.
    OutputExistsError, MissingExtraError, ImageError
        If the path exists, torch or onnxruntime is missing, or the image does not fit the encoder.
    """
    path = check_output(path, overwrite=overwrite)
    if path.suffix != ".zip":
        raise PackageError(f"expected a package name that ends in .zip, found {path.name}; name it so")
    spec = encoder.spec
    require_bilinear(spec, "a package")
    if spec.tile is None or not hasattr(encoder, "module"):
        raise ValueError(
            f"expected a deep encoder, which has one network and a fixed tile, found {spec.name}; package each deep encoder alone"
        )
    check_formats(formats)
    require_one_file(encoder)
    about = _complete(replace(about or About(), **({"name": name} if name else {})), path.stem, spec)
    source, origin = test_image(image, spec)
    crop = crop_center(source, spec)  # (1, C, T, T)
    if image is None:
        crop = _in_range(crop, spec)
    maps = stored_maps(encoder, crop[0])
    outputs = [
        MapOutput(_tensor_id(m.name), tuple(map(_identifier, m.channels)), values.shape[1:], m.stride)
        for m, values in zip(spec.maps, maps, strict=True)
    ]
    files = tensor_files({"raw": crop})
    tests = tensor_files({o.id: values[None] for o, values in zip(outputs, maps, strict=True)})
    files |= {
        name: data for name, data in tests.items() if name.endswith(".npy")
    }  # samples would double a large package
    files["cover" + (about.cover.suffix.lower() if about.cover else ".png")] = (
        about.cover.read_bytes() if about.cover else _cover(crop[0], maps[0])
    )
    # A value near zero is off by the float rounding of the large ones it was summed from.
    absolute = {o.id: 1e-4 * float(np.abs(values).max()) for o, values in zip(outputs, maps, strict=True)}
    exporters = {"onnx": export_encoder_onnx, "torchscript": export_encoder_torchscript}
    with tempfile.TemporaryDirectory(prefix="forestbridge-") as folder:
        validation: list[dict[str, Any]] = []
        for weights in (w for w in FORMATS if w in formats):
            file = Path(folder) / WEIGHT_FILES[weights]
            validation.append(validation_row(weights, exporters[weights](encoder, file, image=crop[0])))
            files[file.name] = file.read_bytes()
        temporary = Path(folder) / path.name

        def pack(verdicts: Sequence[ConsumerVerdict], per_million: int) -> PackageInfo:
            readme = encoder_readme(
                spec,
                about,
                file_name=path.name,
                outputs={o.id: (len(o.channels), o.stride) for o in outputs},
                validation=validation,
                verdicts=verdicts,
                test_image=origin,
                weights=weights_text(spec),
            )
            whole = files | {"README.md": readme.encode()}
            description = describe_encoder_package(
                spec,
                about,
                axes=spatial_axes(spec),
                outputs=outputs,
                weights={w: WEIGHT_FILES[w] for w in FORMATS if w in formats},
                hashes={name: hashlib.sha256(data).hexdigest() for name, data in whole.items()},
                deviations={row["format"]: row["max_abs"] for row in validation},
                network=weights_facts(spec),
                absolute=absolute,
                per_million=per_million,
            )
            temporary.write_bytes(zip_files(whole | {"rdf.yaml": to_yaml(description)}))
            return inspect_package(temporary)

        report = pack_and_check(pack)
        if not report.good:
            raise PackageError(
                f"expected a package that reproduces its own test, found:\n{format_check(report)}\nnothing was written"
            )
        with new_file(path, overwrite=overwrite) as final:
            final.write_bytes(temporary.read_bytes())
    return replace(report, path=path)


def _complete(about: About, name: str, spec: EncoderSpec) -> About:
    """Fill in what the person left out; licence and citation of published weights are those of their authors."""
    full_name = about.name or model_name(name)
    facts = weights_facts(spec)
    license = about.license
    if license == DEFAULT_LICENSE and facts.get("published"):
        license = facts["licence"].split(";")[0]
    return replace(
        about,
        name=full_name,
        id=about.id or model_id(full_name),
        description=about.description
        or f"Feature maps of {spec.name}, {spec.n_features} per pixel, for pixel classification. Made with forestbridge.",
        license=license,
        cite=(DEFAULT_CITE[0], *weights_citation(spec)) if about.cite == DEFAULT_CITE else about.cite,
    )


def _in_range(crop: NDArray[np.float32], spec: EncoderSpec) -> NDArray[np.float32]:
    """Return synthetic intensities between the two that become black and white."""
    low, high = (
        np.array(spec.intensity.get(key, [end])).reshape(-1, 1, 1) for key, end in (("low", 0.0), ("high", 1.0))
    )
    share = (crop - crop.min()) / max(float(np.ptp(crop)), 1e-30)
    return (low + share * (high - low)).astype(np.float32)


def _identifier(text: str) -> str:
    """Return a name as bioimageio.spec up to 0.5.10 takes it."""
    name = re.sub(r"[^0-9A-Za-z_]+", "_", text)
    return f"feature_{name}" if not name or name[0].isdigit() else name


def _tensor_id(text: str) -> str:
    name = _identifier(text).lower()[:32]
    return f"map_{name}"[:32] if name == "raw" else name


def _cover(crop: NDArray[np.float32], values: NDArray[np.float32]) -> bytes:
    """Draw the feature of the first map that varies most, in four colours, over the test image."""
    feature = values[values.reshape(len(values), -1).std(axis=1).argmax()]
    quarter = np.digitize(feature, np.quantile(feature, [0.25, 0.5, 0.75])) + 1
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(crop.shape[1:], feature.shape, strict=True))
    labels = quarter[np.ix_(rows, columns)].astype(np.uint8)  # (T, T)
    return draw_cover(crop, labels, (1, 2, 3, 4), _COLOURS)
