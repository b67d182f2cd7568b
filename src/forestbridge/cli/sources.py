"""From paths on the command line to images, stores, scribbles and encoders."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import forestbridge as fb
from forestbridge.encoders import Encoder, encoder_from_spec
from forestbridge.encoders.base import is_package_name, split_encoders
from forestbridge.encoders.networks import DEEP_NAMES, split_name
from forestbridge.encoders.own_options import own_options
from forestbridge.errors import SpecMismatchError, StoreError
from forestbridge.ilastik import is_project
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles, share_names
from forestbridge.labels.merge import Merge
from forestbridge.spec import EncoderSpec, Interpolation
from forestbridge.stores import FEATUREFOREST, FeatureStore, is_featureforest
from forestbridge.weights.cache import check_own_file

ANNOTATIONS = {".geojson", ".json", ".roi", ".zip"}
"""Label files that carry class names themselves; names given with them choose the label values."""


class Reading(NamedTuple):
    """How image files are read: the options --axes, --channels, --nan and --scene."""

    axes: str | None = None
    channels: list[int] | None = None
    nan: float | None = None
    scene: int | None = None

    def given(self) -> list[str]:
        """Return the options that were given."""
        return [f"--{name}" for name, value in self._asdict().items() if value is not None]


def is_store(path: Path) -> bool:
    """Whether a path is a feature store, or is named like one; an OME-Zarr image lacks the forestbridge attributes."""
    if path.name.lower().endswith(".features.ome.zarr") or is_featureforest(path):
        return True
    try:
        return "spec" in json.loads((path / "zarr.json").read_bytes())["attributes"]["forestbridge"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_image(path: Path, reading: Reading) -> Image:
    """Open an image; a feature store given in its place is refused.

    Raises
    ------
    ImageError
        If it is no image.
    """
    return fb.read_image(path, **reading._asdict())


def image_or_store(path: Path, reading: Reading, *, allow_partial: bool = False) -> Image | FeatureStore:
    """Open a path as what it is.

    Parameters
    ----------
    allow_partial
        Whether a store that is not done is welcome.

    Raises
    ------
    ValueError
        If options for images are given with a store, whose image was read when it was extracted.
    """
    if not is_store(path):
        return open_image(path, reading)
    if options := reading.given():
        raise ValueError(
            f"expected {', '.join(options)} with images only, found the feature store {shown(path)}; leave it out: the "
            "store keeps the features of the image as it was extracted"
        )
    return fb.open_store(path, allow_partial=allow_partial)


def spec_of(path: Path) -> EncoderSpec:
    """Return the encoder's spec of a store, forest or package.

    Raises
    ------
    ForestbridgeError
        If the file is none of these, or carries no spec.
    """
    if is_store(path):
        return fb.open_store(path, allow_partial=True).spec
    if is_project(path):
        return fb.read_project(path).encoder.spec
    if path.suffix.lower() not in (".zip", ".forest"):
        raise StoreError(
            "expected a store (NAME.features.ome.zarr), forest (.forest), package (.zip) or ilastik project (.ilp) for --like, "
            f"found {shown(path)}; give one of these"
        )
    spec = fb.inspect_package(path).spec if path.suffix.lower() == ".zip" else fb.load_forest(path).spec
    if spec is None:
        raise StoreError(
            f"expected a store, forest or package that carries an encoder's spec, found none in {shown(path)}; "
            "choose the encoder with --encoder"
        )
    return spec


class EncoderChoice(NamedTuple):
    """Which encoder: --encoder, --like, --3d, --scales, --tile, --range, --preprocessing, --weights, --device and --interpolation."""

    name: str | None = None
    like: Path | None = None
    in_3d: bool = False
    scales: Sequence[float] | None = None
    tile: int | dict[str, int] | None = None
    range: tuple[float, float] | None = None
    preprocessing: str | None = None
    weights: Path | dict[str, Path] | None = None
    device: str | None = None
    interpolation: Interpolation | None = None

    @property
    def parts(self) -> list[str]:
        """Names of the encoders."""
        return split_encoders(self.name or "filters")

    @property
    def is_deep(self) -> bool:
        """Whether a network is among them."""
        return any(split_name(part)[0] in DEEP_NAMES for part in self.parts)

    @property
    def has_package(self) -> bool:
        """Whether a package is among them."""
        return any(is_package_name(part) for part in self.parts)

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises
        ------
        ValueError
            If settings are given beside --like, which brings its own, or settings of filters without filters, or of networks
            without one.
        """
        of_filters = {"--3d": self.in_3d, "--scales": self.scales}
        of_networks = {"--tile": self.tile, "--range": self.range, "--preprocessing": self.preprocessing}
        of_networks["--interpolation"] = self.interpolation
        if self.like is not None:
            settings = {"--encoder": self.name, **of_filters, **of_networks}
            if given := [option for option, value in settings.items() if value]:
                raise ValueError(
                    f"expected --like alone, since it brings the encoder's settings, found also {', '.join(given)}; leave one out"
                )
            return
        of_any = {"--tile": self.tile, "--range": self.range, "--device": self.device}
        of_ours = {
            "--preprocessing": self.preprocessing,
            "--interpolation": self.interpolation,
            "--weights": self.weights,
        }
        for fits, kind, settings in (
            ("filters" in self.parts, "the encoder filters", of_filters),
            (self.is_deep or self.has_package, "a deep encoder", of_any | of_ours),
            (self.is_deep or not self.has_package, "a deep encoder of forestbridge", of_ours),
        ):
            given = [option for option, value in settings.items() if value]
            if given and not fits:
                raise ValueError(
                    f"expected {', '.join(given)} with {kind} only, found the encoder {self.name or 'filters'}; leave it out, or choose "
                    "another one with --encoder"
                )

    def running(self) -> dict[str, Any]:
        """Return how a network runs, as `encoder_from_spec` takes it."""
        given = {"weights": self.weights, "device": self.device}
        return {key: value for key, value in given.items() if value is not None}


