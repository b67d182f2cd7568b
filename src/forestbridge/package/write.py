"""Writing packages: graphs, test tensors, description and zip, checked before they appear under their name."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo, inspect_package
from forestbridge.assemble import labels_of
from forestbridge.consumers import ConsumerVerdict
from forestbridge.encoders.base import encoder_from_spec
from forestbridge.encoders.features import features
from forestbridge.encoders.package import PackageEncoder
from forestbridge.engine import predict as run_forest
from forestbridge.errors import ForestError, PackageError
from forestbridge.files import check_output, new_file
from forestbridge.forest import PixelForest
from forestbridge.graphs import (
    Deviation,
    export_deep_fused_onnx,
    export_deep_fused_torchscript,
    export_forest_onnx,
    export_forest_torchscript,
    export_fused_onnx,
    export_fused_torchscript,
)
from forestbridge.graphs.fused_deep import require_own_encoder, tile_probabilities
from forestbridge.graphs.parts import TileEncoder
from forestbridge.image import Image
from forestbridge.package.about import DEFAULT_CITE, About
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
from forestbridge.package.deep import (
    compare_with_store,
    comparison_image,
    exportable_encoder,
    file_runner,
    is_deep,
    require_formats,
    validation_row,
    weights_citation,
    weights_facts,
    weights_text,
)
from forestbridge.package.description import describe_package, to_yaml
from forestbridge.package.geometry import crop_center, spatial_axes
from forestbridge.package.names import channel_identifiers, model_id, model_name
from forestbridge.package.origin import with_origin
from forestbridge.package.readme import package_readme
from forestbridge.spec import EncoderSpec

_log = logging.getLogger(__name__)

MAX_COVER_BYTES = 500_000
"""What the zoo asks for."""

COVER_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif")


def write_package(
    path: str | Path,
    forest: PixelForest,
    *,
    image: Image | NDArray | None = None,
    name: str | None = None,
    about: About | None = None,
    formats: Sequence[str] = FORMATS,
    encoder: TileEncoder | None = None,
    overwrite: bool = False,
) -> CheckReport:
    """Write encoder and forest as one package: image → class probabilities. This is the one that runs everywhere.

    Parameters
    ----------
    path
        NAME.zip.
    forest
        Trained on the features of the filter bank, of a deep encoder, of a package, or of a combination. A package with a network takes
        one fixed tile, and holds the network's weights once in each format; over a package, whose ONNX graph it takes over, it is ONNX
        alone.
    image
        A crop of its middle travels in the zip as test image and cover. Without one a synthetic image is used.
    name
        Of the package; replaces ``about.name``. By default made from the file name.
    about
        Authors, licence, citation, ...: all have defaults.
    formats
        "onnx" and "torchscript". Without TorchScript the package runs neither in ilastik nor in QuPath.
    encoder
        The forest's deep encoder or combination, where it is open already; by default it is made from the forest's spec. A package must
        be given.
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
        If the forest is too deep for TorchScript (10), or was not trained on an encoder's features; or on networks whose tiles have
        different cores.
    OutputExistsError, MissingExtraError, ImageError
        If the path exists, torch or onnxruntime is missing, or the image does not fit the forest.
    ResourceError
        If a deep encoder's weights are not there, or too large for a package.
    """
    exporters: Mapping[str, Callable[..., Deviation]]
    exporters = {"onnx": export_fused_onnx, "torchscript": export_fused_torchscript}
    if forest.spec is not None and (forest.spec.parts or is_deep(forest.spec)):
        check_output(path, overwrite=overwrite)
        encoder = encoder or exportable_encoder(forest.spec)
        require_own_encoder(forest, encoder)
        exporters = {"onnx": partial(export_deep_fused_onnx, encoder=encoder)}
        if isinstance(encoder, PackageEncoder):
            require_formats(formats, str(encoder.graph.info.path))
        else:
            exporters["torchscript"] = partial(export_deep_fused_torchscript, encoder=encoder)
        if about is None or about.cite == DEFAULT_CITE:  # the second entry is about the filter bank
            filters = any(part.name == "filters" for part in forest.spec.parts)
            cite = DEFAULT_CITE if filters else DEFAULT_CITE[:1]
            about = replace(about or About(), cite=(*cite, *weights_citation(forest.spec, encoder)))
    return _write(path, forest, "fused", exporters, image, name, about, formats, overwrite, network=encoder)


def write_forest_package(
    path: str | Path,
    forest: PixelForest,
    *,
    image: Image | NDArray | None = None,
    name: str | None = None,
    about: About | None = None,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
) -> CheckReport:
    """Write the forest alone as a package: feature maps → class probabilities; runs in Python only.

    Parameters, result and errors are those of `write_package`.
    """
    exporters = {"onnx": export_forest_onnx, "torchscript": export_forest_torchscript}
    return _write(path, forest, "forest", exporters, image, name, about, formats, overwrite)


def _write(
    path: str | Path,
    forest: PixelForest,
    kind: str,
    exporters: Mapping[str, Callable[..., Deviation]],
    image: Image | NDArray | None,
    name: str | None,
    about: About | None,
    formats: Sequence[str],
    overwrite: bool,
    *,
    network: TileEncoder | None = None,
) -> CheckReport:
    path = check_output(path, overwrite=overwrite)
    if path.suffix != ".zip":
        raise PackageError(f"expected a package name that ends in .zip, found {path.name}; name it so")
    spec = forest.spec
    if spec is None:
        raise ForestError(
            "expected a forest with the spec of its features, found one without; train it with forestbridge"
        )
    check_formats(formats)
    about = _complete(replace(about or About(), **({"name": name} if name else {})), path.stem, forest, kind)
    if isinstance(network, PackageEncoder):
        about = with_origin(about, network)
    channels = channel_identifiers(forest.names, forest.classes)
    source, origin = test_image(image, spec)
    crop = crop_center(source, spec)  # (1, C, ...)
    if network is not None:
        expected = tile_probabilities(forest, network, crop[0])[None]  # (1, K, T, T)
        tensors = {"raw": crop}
    else:
        planes = features(crop[0], encoder_from_spec(spec))
        expected = run_forest(forest, planes)[None]  # (1, K, ...)
        tensors = {"raw": crop} if kind == "fused" else {spec.maps[0].name: planes[None]}
    if any(
        n > image_n for n, image_n in zip(crop.shape[2:], (source.sizes[a.upper()] for a in spec.axes), strict=True)
    ):
        origin += ", continued by reflection to the smallest size that the package takes"
    with tempfile.TemporaryDirectory(prefix="forestbridge-") as folder:
        files = tensor_files({**tensors, "probabilities": expected})
        files["cover" + (about.cover.suffix.lower() if about.cover else ".png")] = _cover(about, crop, expected, forest)
        weights, validation = _export(Path(folder), forest, exporters, formats, kind, crop)
        if network is not None:
            run = file_runner(Path(folder) / next(iter(weights)))
            validation += compare_with_store(forest, network, run, comparison_image(source, spec))
        files |= weights
        axes = spatial_axes(spec)

        def pack(verdicts: Sequence[ConsumerVerdict], per_million: int) -> PackageInfo:
            readme = package_readme(
                forest,
                spec,
                about,
                kind=kind,
                file_name=path.name,
                channels=channels,
                axes=axes,
                validation=validation,
                verdicts=verdicts,
                test_image=origin,
                weights=weights_text(spec, network) if network is not None else "",
            )
            whole = files | {"README.md": readme.encode()}
            whole["rdf.yaml"] = _describe(
                whole, forest, spec, about, kind, tensors, channels, formats, validation, per_million, network
            )
            temporary.write_bytes(zip_files(whole))
            return inspect_package(temporary)

        temporary = Path(folder) / path.name
        report = pack_and_check(pack)
        if not report.good:
            raise PackageError(
                f"expected a package that reproduces its own test, found:\n{format_check(report)}\nnothing was written"
            )
        with new_file(path, overwrite=overwrite) as final:
            final.write_bytes(temporary.read_bytes())
    return replace(report, path=path)


def _complete(about: About, name: str, forest: PixelForest, kind: str) -> About:
    """Fill in what the person left out."""
    full_name = about.name or model_name(name)
    what = "pixels of an image" if kind == "fused" else "feature maps"
    description = f"Random forest that sorts {what} into {', '.join(forest.names)}. Made with forestbridge."
    return replace(
        about,
        name=full_name,
        id=about.id or model_id(full_name),
        description=(about.description or description)[:1024],
    )


def _export(
    folder: Path,
    forest: PixelForest,
    exporters: Mapping[str, Callable[..., Deviation]],
    formats: Sequence[str],
    kind: str,
    crop: NDArray[np.float32],
) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Return the weight files, and what each differs from the engine on the test image."""
    files, validation = {}, []
    for weights in FORMATS:
        if weights in formats:
            file = folder / WEIGHT_FILES[weights]
            deviation = exporters[weights](forest, file, **({"image": crop[0]} if kind == "fused" else {}))
            files[file.name] = file.read_bytes()
            validation.append(validation_row(weights, deviation))
    return files, validation


