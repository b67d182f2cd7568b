"""A feature store to the HDF5 file that FeatureForest would have written: its maps interpolated to pixels, patch by patch."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ResourceError, StoreError
from forestbridge.files import check_output, new_file
from forestbridge.image.source import shown
from forestbridge.stores.base import FeatureStore
from forestbridge.stores.featureforest import FEATUREFOREST, OUR_NAMES
from forestbridge.stores.patches import PatchGrid, patch_size

log = logging.getLogger(__name__)

POINTS_BYTES = 2**26
"""Of the float32 features that are looked up at a time."""

N_FEATURES = {
    "SAM2_Large": 768,
    "SAM2_Base": 768,
    "SAM": 1536,
    "μSAM_LM": 1024,
    "μSAM_EM_Organelles": 1024,
    "MobileSAM": 320,
    "DinoV2": 384,
    "Cellpose_cyto3": 480,
}
"""Features of FeatureForest's own encoders: it opens stores with these numbers only."""

Progress = Callable[[int, int], None]


class Plan(NamedTuple):
    """What will be written.

    Attributes
    ----------
    slices
        Planes of a stack, or frames of a series.
    model
        What the file names as the encoder.
    n_bytes
        Of the features, uncompressed; FeatureForest's compression gains a few per cent.
    """

    slices: int
    n_features: int
    grid: PatchGrid
    model: str
    no_patching: bool
    n_bytes: int


def plan_featureforest(store: FeatureStore) -> Plan:
    """Say what a file of a store's features will be.

    Raises
    ------
    StoreError
        If the store is not done, or holds a series of stacks, which FeatureForest's layout has no place for.
    """
    if missing := [] if store.done else store.missing():
        raise StoreError(
            f"expected the features of the whole image in {shown(store.path)}, found {len(missing)} shards missing, the first "
            f"{missing[0]}; run extract again, it computes the rest"
        )
    sizes, n = store.image.sizes, store.spec.n_features
    if sizes["T"] > 1 and sizes["Z"] > 1:
        raise StoreError(
            f"expected a plane, a stack or a series for FeatureForest, found T={sizes['T']} and Z={sizes['Z']} in {shown(store.path)}; "
            "extract the frames one by one"
        )
    slices = max(sizes["T"], sizes["Z"])
    if store.spec.name == FEATUREFOREST:
        o = store.spec.options
        grid = PatchGrid(sizes["Y"], sizes["X"], o["patch_size"], o["overlap"])
        model, no_patching = o["model"], bool(o["no_patching"])
    else:
        o, size = store.spec.options, patch_size(sizes["Y"], sizes["X"])
        own = store.spec.interpolation == "featureforest"  # these patches are the encoder's
        grid = PatchGrid(sizes["Y"], sizes["X"], *((o["patch_size"], o["overlap"]) if own else (size, size // 4)))
        model, no_patching = _model(store.spec.name, n), own and not grid.overlap
    return Plan(slices, n, grid, model, no_patching, 2 * slices * grid.n_patches * grid.side**2 * n)


def write_featureforest(
    store: FeatureStore, out: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write the features of a store as FeatureForest keeps them, interpolated to every pixel, in float16.

    Parameters
    ----------
    out
        NAME.hdf5. What lies in patches beyond the image repeats its border.
    progress
        Told after each patch: patches done, patches in all.

    Raises
    ------
    StoreError
        As `plan_featureforest`; or if a feature is too large for float16.
    OutputExistsError, ResourceError
        If `out` is there, or the disk has no room.
    """
    import h5py

    out = check_output(out, overwrite=overwrite)
    plan = plan_featureforest(store)
    if (free := shutil.disk_usage(out.absolute().parent).free) < plan.n_bytes:
        raise ResourceError(
            f"expected room for {plan.n_bytes / 2**20:.0f} MiB at {shown(out)}, found {free / 2**20:.0f} MiB free; make room, or choose "
            "another disk: FeatureForest's layout holds a value of each feature for each pixel"
        )
    if N_FEATURES.get(plan.model) != plan.n_features:
        log.warning(
            f"FeatureForest opens stores of its own encoders only; {shown(out)} says {plan.model!r} with {plan.n_features} features"
        )
    grid, n = plan.grid, plan.n_features
    shape = (grid.n_patches, grid.side, grid.side, n)
    with new_file(out, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["num_slices"] = plan.slices
        file.attrs["img_height"], file.attrs["img_width"] = grid.height, grid.width
        file.attrs["model"] = plan.model
        file.attrs["no_patching"] = plan.no_patching
        file.attrs["patch_size"], file.attrs["overlap"] = grid.patch_size, grid.overlap
        for z in range(plan.slices):
            dataset = file.create_group(str(z)).create_dataset(
                "features",
                shape=shape,
                maxshape=(None, *shape[1:]),
                chunks=(1, *shape[1:]),
                dtype=np.float16,
                compression="lzf",
            )
            for patch in range(grid.n_patches):
                dataset[patch] = _patch(store, plan, z, patch)
                if progress:
                    progress(z * grid.n_patches + patch + 1, plan.slices * grid.n_patches)
    return out


def _model(encoder: str, n_features: int) -> str:
    """Return FeatureForest's name of an encoder, if its features are as many; ours otherwise."""
    theirs = next((model for model, ours in OUR_NAMES.items() if ours == encoder), encoder)
    return theirs if N_FEATURES.get(theirs) == n_features else encoder


def _patch(store: FeatureStore, plan: Plan, z: int, patch: int) -> NDArray[np.float16]:
    """Return the (s, s, F) features of a patch."""
    side = plan.grid.side
    row, column = divmod(patch, plan.grid.columns)
    y = np.minimum(np.arange(row * side, (row + 1) * side), plan.grid.height - 1)
    x = np.minimum(np.arange(column * side, (column + 1) * side), plan.grid.width - 1)
    inside_y, inside_x = np.arange(y[0], y[-1] + 1), np.arange(x[0], x[-1] + 1)
    result = np.empty((len(inside_y), len(inside_x), plan.n_features), np.float16)
    rows = max(1, POINTS_BYTES // (4 * plan.n_features * len(inside_x)))
    t, z = (z, 0) if store.image.sizes["T"] > 1 else (0, z)
    for start in range(0, len(inside_y), rows):
        lines, columns = np.meshgrid(inside_y[start : start + rows], inside_x, indexing="ij")
        points = np.stack([np.full(lines.size, t), np.full(lines.size, z), lines.ravel(), columns.ravel()], axis=1)
        values = store.at(points)  # (n, F)
        if too_large := int(np.count_nonzero(np.abs(values) >= 65520)):  # what float16 rounds to infinity
            feature = store.spec.feature_names[int(np.abs(values).max(axis=0).argmax())]
            raise StoreError(
                f"expected features that FeatureForest's float16 can hold (up to 65504), found {too_large} larger ones in "
                f"{shown(store.path)}, among them of {feature!r}; extract the image with intensities in a smaller range"
            )
        result[start : start + rows] = values.reshape(*lines.shape, -1)
    return result[(y - y[0])[:, None], (x - x[0])[None]]
