"""What decides the value of a feature: `EncoderSpec`, its canonical JSON and its fingerprint.

Store, forest and package carry the spec. Each hand-over compares fingerprints with `require_same_spec` and refuses a stranger
with the fields that differ. Compute device, batch size and thread count are provenance and stand elsewhere.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from forestbridge.errors import SpecMismatchError

Interpolation = Literal["bilinear", "featureforest"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "featureforest")
"""Maps at their own stride, looked up when they are read; or FeatureForest's way, patch by patch before they are kept."""

SPEC_FORMAT = 1
"""Raised when a field is added, removed or changes its meaning; readers refuse a number they do not know."""


@dataclass(frozen=True)
class MapSpec:
    """One feature map of an encoder.

    Attributes
    ----------
    name
        Unique in the encoder; a directory name in the store.
    channels
        Name of each feature, in order.
    stride
        Image pixels between neighbouring cells along y and x (z always has stride 1).
    offset
        Image pixel (y and x) on which the centre of the first cell lies.
    """

    name: str
    channels: tuple[str, ...]
    stride: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        # 16 and 16.0 are one stride, but two texts in JSON, and so would be two fingerprints.
        object.__setattr__(self, "stride", float(self.stride))
        object.__setattr__(self, "offset", float(self.offset))

    @property
    def is_plain(self) -> bool:
        """Whether its cells are the pixels."""
        return self.stride == 1 and self.offset == 0

    def n_cells(self, pixels: int) -> int:
        """Return how many cells cover `pixels` along y or x."""
        return math.ceil(pixels / self.stride)


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides the value of a feature, and nothing else.

    Attributes
    ----------
    name, version
        The encoder, and the number of its arithmetic: raised when the same input would give other values.
    axes
        Spatial axes the encoder works on: "yx" or "zyx".
    channels
        Number of input channels.
    intensity
        What happens to raw intensities first: ``{"rule": "raw"}`` or ``{"rule": "linear", "low": .., "high": ..}``; ``{"rule": "plane"}``
        stretches each plane from its own minimum and maximum to 0…1, as FeatureForest does, before it is cut into tiles.
    tile, halo
        Core and margin of a tile in pixels, per axis of `axes`. `tile` is None where the values do not depend on it.
    input_size
        (height, width) a tile is resized to before the network; None where it is not resized.
    options
        Settings of this encoder as JSON values; for the filter bank the feature × scale selection.
    maps
        The feature maps in the order in which their channels are concatenated.
    interpolation
        How pixels get values from the cells of a network. "bilinear": maps keep their stride, and a pixel is looked up when they are read.
        "featureforest": each patch's maps are resized to its pixels, bicubically (a = -0.5, weights renormalised at the patch's border),
        and only its core is kept; all maps have stride 1.
    dtype
        Stored dtype of the features; forests are trained on the stored values. A combination stores each part in its own.
    weights
        sha256 of the weight file, None for encoders without weights.
    parts
        For a combination ``a+b``: the specs in order.
    """

    name: str
    version: int
    axes: Literal["yx", "zyx"]
    channels: int
    halo: tuple[int, ...]
    maps: tuple[MapSpec, ...]
    intensity: Mapping[str, Any]
    options: Mapping[str, Any]
    tile: tuple[int, ...] | None = None
    input_size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    dtype: Literal["float32", "float16"] = "float32"
    weights: str | None = None
    parts: tuple[Self, ...] = ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Stored dtype of each map: the spec's, for a combination those of its parts."""
        return tuple(d for part in self.parts for d in part.dtypes) if self.parts else (self.dtype,) * len(self.maps)

    @property
    def n_features(self) -> int:
        """Number of features over all maps."""
        return sum(len(m.channels) for m in self.maps)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return tuple(channel for m in self.maps for channel in m.channels)

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, ASCII, no NaN; equal specs give equal text."""
        document = {"format": SPEC_FORMAT, **asdict(self)}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not JSON, not a spec, or has a format number this version does not know.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"expected an encoder spec as JSON, found text that is none ({error}); copy the file again"
            ) from error
        if not isinstance(document, dict):
            raise ValueError(f"expected a spec as a JSON object, found {type(document).__name__}")
        return cls._from_document(document)

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        document = dict(document)
        number = document.pop("format", SPEC_FORMAT)
        if number != SPEC_FORMAT:
            raise ValueError(f"expected spec format {SPEC_FORMAT}, found {number!r}; update forestbridge to read it")
        known = {f.name for f in fields(cls)}
        if unknown := set(document) - known:
            raise ValueError(f"expected the spec fields {sorted(known)}, found also {sorted(unknown)}")
        try:
            document["maps"] = tuple(
                MapSpec(str(m["name"]), tuple(str(c) for c in m["channels"]), float(m["stride"]), float(m["offset"]))
                for m in document["maps"]
            )
            document["halo"] = tuple(int(h) for h in document["halo"])
            for key in ("tile", "input_size"):
                if document.get(key) is not None:
                    document[key] = tuple(int(v) for v in document[key])
            document["parts"] = tuple(cls._from_document(part) for part in document.get("parts", ()))
            return cls(**document)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"expected a complete encoder spec, found one in which {error!r} is missing or of a wrong type"
            ) from error

    def fingerprint(self) -> str:
        """Return the first 16 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __str__(self) -> str:
        return f"{self.name} [{self.fingerprint()[:8]}]"


def require_same_spec(
    expected: EncoderSpec, found: EncoderSpec, *, expected_by: str, found_in: str, remedy: str
) -> None:
    """Refuse two specs that differ, naming the fields.

    Parameters
    ----------
    expected_by, found_in
        Who asks, and what was given, as the message names them: "forest nuclei.forest", "store a.features.ome.zarr".
    remedy
        What the user does about it.

    Raises
    ------
    SpecMismatchError
        If the fingerprints differ.
    """
    if expected.fingerprint() == found.fingerprint():
        return
    a, b = json.loads(expected.to_json()), json.loads(found.to_json())
    differing = [key for key in a if a[key] != b[key]]
    shown = "; ".join(_difference(key, a[key], b[key]) for key in differing)
    raise SpecMismatchError(
        f"{expected_by} expects the features of {expected}, {found_in} has those of {found} ({shown}); {remedy}"
    )


def _difference(key: str, a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return "; ".join(_difference(f"{key} {inner}", a[inner], b[inner]) for inner in a if a[inner] != b[inner])
    return f"{key}: {_short(a)} against {_short(b)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
