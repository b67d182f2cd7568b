"""Fused packages of deep encoders: their encoder, whose weights travel, and how far tile by tile is from the feature store."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import encoder_from_spec, is_package_name
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.encoders.features import tiles_of
from forestbridge.encoders.fixed_tiles import core_of, read_whole_tile
from forestbridge.encoders.networks import DEEP_NAMES, network_of
from forestbridge.encoders.package import PackageEncoder
from forestbridge.encoders.package_spec import PACKAGE
from forestbridge.encoders.patchwise import require_bilinear
from forestbridge.errors import MissingExtraError, ResourceError
from forestbridge.forest import PixelForest
from forestbridge.graphs import load_torchscript
from forestbridge.graphs.deviation import Deviation, Runner, compare_probabilities, onnx_runner
from forestbridge.graphs.encoder import MOST_BYTES, require_one_file
from forestbridge.graphs.parts import TileEncoder, networks_of, require_one_core, tile_parts
from forestbridge.image import Image, as_image
from forestbridge.package.origin import origin_citations, origin_facts, origin_text
from forestbridge.predict import predict
from forestbridge.spec import EncoderSpec
from forestbridge.weights import CHECKPOINTS
from forestbridge.weights.cache import published_sha256

LARGEST_IMAGE = 2
"""Tiles along each axis of the image on which a package is compared with the feature store."""


def is_deep(spec: EncoderSpec) -> bool:
    """Whether the values depend on a grid of tiles: a network, or a combination with one, in a package of one fixed tile."""
    of_network = "float16" in spec.dtypes or PACKAGE in [part.name for part in spec.parts or (spec,)]
    return spec.tile is not None and len(spec.axes) == 2 and of_network


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


def networks_in(spec: EncoderSpec) -> list[EncoderSpec]:
    """Return the parts with weights, for an encoder alone itself."""
    return [part for part in spec.parts or (spec,) if part.name != "filters"]


def require_small_network(*names: str) -> None:
    """Refuse networks that do not fit into one ONNX file together, before anybody downloads them.

    Raises
    ------
    ResourceError
        If so.
    """
    size = 4 * sum(network_of(name).parameters for name in names)
    if size > MOST_BYTES:
        raise ResourceError(
            f"expected weights of less than 2 GiB for a package, found about {size / 1e6:.0f} MB for {' and '.join(names)}; choose a "
            "smaller encoder, such as sam2_base"
        )


def exportable_encoder(
    spec: EncoderSpec, *, weights: str | Path | Mapping[str, str | Path] | None = None
) -> TileEncoder:
    """Return the deep encoder of a spec, or the combination, in operations that every runtime has.

    Parameters
    ----------
    weights
        The file with the weights, or of each network by its name, where they are neither in the cache nor the published ones; or the
        encoder's package, whose graph is taken over without torch.

    Raises
    ------
    ForestError
        If networks of a combination see tiles of different cores.
    ValueError, WeightsError, PackageError, SpecMismatchError, ResourceError
        If this version has no such encoder, its weights are not there or are others, or are too large for a package.
    MissingExtraError
        If torch or timm is not installed.
    """
    require_bilinear(spec, "a package")
    is_package = weights is not None and is_package_name(str(weights))
    if spec.name == PACKAGE or (is_package and not spec.parts):
        own = encoder_from_spec(spec, weights=weights)
        assert isinstance(own, PackageEncoder)
        require_one_file(own)
        return own
    networks = networks_in(spec)
    if is_package:
        raise ValueError(
            f"expected the weights of {spec.name} as files of its networks, found the package {weights}, whose graph is taken over for an "
            "encoder alone only; give the networks' own weights, or leave --weights out where they are in the cache"
        )
    if strange := [part.name for part in networks if part.name not in DEEP_NAMES]:
        raise ValueError(
            f"expected a forest over filters, one of {', '.join(DEEP_NAMES)}, or several of these, found {spec.name!r} with "
            f"{', '.join(strange)}; give its encoder (write_package(..., encoder=...)), or predict with the .forest file, which needs no "
            "package"
        )
    require_one_core(spec)
    require_small_network(*(part.name for part in networks))
    try:
        from forestbridge.encoders.deep import DeepEncoder
    except ImportError as error:
        raise MissingExtraError(f"the encoder {spec.name}", "torch") from error
    encoder = encoder_from_spec(spec, weights=weights, exportable=True)
    assert isinstance(encoder, DeepEncoder | CombinedEncoder)
    require_one_file(*networks_of(tile_parts(encoder)))
    return encoder


def weights_facts(spec: EncoderSpec, network: TileEncoder | None = None) -> dict[str, Any]:
    """Return what others must know of a network's weights: hash, and for published ones and packages licence and citation.

    For several networks ``parts`` has that of each.
    """
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_facts(network.graph.info)
    networks = networks_in(spec)
    if len(networks) > 1:
        return {"encoder": spec.name, "parts": [weights_facts(part) for part in networks]}
    [part] = networks
    facts: dict[str, Any] = {"encoder": part.name, "sha256": part.weights}
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == part.name:
            same = part.weights is not None and published_sha256(part.name) == part.weights
            facts |= {"published": same, "url": checkpoint.url}
            facts |= {"licence": checkpoint.licence, "citation": checkpoint.citation}
    return facts


def weights_citation(spec: EncoderSpec, network: TileEncoder | None = None) -> tuple[dict[str, str], ...]:
    """Return the citations of the networks as entries of `About.cite`; none for networks of others that are no packages."""
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_citations(network.graph.info)
    return tuple(entry for part in networks_in(spec) for entry in _citation(weights_facts(part)))


def _citation(facts: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    text = facts.get("citation")
    if text is None:
        return ()
    if found := re.search(r"doi:(\S+)", text):
        return ({"text": text, "doi": found.group(1)},)
    found = re.search(r"arXiv:(\S+)", text)
    return ({"text": text, "url": f"https://arxiv.org/abs/{found.group(1)}" if found else facts["url"]},)


def weights_text(spec: EncoderSpec, network: TileEncoder | None = None) -> str:
    """Return the section of a README on the weights inside a package."""
    if spec.name == PACKAGE and isinstance(network, PackageEncoder):
        return origin_text(network.graph.info)
    paragraphs = []
    for facts in map(weights_facts, networks_in(spec)):
        lines = [
            f"The package holds the weights of {facts['encoder']} (sha256 of the original file `{facts['sha256']}`)."
        ]
        if "licence" in facts:
            whose = "as published" if facts["published"] else "not the published ones; those are"
            lines.append(
                f"They are {whose} at <{facts['url']}>, licence: {facts['licence']}. Cite: {facts['citation']}."
            )
        paragraphs.append(" ".join(lines))
    return "\n\n".join(["## Weights of the encoder", *paragraphs])


def file_runner(path: Path) -> Runner:
    """Return how to run a weight file that this process wrote."""
    return onnx_runner(path) if path.suffix == ".onnx" else load_torchscript(path.read_bytes())


def compare_with_store(forest: PixelForest, encoder: TileEncoder, run: Runner, image: Image) -> list[dict[str, Any]]:
    """Compare a graph, tile by tile, with the features as a store holds them, and the engine.

    In a store a pixel near a core's edge lies between cells of two tiles; the graph of a tile has its own cells there. And at the
    image's edge a store has no cells beyond, where a tile has those of the reflection; and filters in several steps reflect the
    result of each at the image's edge, which for products of derivatives is not what follows from reflected pixels.

    Returns
    -------
    rows
        Two rows of a package's validation: inside, and nearer to the image's edge than `edge_width`.
    """
    spec = encoder.spec
    expected = predict(image, forest, encoder=encoder, jobs=1)  # type: ignore[arg-type]
    found = np.empty_like(expected)
    for place in tiles_of(spec, image):
        result = run(read_whole_tile(image, spec, place)[None])[0]
        found[(slice(None), *place.tile.core)] = core_of(result, spec, place)
    margin = edge_width(spec)
    edge = np.ones(expected.shape[1:], bool)
    edge[margin:-margin, margin:-margin] = False
    return [_row("store", found, expected, ~edge), _row("store_edge", found, expected, edge)]


def edge_width(spec: EncoderSpec) -> int:
    """Return how many pixels from the image's edge a package differs from a store: the largest stride, or what a filter sees."""
    reach = [max(part.halo) for part in spec.parts if part.name == "filters"]
    return int(max(*(m.stride for m in spec.maps), *reach, 1))


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
