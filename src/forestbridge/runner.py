"""`open_package(path).predict(image)`: run a package's ONNX weights, tile by tile, with onnxruntime alone.

Tiles are windows of one size that slide to stay inside the image: a border of the image is a border of a tile, where the graph
reflects as it does on the whole image. An image too small for the graph is continued by reflection, and the result cut off.
Memory is bounded by the tile, not by the image.

Packages of deep encoders, whose values depend on where their tiles lie, run on the grid of tiles of the feature store.
"""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import (
    PackageInfo,
    check_graph_against_rdf,
    inspect_package,
    onnx_session,
    read_member,
    require_trust,
    run_session,
)
from forestbridge.assemble import Classes, Kind, Piece, answer_of, assemble
from forestbridge.encoders.features import check_image, tiles_of
from forestbridge.encoders.fixed_tiles import core_of, package_halo, package_sides, read_whole_tile
from forestbridge.errors import ImageError, PackageError
from forestbridge.files import check_output
from forestbridge.image import Image, as_image
from forestbridge.labels import DEFAULT_COLOURS
from forestbridge.spec import EncoderSpec
from forestbridge.tiles import plan_windows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TILE = {2: 512, 3: 96}
"""Wanted length of a window by number of spatial axes. A fused filter bank takes about 13 bytes per feature and pixel: 170 MB at 512²
and 49 features. With all scales in 3D the smallest window is 128³: 1.7 GB with 61 features.
"""


class _Axis(NamedTuple):
    """A spatial axis of the input: allowed lengths are ``minimum + n·step``, or `minimum` alone where step is 0.

    An image shorter than `minimum` and at least `least` long goes through the graph as it is. The graphs of forestbridge take
    such images and reflect at their borders as the encoder does; what rdf.yaml promises to other programs is on the safe side.
    """

    id: str
    minimum: int
    step: int
    halo: int
    least: int


