"""Encoders from packages: a bioimage.io model with maps as outputs, run through ONNX Runtime.

    tile, clipped at the image's border ──reflect──▶ T × T ──steps──▶ graph ──▶ maps of T × T ──crop──▶ cells of the core

An encoder package of ours (``ff-package encoder``) brings the spec of the encoder that it was made from, and is that encoder. Of a package
of others the spec is measured: `forestbridge.encoders.package_spec`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo
from forestbridge.encoders.intensity import images_of_one_kind
from forestbridge.encoders.package_graph import PackageGraph, inspect_encoder
from forestbridge.encoders.package_spec import PACKAGE, VERSION, measured_spec
from forestbridge.encoders.package_steps import STEPS, Step, apply_steps, freeze_steps, read_steps
from forestbridge.errors import ImageError, PackageError, SpecMismatchError
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec, require_same_spec
from forestbridge.tiles import whole_tile


def open_package_encoder(
    path: str | Path,
    *,
    images: Sequence[Image | NDArray] | Image | NDArray | None = None,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    channels: int | None = None,
    tile: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    trust: str | None = None,
) -> "PackageEncoder":
    """Make an encoder of a package.

    Parameters
    ----------
    path
        NAME.zip.
    images
        Over which constants are measured where the package would take them from each tile (scale_range, zero_mean_unit_variance). An
        encoder package of ours has its constants, and measures nothing.
    low, high
        Raw intensities, one per channel, in place of the percentiles of scale_range.
    channels
        Of the images, if that shall be checked.
    tile
        Side of a tile with its halo in pixels, where the model leaves the choice; by default `TILE`, or what is allowed next to it.
    device
        "cpu", "cuda", "cuda:1", or "auto". What is measured is measured on the CPU.
    threads
        Threads on the CPU; all cores by default.
    trust
        "sha256:<hash of the zip>" for packages that carry code besides the weights.

    Raises
    ------
    PackageError
        If the package is damaged, has no ONNX weights, or is not one from a 2D image to maps on a grid of whole strides.
    TrustError
        If it carries code that would run, and `trust` is not its hash.
    ImageError, ValueError
        If images or options do not fit the package.
    ResourceError
        If the device is not there, or onnxruntime is not installed.
    """
    opened = None if images is None else images_of_one_kind(images)
    limits = None if low is None or high is None else (low, high)
    info = inspect_encoder(path, trust)
    graph = PackageGraph(info, device=device, threads=threads)
    _check_channels(info, graph.channels, opened[0] if opened else None, channels)
    if info.kind == "encoder":
        spec = _own_spec(info, graph)
        _check_own_options(info, spec, limits, tile)
        return PackageEncoder(spec, graph, [])
    steps = read_steps(info, info.inputs[0])
    frozen = freeze_steps(steps, images=opened, limits=limits, source=str(info.path))
    spec = measured_spec(graph if device == "cpu" else PackageGraph(info, threads=threads), frozen, tile)
    return PackageEncoder(spec, graph, frozen)


def package_encoder_from_spec(
    spec: EncoderSpec,
    path: str | Path | None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    trust: str | None = None,
) -> "PackageEncoder":
    """Make the encoder of a spec from the package that it was made with; nothing is measured again.

    Parameters
    ----------
    spec
        Of a store or forest: measured on a package of others, or of a deep encoder that an encoder package of ours holds.
    path
        The package.

    Raises
    ------
    SpecMismatchError
        If it is another package.
    PackageError, TrustError, ResourceError
        As `open_package_encoder`.
    ValueError
        If no package is given, or the spec was edited.
    """
    if path is None:
        raise ValueError(
            f"expected the package {spec.options.get('package')!r} with ONNX weights of the sha256 {spec.weights}, whose maps the forest "
            "or store was made with, found none; give it with --weights FILE.zip (encoder_from_spec(spec, weights=...))"
        )
    info = inspect_encoder(path, trust)
    if info.kind == "encoder" and info.spec is not None:
        remedy = "give the package that was made from this encoder"
        require_same_spec(
            spec, info.spec, expected_by="the store or forest", found_in=f"the package {info.path}", remedy=remedy
        )
        graph = PackageGraph(info, device=device, threads=threads)
        return PackageEncoder(_own_spec(info, graph), graph, [])
    graph = PackageGraph(info, device=device, threads=threads)
    if spec.name != PACKAGE or spec.weights != graph.sha256 or dict(spec.options) != graph.facts():
        raise SpecMismatchError(
            f"the store or forest expects the features of {spec} from {spec.options.get('package', spec.name)!r} with the weights "
            f"{spec.weights}, {info.path} is {info.name!r} with the ONNX weights {graph.sha256}; give that package"
        )
    steps = spec.intensity.get("steps", [])
    if spec.version != VERSION or not all(isinstance(s, Mapping) and s.get("step") in STEPS for s in steps):
        raise ValueError(
            f"expected a spec of {PACKAGE} version {VERSION} with the steps {', '.join(STEPS)}, found version {spec.version} or other "
            "steps; use the forestbridge that made it, or extract and train again"
        )
    return PackageEncoder(spec, graph, list(steps))


class PackageEncoder:
    """A package as an encoder; threads may share it. It holds the ONNX session.

    Attributes
    ----------
    spec
        Everything that decides the values.
    graph, steps
        What runs, and the frozen steps before it.
    """

    def __init__(self, spec: EncoderSpec, graph: PackageGraph, steps: Sequence[Step]) -> None:
        assert spec.tile is not None
        self.spec = spec
        self.graph = graph
        self.steps = steps
        self._sides = [core + 2 * halo for core, halo in zip(spec.tile, spec.halo, strict=True)]

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the maps of a tile's core, see `forestbridge.encoders.Encoder.encode`.

        Raises
        ------
        PackageError
            As `whole_maps`.
        """
        found = []
        maps = self.whole_maps(whole_tile(tile, core, self._sides, self.spec.halo))
        for m, values in zip(self.spec.maps, maps, strict=True):
            first = [round(halo / m.stride) for halo in self.spec.halo]
            counts = [m.n_cells(c.stop - c.start) for c in core]
            rows, columns = (slice(f, f + n) for f, n in zip(first, counts, strict=True))
            found.append(np.ascontiguousarray(values[:, rows, columns], np.float32))
        return tuple(found)

    def whole_maps(self, tile: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the (F, t, t) maps of a whole tile (C, T, T), its halo included.

        Raises
        ------
        PackageError
            If the graph gives other maps than the spec says, or values that are not finite.
        """
        maps = tuple(self.graph(apply_steps(self.steps, tile)))
        for m, values in zip(self.spec.maps, maps, strict=True):
            expected = (len(m.channels), *(int(side / m.stride) for side in self._sides))
            if values.shape != expected:
                raise PackageError(
                    f"{self.graph.info.path}: expected the map {m.name} of shape {expected}, found {values.shape}; the graph does not do "
                    "what its spec says: write the package again"
                )
            if bad := int(np.count_nonzero(~np.isfinite(values))):
                raise PackageError(
                    f"{self.graph.info.path}: expected finite features, found {bad} values of the map {m.name} that are NaN or infinite; "
                    "check the image, or use another model"
                )
        return maps


def _check_channels(info: PackageInfo, wanted: int, image: Image | None, channels: int | None) -> None:
    """Refuse images of other channels: a grey image is not repeated as red, green and blue."""
    found = image.n_channels if image is not None else channels
    if found is not None and found != wanted:
        where = f"{image.source}: " if image is not None else ""
        text = (
            f"{where}expected {wanted} channel(s) for the package {info.name} ({info.path}), found {found}; choose them with --channels "
            "(read_image(..., channels=[...])), or another encoder"
        )
        raise ImageError(text) if image is not None else ValueError(text)


def _own_spec(info: PackageInfo, graph: PackageGraph) -> EncoderSpec:
    """Return the spec of an encoder package, after checking that it is that of the package's tensors."""
    spec = info.spec
    problem = None
    if (
        spec is None
        or spec.tile is None
        or spec.parts
        or spec.axes != "yx"
        or len(spec.tile) != len(spec.halo)
        or len(spec.tile) != 2
    ):
        problem = "none of a fixed 2D tile"
    elif (
        graph.facts()["axes"] != "bcyx"
        or info.inputs[0].dtype != "float32"
        or info.inputs[0].steps
        or any(t.steps for t in graph.maps)
    ):
        problem = "tensors with other axes, dtypes or steps than b c y x, float32 and none"
    elif spec.channels != graph.channels or len(spec.maps) != len(graph.maps):
        problem = f"one of {spec.channels} channel(s) and {len(spec.maps)} maps for {graph.channels} and {len(graph.maps)} in rdf.yaml"
    elif [a.size for a in graph.space] != [c + 2 * h for c, h in zip(spec.tile, spec.halo, strict=True)]:
        problem = f"a tile {spec.tile} with the halo {spec.halo} for an input of {[a.size for a in graph.space]}"
    elif any(n % m.stride for m in spec.maps for n in (*spec.tile, *spec.halo) if m.stride >= 1) or any(
        m.stride < 1 for m in spec.maps
    ):
        problem = "tiles that are no whole number of cells"
    if problem:
        raise PackageError(
            f"{info.path}: expected under config.forestbridge the spec of the encoder in the package, found {problem}; write the package "
            "again with ff-package encoder"
        )
    assert spec is not None
    return spec


def _check_own_options(
    info: PackageInfo, spec: EncoderSpec, limits: tuple[Sequence[float], Sequence[float]] | None, tile: int | None
) -> None:
    """Refuse options that would contradict an encoder package.

    Raises
    ------
    ValueError
        If there is one.
    """
    assert spec.tile is not None
    side = spec.tile[0] + 2 * spec.halo[0]
    own = (spec.intensity.get("low"), spec.intensity.get("high"))
    wrong = [] if tile in (None, side) else [f"tile {tile}"]
    if limits is not None and tuple([float(v) for v in ends] for ends in limits) != own:
        wrong.append(f"intensities {list(limits[0])} to {list(limits[1])}")
    if wrong:
        raise ValueError(
            f"expected the settings of the package {info.path}, tile {side} and intensities {own[0]} to {own[1]}, found "
            f"{' and '.join(wrong)}; leave them out, or write the package again with others (ff-package encoder)"
        )
