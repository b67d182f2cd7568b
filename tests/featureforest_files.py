"""Feature stores as FeatureForest 0.1.2 writes them, and FeatureForest's own code where it is installed.

Its package imports napari and Qt; its functions for patches and files do not, so that they are imported past its `__init__`.
"""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def write_featureforest(
    path: Path,
    features: NDArray,
    *,
    shape: tuple[int, int],
    patch_size: int,
    overlap: int,
    model: str = "SAM2_Large",
    no_patching: bool = False,
    slices: int | None = None,
) -> Path:
    """Write a store.

    Parameters
    ----------
    features
        (slices, y, x, F) of whole patches: rows × side along y, columns × side along x.
    shape
        Of the image, (height, width).
    slices
        What the attribute says; by default as many as there are.
    """
    n, height, width, f = features.shape
    side = patch_size - overlap
    with h5py.File(path, "w") as file:
        file.attrs["num_slices"] = n if slices is None else slices
        file.attrs["img_height"], file.attrs["img_width"] = shape
        file.attrs["model"] = model
        file.attrs["no_patching"] = no_patching
        file.attrs["patch_size"] = patch_size
        file.attrs["overlap"] = overlap
        for z in range(n):
            patches = features[z].reshape(height // side, side, width // side, side, f).swapaxes(1, 2)
            patches = patches.reshape(-1, side, side, f).astype(np.float16)
            file.create_group(str(z)).create_dataset(
                "features",
                data=patches,
                maxshape=(None, *patches.shape[1:]),
                chunks=(1, *patches.shape[1:]),
                compression="lzf",
            )
    return path


def noise_store(
    path: Path, *, slices: int = 1, shape: tuple[int, int] = (40, 50), f: int = 5, **options: Any
) -> NDArray:
    """Write a store of noise with patches of 16 pixels that overlap by 4, and return its (slices, Y, X, F) features."""
    rng = np.random.default_rng(0)
    side = 12
    padded = [((n + 4 - 16) // side + 2) * side for n in shape]
    features = rng.normal(size=(slices, *padded, f)).astype(np.float16)
    write_featureforest(path, features, shape=shape, patch_size=16, overlap=4, **options)
    return features[:, : shape[0], : shape[1]]


def has_featureforest() -> bool:
    """Whether FeatureForest and what its extraction imports are installed."""
    return all(find_spec(name) for name in ("featureforest", "pims", "torchvision", "segment_anything"))


def featureforest(module: str) -> ModuleType:
    """Import one module of FeatureForest."""
    if "featureforest" not in sys.modules:
        found = find_spec("featureforest")
        assert found is not None and found.submodule_search_locations
        package = ModuleType("featureforest")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["featureforest"] = package
    return importlib.import_module(f"featureforest.{module}")
