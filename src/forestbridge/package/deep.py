"""Fused packages of deep encoders: their encoder, whose weights travel, and how far tile by tile is from the feature store."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import is_package_name
from forestbridge.encoders.features import tiles_of
from forestbridge.encoders.fixed_tiles import core_of, read_whole_tile
from forestbridge.encoders.networks import DEEP_NAMES, network_of
from forestbridge.encoders.package import PackageEncoder, package_encoder_from_spec
from forestbridge.encoders.package_spec import PACKAGE
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.errors import MissingExtraError, ResourceError
from forestbridge.forest import PixelForest
from forestbridge.graphs import load_torchscript
from forestbridge.graphs.deviation import Deviation, Runner, compare_probabilities, onnx_runner
from forestbridge.graphs.encoder import MOST_BYTES, GraphEncoder, require_one_file
from forestbridge.image import Image, as_image
from forestbridge.package.origin import origin_citations, origin_facts, origin_text
from forestbridge.predict import predict
from forestbridge.spec import EncoderSpec
from forestbridge.weights import CHECKPOINTS
from forestbridge.weights.cache import published_sha256

LARGEST_IMAGE = 2
"""Tiles along each axis of the image on which a package is compared with the feature store."""


def is_deep(spec: EncoderSpec) -> bool:
    """Whether the values depend on a grid of tiles: a network, in a package of one fixed tile."""
    of_network = spec.dtype == "float16" or spec.name == PACKAGE
    return spec.tile is not None and len(spec.axes) == 2 and of_network and not spec.parts


def require_formats(formats: Sequence[str], package: str) -> None:
    """Refuse TorchScript for a forest whose encoder runs from a package: only the package's ONNX graph is taken over.

    Parameters
    ----------
    package
        Its name or path.

    Raises
    ------
    ValueError
        If it is among the formats.
    """
    if "torchscript" in formats:
        raise ValueError(
            f"expected ONNX alone for a forest over the package {package}, whose ONNX graph is taken over, found {' and '.join(formats)}; "
            "give --formats onnx (formats=['onnx']). Such a package runs in Python and in deepImageJ, and not in ilastik and QuPath, "
            "which need TorchScript"
        )


def require_small_network(name: str) -> None:
    """Refuse a network that does not fit into one ONNX file, before anybody downloads it.

    Raises
    ------
    ResourceError
        If so.
    """
    size = 4 * network_of(name).parameters
    if size > MOST_BYTES:
        raise ResourceError(
            f"expected weights of less than 2 GiB for a package, found about {size / 1e6:.0f} MB for {name}; choose a smaller encoder, "
            "such as sam2_base"
        )


def exportable_encoder(spec: EncoderSpec, *, weights: str | Path | None = None) -> GraphEncoder:
    """Return the deep encoder of a spec in operations that every runtime has.

    Parameters
    ----------
    weights
        The file with the weights, where they are neither in the cache nor the published ones; or the encoder's package, whose
        graph is taken over without torch.

    Raises
    ------
    ValueError, WeightsError, PackageError, SpecMismatchError, ResourceError
        If this version has no such encoder, its weights are not there or are others, or are too large for a package.
    MissingExtraError
        If torch or timm is not installed.
    """
    require_bilinear(spec, "a package")
    if spec.name == PACKAGE or (weights is not None and is_package_name(str(weights))):
        own = package_encoder_from_spec(spec, weights)
        require_one_file(own)
        return own
    if spec.name not in DEEP_NAMES:
        raise ValueError(
            f"expected a forest over filters or one of {', '.join(DEEP_NAMES)}, found {spec.name!r}; give its encoder "
            "(write_package(..., encoder=...))"
        )
    require_small_network(spec.name)
    try:
        from forestbridge.encoders.deep import deep_encoder_from_spec
    except ImportError as error:
        raise MissingExtraError(f"the encoder {spec.name}", "torch") from error
    encoder = deep_encoder_from_spec(spec, weights=weights, exportable=True)
    require_one_file(encoder)
    return encoder


def weights_facts(spec: EncoderSpec, network: GraphEncoder | None = None) -> dict[str, Any]:
    """Return what others must know of a network's weights: hash, and for published ones and packages licence and citation."""
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_facts(network.graph.info)
    facts: dict[str, Any] = {"encoder": spec.name, "sha256": spec.weights}
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == spec.name:
            same = spec.weights is not None and published_sha256(spec.name) == spec.weights
            facts |= {"published": same, "url": checkpoint.url}
            facts |= {"licence": checkpoint.licence, "citation": checkpoint.citation}
    return facts