def encoder_for(images: Sequence[Image], choice: EncoderChoice) -> Encoder:
    """Open an encoder for images of one kind, or the one that `choice.like` was made with.

    Intensity constants of networks are measured over all of the images.
    """
    if choice.like is not None:
        spec = spec_of(choice.like)
        return encoder_from_spec(spec, **(choice.running() if spec.name != "filters" else {}))
    channels = images[0].n_channels
    options: dict[str, Any] = {"channels": channels}
    if "filters" in choice.parts:
        options["compute_in_2d"] = not choice.in_3d
        if choice.scales:
            from forestbridge.encoders.filter_kernels import FEATURE_NAMES

            options["selection"] = {feature: sorted(choice.scales) for feature in FEATURE_NAMES}
    if choice.is_deep or choice.has_package:
        if choice.range is None or choice.interpolation == "featureforest":
            options["images"] = list(images)
        if choice.range is not None:
            options |= {"low": [choice.range[0]] * channels, "high": [choice.range[1]] * channels}
        given = {"tile": choice.tile, "preprocessing": choice.preprocessing, "interpolation": choice.interpolation}
        options |= {key: value for key, value in given.items() if value is not None} | choice.running()
    return fb.open_encoder(choice.name or "filters", **options)


def check_weights(spec: EncoderSpec | None, weights: Path | dict[str, Path] | None) -> None:
    """Refuse --weights that are not those of a forest's encoder; reads the file, and writes nothing.

    Raises
    ------
    ValueError
        If the forest is over no network, or several get one file.
    WeightsError, ResourceError
        If it is another file, or none.
    """
    if weights is None:
        return
    networks = [part for part in (spec.parts or (spec,)) if part.weights is not None] if spec else []
    if not networks:
        found = spec.name if spec else "other features"
        raise ValueError(
            f"expected --weights with a forest over a deep encoder only, found one over {found}; leave it out"
        )
    if spec is not None and (is_package_name(str(weights)) or any(n.name not in DEEP_NAMES for n in networks)):
        encoder_from_spec(spec, weights=weights)
        return
    for network, own in zip(networks, own_options([n.name for n in networks], {"weights": weights}), strict=True):
        if "weights" in own:
            check_own_file(network.name, own["weights"], sha256=network.weights)


class LabelReading(NamedTuple):
    """How label files are read: the options --label-axes, --ignore, --slice and --merge."""

    axes: str | None = None
    ignore: Sequence[str] | None = None
    plane: int | None = None
    merge: Merge = "refuse"

    def options(self) -> dict[str, Any]:
        """Return them as `read_scribbles` takes them; texts of digits are label values, others are class names."""
        ignored = [int(i) if i.lstrip("-").isdecimal() else i for i in self.ignore or ()]
        return {"axes": self.axes, "ignore": ignored or None, "plane": self.plane, "merge": self.merge}


def labels_for(
    sources: Sequence[Image | FeatureStore], paths: Sequence[Path], names: Sequence[str] | None, reading: LabelReading
) -> list[Scribbles]:
    """Read the label file of each source.

    Raises
    ------
    ValueError
        If there are not as many label files as sources; with one source all of them are merged.
    """
    if not paths:
        raise ValueError("expected the labels of each source, found none; give them with --labels A_LABELS.tif")
    groups = [list(paths)] if len(sources) == 1 else [[path] for path in paths]
    if len(groups) != len(sources):
        raise ValueError(
            f"expected one label file for each of the {len(sources)} sources, found {len(paths)}; give them in the same "
            "order: forestbridge train A B --labels A_LABELS B_LABELS"
        )
    annotated = any(path.suffix.lower() in ANNOTATIONS for path in paths)
    result = [
        fb.read_scribbles(group, names=names if annotated else None, shape=_size(source), **reading.options())
        for source, group in zip(sources, groups, strict=True)
    ]
    return share_names(result, names=None if annotated else names)


def _size(source: Image | FeatureStore) -> Image | dict[str, int]:
    if isinstance(source, Image):
        return source
    return {axis: n for axis, n in source.image.sizes.items() if axis in source.image.axes}


def with_like_line(error: SpecMismatchError, image: str, like: Path) -> SpecMismatchError:
    """Return the error with the command that makes a store that fits; FeatureForest's are made by itself only."""
    if spec_of(like).name == FEATUREFOREST:
        return error
    return SpecMismatchError(
        f"{error}. This makes a store that fits: forestbridge extract {shlex.quote(shown(image))} "
        f"-o NEW.features.ome.zarr --like {shlex.quote(shown(like))}"
    )
