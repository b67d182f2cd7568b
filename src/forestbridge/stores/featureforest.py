"""Feature stores that FeatureForest wrote: from its HDF5 file, of any encoder, to features of points or regions."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forestbridge.errors import StoreError
from forestbridge.image.source import shown
from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.stores.base import ImageFacts
from forestbridge.stores.lookup import chunks_of_cells, corners, interpolate, split_points
from forestbridge.stores.patches import AGAIN, Patches, PatchGrid, read_contents

FEATUREFOREST = "featureforest"
"""Name of the encoder in the specs of these stores, and of forests that were trained on them."""

OUR_NAMES = {
    "SAM2_Large": "sam2_large",
    "SAM2_Base": "sam2_base",
    "SAM": "sam_vit_h",
    "μSAM_LM": "micro_sam_lm",
    "μSAM_EM_Organelles": "micro_sam_em",
    "MobileSAM": "mobile_sam",
    "DinoV2": "dinov2",
    "Cellpose_cyto3": "cellpose_cyto3",
}
"""FeatureForest's names of encoders, and ours."""


@dataclass(frozen=True, eq=False)
class FeatureForestStore:
    """A feature store of FeatureForest; see `forestbridge.stores.FeatureStore`.

    Attributes
    ----------
    patches
        The geometry of a slice.
    absent
        (slice, patch) of the patches that are not in the file.
    """

    path: Path
    spec: EncoderSpec
    image: ImageFacts
    patches: PatchGrid
    absent: frozenset[tuple[int, int]]
    _decoded: Patches = field(repr=False)

    @property
    def done(self) -> bool:
        """Whether the features of all slices are there."""
        return not self.absent

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a patch, the least that can be read."""
        return self.patches.side, self.patches.side

    def at(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return (N, F) float32 features of (N, 2) or (N, 4) pixel positions, as `FeatureStore.at` says."""
        where = split_points(points, self.image)
        n, side = self.spec.n_features, self.patches.side
        cells, weights = corners(self.spec.maps[0], "zcyx", self._shape, where)
        asked = np.stack([cells["z"], self._patch(cells["y"], cells["x"])], axis=1)
        if absent := sorted(self.absent.intersection(map(tuple, np.unique(asked, axis=0).tolist()))):
            raise StoreError(
                f"expected features at all points, found that {_listed(absent)} not in {shown(self.path)}; {AGAIN}, or leave out the "
                "labels there"
            )
        values = np.empty((len(cells["y"]), n), np.float32)
        for region, rows, (_, y, x) in chunks_of_cells("zcyx", self._shape, (1, n, side, side), cells):
            z, _, top, left = (part.start for part in region)
            values[rows] = self._decoded.read(z, int(self._patch(top, left)))[y, x]
            self._require_finite(values[rows], z)
        return interpolate(values, weights)

    def read_map(self, name: str, *, spatial: Sequence[slice], t: int = 0, z: int = 0) -> NDArray[np.float16]:
        """Return (F, y, x) or (F, z, y, x) of the one map in float16, as `FeatureStore.read_map` says."""
        if name != self.spec.maps[0].name:
            raise ValueError(f"expected one of the maps {self.spec.maps[0].name}, found {name!r}")
        yx = len(spatial) == 2
        asked: dict[str, slice] = dict(
            zip("tzyx", (slice(t, t + 1), *([slice(z, z + 1)] if yx else []), *spatial), strict=True)
        )
        bounds = {a: s.indices(self.image.sizes[a.upper()]) for a, s in asked.items()}
        if any(step != 1 or start >= stop for start, stop, step in bounds.values()):
            raise ValueError(
                f"expected a frame, a plane and slices inside the map {name!r} with {self.image.sizes}, found {asked}"
            )
        rows, columns = (slice(*bounds[a][:2]) for a in "yx")
        planes = [self._region(plane, rows, columns) for plane in range(*bounds["z"][:2])]
        return planes[0] if yx else np.stack(planes, axis=1)

    def missing(self) -> list[str]:
        """Return the names of the patches that are not there."""
        return [f"slice {z} patch {patch}" for z, patch in sorted(self.absent)]

    def problem(self, z: int, patch: int) -> str | None:
        """Return what is wrong with a patch that is in the file, None if nothing; it is decoded."""
        top, left = (n * self.patches.side for n in divmod(patch, self.patches.columns))
        try:
            values = self._decoded.read(z, patch)
            self._require_finite(values[: self.patches.height - top, : self.patches.width - left], z)
        except StoreError as error:
            return str(error)
        return None

    def describe(self) -> dict[str, Any]:
        """Return what `forestbridge info` prints, as JSON values."""
        total = self.image.sizes["Z"] * self.patches.n_patches
        side, n = self.patches.side, self.spec.n_features
        return {
            "kind": "store",
            "format": "FeatureForest",
            "path": str(self.path),
            "done": self.done,
            "shards": {"done": total - len(self.absent), "total": total},
            "encoder": {"name": self.spec.name, "fingerprint": self.spec.fingerprint(), "features": n}
            | dict(self.spec.options),
            "image": self.image.document(),
            "maps": [
                {
                    "name": self.spec.maps[0].name,
                    "axes": "zcyx",
                    "shape": list(self._shape),
                    "dtype": self.spec.dtype,
                    "stride": 1.0,
                    "offset": 0.0,
                    "chunks": [1, n, side, side],
                    "bytes": self.path.stat().st_size,
                }
            ],
            "labels": [],
        }

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        sizes = self.image.sizes
        return sizes["Z"], self.spec.n_features, sizes["Y"], sizes["X"]

    def _patch(self, y: Any, x: Any) -> Any:
        """Return the number of the patch that holds a pixel."""
        return y // self.patches.side * self.patches.columns + x // self.patches.side

    def _region(self, z: int, rows: slice, columns: slice) -> NDArray[np.float16]:
        """Return the (F, y, x) features of a region; NaN where a patch is absent."""
        side = self.patches.side
        result = np.full((rows.stop - rows.start, columns.stop - columns.start, self.spec.n_features), np.nan, "f2")
        for top in range(rows.start // side * side, rows.stop, side):
            for left in range(columns.start // side * side, columns.stop, side):
                patch = int(self._patch(top, left))
                if (z, patch) in self.absent:
                    continue
                (there_y, here_y), (there_x, here_x) = _overlap(top, side, rows), _overlap(left, side, columns)
                values = self._decoded.read(z, patch)[here_y, here_x]
                self._require_finite(values, z)
                result[there_y, there_x] = values
        return np.moveaxis(result, -1, 0)

    def _require_finite(self, values: NDArray, z: int) -> None:
        """Refuse (..., F) features that are no numbers: a forest has no answer for them, FeatureForest's gives some class."""
        if not np.isfinite(values).all():
            raise StoreError(
                f"expected finite features in {shown(self.path)}, found NaN or infinite ones in slice {z}: FeatureForest stores NaN for "
                f"a slice whose pixels are all equal; leave this slice out, and {AGAIN}"
            )


def open_featureforest(path: Path, *, allow_partial: bool = False) -> FeatureForestStore:
    """Open a store of FeatureForest for reading; see `forestbridge.stores.open_store`."""
    n_slices, n_features, grid, options, absent = read_contents(path)
    if absent and not allow_partial:
        hint = (
            "; with No Patching it does so for images that are not square, and with DinoV2: extract with patches"
            if options["no_patching"]
            else ""
        )
        raise StoreError(
            f"expected a store that is done, found {n_slices * grid.n_patches - len(absent)} of {n_slices * grid.n_patches} patches in "
            f"{shown(path)}: {_listed(sorted(absent))} not there, as where FeatureForest was stopped{hint}; {AGAIN}, or train on what is "
            "there with --allow-partial (allow_partial=True)"
        )
    spec = featureforest_spec(n_features, options)
    axes = "ZYX" if n_slices > 1 else "YX"
    shape = (n_slices, grid.height, grid.width)[-len(axes) :]
    image = ImageFacts(axes=axes, shape=shape, dtype="unknown", source=path.name)
    decoded = Patches(path, 2 * n_features * grid.side**2)
    return FeatureForestStore(path, spec, image, grid, frozenset(absent), decoded)


def featureforest_spec(n_features: int, options: Mapping[str, Any]) -> EncoderSpec:
    """Return the spec of features that FeatureForest computed: that of a store, or of a forest that was trained on one.

    Parameters
    ----------
    options
        model (its name in FeatureForest), patch_size, overlap, no_patching: they decide the values besides the pixels.
    """
    name = encoder_slug(options["model"])
    side = options["patch_size"] - options["overlap"]
    margin = options["overlap"] // 2
    return EncoderSpec(
        name=FEATUREFOREST,
        version=1,
        axes="yx",
        channels=1,
        halo=(margin, margin),
        maps=(MapSpec(name, tuple(f"{name}.{n:03}" for n in range(n_features))),),
        intensity={"rule": "featureforest"},
        options=dict(options),
        tile=(side, side),
        dtype="float16",
    )


def featureforest_settings(spec: EncoderSpec) -> str:
    """Return for a message what features of such a spec are extracted with."""
    o = spec.options
    patches = "No Patching" if o["no_patching"] else "patches"
    return f"FeatureForest, its encoder {o['model']} and {patches} of {o['patch_size']} pixels, overlap {o['overlap']}"


def encoder_slug(model: str) -> str:
    """Return our name for an encoder of FeatureForest, or one like ours for an encoder that somebody added to it."""
    model = unicodedata.normalize("NFKC", model)  # of the two letters μ in use
    return OUR_NAMES.get(model) or re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_") or "encoder"


def _overlap(start: int, length: int, wanted: slice) -> tuple[slice, slice]:
    """Return where the common part of [start, start + length) and `wanted` lies in `wanted`, and in the first."""
    low, high = max(start, wanted.start), min(start + length, wanted.stop)
    return slice(low - wanted.start, high - wanted.start), slice(low - start, high - start)


def _listed(absent: Sequence[tuple[int, int]]) -> str:
    """Return patches for a message, the first ones of many."""
    rest = f" and {len(absent) - 5} more are" if len(absent) > 5 else (" are" if len(absent) > 1 else " is")
    return ", ".join(f"slice {z} patch {patch}" for z, patch in absent[:5]) + rest