def weights_citation(spec: EncoderSpec, network: GraphEncoder | None = None) -> tuple[dict[str, str], ...]:
    """Return the citation of a network as entries of `About.cite`; none for networks of others that are no packages."""
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_citations(network.graph.info)
    text = weights_facts(spec).get("citation")
    if text is None:
        return ()
    if found := re.search(r"doi:(\S+)", text):
        return ({"text": text, "doi": found.group(1)},)
    found = re.search(r"arXiv:(\S+)", text)
    return ({"text": text, "url": f"https://arxiv.org/abs/{found.group(1)}" if found else weights_facts(spec)["url"]},)


def weights_text(spec: EncoderSpec, network: GraphEncoder | None = None) -> str:
    """Return the section of a README on the weights inside a package."""
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_text(network.graph.info)
    facts = weights_facts(spec)
    lines = [f"The package holds the weights of {spec.name} (sha256 of the original file `{facts['sha256']}`)."]
    if "licence" in facts:
        whose = "as published" if facts["published"] else "not the published ones; those are"
        lines.append(f"They are {whose} at <{facts['url']}>, licence: {facts['licence']}. Cite: {facts['citation']}.")
    return "## Weights of the encoder\n\n" + " ".join(lines)


def file_runner(path: Path) -> Runner:
    """Return how to run a weight file that this process wrote."""
    return onnx_runner(path) if path.suffix == ".onnx" else load_torchscript(path.read_bytes())


def compare_with_store(forest: PixelForest, encoder: GraphEncoder, run: Runner, image: Image) -> list[dict[str, Any]]:
    """Compare a graph, tile by tile, with the features as a store holds them, and the engine.

    In a store a pixel near a core's edge lies between cells of two tiles; the graph of a tile has its own cells there. And at the
    image's edge a store has no cells beyond, where a tile has those of the reflection.

    Returns
    -------
    rows
        Two rows of a package's validation: inside, and nearer to the image's edge than the largest stride.
    """
    spec = encoder.spec
    expected = predict(image, forest, encoder=encoder, jobs=1)  # type: ignore[arg-type]
    found = np.empty_like(expected)
    for place in tiles_of(spec, image):
        result = run(read_whole_tile(image, spec, place)[None])[0]
        found[(slice(None), *place.tile.core)] = core_of(result, spec, place)
    margin = int(max(m.stride for m in spec.maps))
    edge = np.ones(expected.shape[1:], bool)
    edge[margin:-margin, margin:-margin] = False
    return [_row("store", found, expected, ~edge), _row("store_edge", found, expected, edge)]


def _row(name: str, found: NDArray, expected: NDArray, where: NDArray[np.bool_]) -> dict[str, Any]:
    deviation = compare_probabilities(found[:, where], expected[:, where]) if where.any() else Deviation(0.0, 0, 0)
    return validation_row(name, deviation, pixels=int(np.count_nonzero(where)))


def validation_row(name: str, deviation: Deviation, *, pixels: int | None = None) -> dict[str, Any]:
    """Return a row of the README's table."""
    return {
        "format": name,
        "max_abs": float(f"{deviation.max_abs:.1e}"),
        "label_flips": deviation.label_flips,
        "pixels": deviation.pixels if pixels is None else pixels,
    }


def comparison_image(image: Image, spec: EncoderSpec) -> Image:
    """Return the middle of an image's first frame, of at most `LARGEST_IMAGE` tiles along each axis."""
    assert spec.tile is not None
    slices: Sequence[slice] = [
        slice(max(0, (n - LARGEST_IMAGE * c) // 2), max(0, (n - LARGEST_IMAGE * c) // 2) + min(n, LARGEST_IMAGE * c))
        for n, c in zip((image.sizes["Y"], image.sizes["X"]), spec.tile, strict=True)
    ]
    return as_image(image.region(tuple(slices), t=0, z=image.sizes["Z"] // 2), axes="CYX")