class Package:
    """A package that is open for prediction; it holds the ONNX session."""

    def __init__(
        self, info: PackageInfo, session: "InferenceSession", axes: tuple[_Axis, ...], classes: Classes
    ) -> None:
        self.info = info
        self.classes = classes
        self._session = session
        self._axes = axes

    def predict(
        self,
        image: Image | NDArray,
        *,
        kind: Kind = "probabilities",
        out: str | Path | None = None,
        overwrite: bool = False,
        tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        format: str | None = None,
    ) -> Any:
        """Classify every pixel of an image.

        Parameters
        ----------
        image
            An image, or an array (Y, X), (C, Y, X) or (C, Z, Y, X). Stacks and series go plane by plane through 2D packages.
        kind, out, overwrite, progress, format
            As in `forestbridge.predict`.
        tile
            Wanted length of a window in pixels; the nearest allowed length is taken.

        Returns
        -------
        result
            Probabilities (K, Y, X) float32, for stacks and series (T, K, Z, Y, X) without the axes that the image does not have;
            labels and uncertainty without K. With `out` its path.

        Raises
        ------
        ImageError
            If the number of channels is not the package's, or filters along z meet fewer than three planes.
        PackageError
            If the graph does not do what rdf.yaml says.
        OutputExistsError
            If `out` exists.
        """
        image = as_image(image)
        self._check_image(image)
        if out is not None:
            check_output(out, overwrite=overwrite)
        provenance = {"package": self.info.path.name, "sha256": self.info.sha256, "image": image.source}
        return assemble(
            self._pieces(image, kind, tile, progress),
            image,
            self.classes,
            kind=kind,
            out=out,
            overwrite=overwrite,
            format=format,
            provenance=provenance,
        )

    def _check_image(self, image: Image) -> None:
        [channel] = [a for a in self.info.inputs[0].axes if a.type == "channel"]
        wanted = channel.size or len(channel.channel_names)
        if image.n_channels != wanted:
            raise ImageError(
                f"{image.source}: expected {wanted} channel(s) for the package {self.info.name}, found {image.n_channels}; "
                "choose them with --channels (read_image(..., channels=[...]))"
            )
        if self.info.spec is not None:
            check_image(self.info.spec, image)  # as `forestbridge.predict` does

    def _pieces(
        self, image: Image, kind: Kind, tile: int | None, progress: Callable[[int, int], None] | None
    ) -> Iterator[Piece]:
        if self.info.spec is not None and self.info.spec.tile is not None:
            yield from self._grid_pieces(image, self.info.spec, kind, progress)
            return
        flat = len(self._axes) == 2
        sizes = [image.sizes[a.id.upper()] for a in self._axes]
        wanted = tile or TILE[len(self._axes)]
        units = list(image.planes()) if flat else [(t, None) for t in range(image.sizes["T"])]
        windows = list(
            product(*(_windows(n, a, wanted, self.info.path.name) for n, a in zip(sizes, self._axes, strict=True)))
        )
        for u, (t, z) in enumerate(units):
            for n, window in enumerate(windows):
                core = tuple(c for c, _ in window)
                outer = tuple(slice(w.start, min(w.stop, size)) for (_, w), size in zip(window, sizes, strict=True))
                pixels = image.region(outer, t=t, z=z)
                missing = [(0, 0)] + [(0, w.stop - o.stop) for (_, w), o in zip(window, outer, strict=True)]
                if any(after for _, after in missing):
                    pixels = np.pad(pixels, missing, mode="reflect")
                result = self._run(pixels)
                kept = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in window)
                yield Piece(t, z, core, answer_of(result[(slice(None), *kept)], kind, self.classes.values))
                if progress:
                    progress(u * len(windows) + n + 1, len(units) * len(windows))

    def _grid_pieces(
        self, image: Image, spec: EncoderSpec, kind: Kind, progress: Callable[[int, int], None] | None
    ) -> Iterator[Piece]:
        tiles = tiles_of(spec, image)
        for n, place in enumerate(tiles, 1):
            core = core_of(self._run(read_whole_tile(image, spec, place)), spec, place)
            yield Piece(place.t, place.z, place.tile.core, answer_of(core, kind, self.classes.values))
            if progress:
                progress(n, len(tiles))

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (K, ...) output for a (C, ...) input of the same spatial shape."""
        result = run_session(self._session, [pixels[None]])[0]
        expected = (1, len(self.classes.values), *pixels.shape[1:])
        if result.shape != expected:
            raise PackageError(
                f"{self.info.path}: expected an output of shape {expected} for an input of {pixels[None].shape}, found {result.shape}; "
                "the graph does not do what rdf.yaml says"
            )
        return result[0]


def open_package(
    path: str | Path, *, device: str = "cpu", threads: int | None = None, trust: str | None = None
) -> Package:
    """Open a package for prediction with its ONNX weights.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1", or "auto".
    threads
        Threads on the CPU; all cores by default.
    trust
        "sha256:<hash of the zip>" for packages that carry code besides the weights.

    Raises
    ------
    PackageError
        If the package is damaged, has no ONNX weights, or is not image → classes: one input, one output of the same size, axes b c y x or
        b c z y x, no steps before or after the model.
    TrustError
        If it carries code that would run, and `trust` is not its hash.
    ResourceError
        If the device is not there.
    """
    info = inspect_package(path)
    require_trust(info, trust, weights="onnx")
    weights = info.weights_of("onnx")
    if weights is None:
        found = ", ".join(w.format for w in info.weights)
        raise PackageError(
            f"{info.path}: expected ONNX weights, found {found}; export the package with --formats onnx torchscript"
        )
    axes = _read_axes(info)
    if info.onnx is not None:
        check_graph_against_rdf(info, info.onnx)
    fixed = info.spec is not None and info.spec.tile is not None
    session = onnx_session(read_member(info, weights.source), device=device, threads=threads, arena=not fixed)
    return Package(info, session, axes, _classes(info))


def _read_axes(info: PackageInfo) -> tuple[_Axis, ...]:
    """Return the spatial axes, after checking that the package maps an image to classes."""

    def require(good: bool, found: str) -> None:
        if not good:
            raise PackageError(
                f"{info.path}: expected a package from image to classes (one float32 input, one float32 output of the same size, "
                f"axes b c y x or b c z y x, no processing steps), found {found}; packages of feature maps are run with forestbridge.engine"
            )

    require(len(info.inputs) == len(info.outputs) == 1, f"{len(info.inputs)} inputs and {len(info.outputs)} outputs")
    require(info.kind in ("fused", "foreign"), f"a package of kind {info.kind!r}")
    source, result = info.inputs[0], info.outputs[0]
    ids = ["b" if a.type == "batch" else "c" if a.type == "channel" else a.id for a in source.axes]
    require("".join(ids) in ("bcyx", "bczyx"), f"the input axes {' '.join(ids)}")
    require(source.dtype == result.dtype == "float32", f"the dtypes {source.dtype} and {result.dtype}")
    require(
        [a.id for a in source.axes] == [a.id for a in result.axes],
        f"the output axes {' '.join(a.id for a in result.axes)}",
    )
    require(not source.steps and not result.steps, f"the steps {', '.join((*source.steps, *result.steps))}")
    axes = []
    for a, b in zip(source.axes[2:], result.axes[2:], strict=True):
        same = (b.reference == (source.id, a.id) and b.ratio == 1 and b.offset == 0) or (
            a.size is not None and a.size == b.size
        )
        require(same, f"another size of {b.id} in the output")
        minimum = a.size or a.min or 1
        least = min(minimum, b.halo + 1) if info.kind == "fused" else minimum
        axes.append(_Axis(a.id, minimum, 0 if a.size else a.step or 0, b.halo, least))
    if info.spec is not None and info.spec.tile is not None:
        tile = list(zip(package_sides(info.spec), package_halo(info.spec), strict=True))
        found = [(axis.minimum, axis.halo) for axis in axes]
        require(found == tile, f"tiles and halos {found} where its encoder has {tile}")
    return tuple(axes)


def _classes(info: PackageInfo) -> Classes:
    """Return the painted values, names and colours; 1..K and the channel names for packages of others."""
    [channel] = [a for a in info.outputs[0].axes if a.type == "channel"]
    entries = info.metadata.get("classes")
    n = channel.size or len(channel.channel_names)
    if not entries:
        names = channel.channel_names or tuple(f"class {k + 1}" for k in range(n))
        return Classes(
            tuple(range(1, n + 1)), tuple(names), tuple(DEFAULT_COLOURS[k % len(DEFAULT_COLOURS)] for k in range(n))
        )
    try:
        classes = Classes(
            tuple(int(e["value"]) for e in entries),
            tuple(str(e["name"]) for e in entries),
            tuple(str(e["colour"]) for e in entries),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(
            f"{info.path}: expected value, name and colour of each class in config.forestbridge, found {error!r} wrong"
        ) from error
    if len(classes.values) != n:
        raise PackageError(
            f"{info.path}: expected {n} classes in config.forestbridge, one for each output channel, found {len(classes.values)}"
        )
    return classes


def _windows(size: int, axis: _Axis, wanted: int, source: str) -> list[tuple[slice, slice]]:
    """Return (core, window) slices of one axis; an image too short for any window gets one beyond its end."""

    def at_least(length: int) -> int:
        steps = -(-max(0, length - axis.minimum) // axis.step) if axis.step else 0
        return axis.minimum + steps * axis.step

    if axis.least <= size < axis.minimum:
        return [(slice(0, size), slice(0, size))]
    smallest = at_least(2 * axis.halo + 1)  # something is left of a window between its halos
    if size <= smallest and size <= at_least(size):
        return [(slice(0, size), slice(0, at_least(size)))]
    if smallest <= 2 * axis.halo:
        raise PackageError(
            f"{source}: expected windows of more than twice the halo {axis.halo} along {axis.id}, found the fixed length "
            f"{smallest}; such a package runs on images of up to that size only"
        )
    steps = (min(size, max(wanted, smallest)) - smallest) // axis.step if axis.step else 0
    return plan_windows(size, smallest + steps * axis.step, axis.halo)