def _cover(about: About, crop: NDArray[np.float32], expected: NDArray[np.float32], forest: PixelForest) -> bytes:
    if about.cover is not None:
        size = about.cover.stat().st_size if about.cover.is_file() else None
        if size is None or size > MAX_COVER_BYTES or about.cover.suffix.lower() not in COVER_SUFFIXES:
            found = "no such file" if size is None else f"{size} bytes"
            raise PackageError(
                f"expected a {', '.join(COVER_SUFFIXES)} cover of at most {MAX_COVER_BYTES} bytes, found {about.cover} with {found}; "
                "give another, or none for one made from the test image"
            )
        return about.cover.read_bytes()
    middle = crop.shape[2] // 2
    plane = crop[0] if crop.ndim == 4 else crop[0, :, middle]
    labels = labels_of(expected[0] if expected.ndim == 4 else expected[0, :, middle], forest.classes)
    return draw_cover(plane, labels, forest.classes, forest.colours)


def _describe(
    files: Mapping[str, bytes],
    forest: PixelForest,
    spec: EncoderSpec,
    about: About,
    kind: str,
    tensors: Mapping[str, NDArray],
    channels: Sequence[str],
    formats: Sequence[str],
    validation: Sequence[Mapping[str, Any]],
    per_million: int,
    network: TileEncoder | None,
) -> bytes:
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "rdf.yaml"}
    n_inputs = next(iter(tensors.values())).shape[1]
    return to_yaml(
        describe_package(
            forest,
            spec,
            about,
            kind=kind,
            axes=spatial_axes(spec),
            input_names=list(tensors),
            channels=channels,
            weights={w: WEIGHT_FILES[w] for w in FORMATS if w in formats},
            hashes=hashes,
            deviations={row["format"]: {k: v for k, v in row.items() if k != "format"} for row in validation},
            channel_names=[f"{'channel' if kind == 'fused' else 'feature'}{n}" for n in range(n_inputs)],
            per_million=per_million,
            network=weights_facts(spec, network) if kind == "fused" and is_deep(spec) else None,
        )
    )
