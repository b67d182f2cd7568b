"""FeatureForest's slice prediction: features read from its HDF5 store, its forest of 450 trees, labels.

Its own code does all of it, through its segmentation widget, which needs Qt but no screen: it writes the store, gathers
the scribbled pixels, trains and predicts. The one stand-in is the encoder: instead of a network's output it hands over the
64 x 64 grid of `embedding.npy`, interpolated bilinearly to the image, 256 channels. The store holds 9 patches of
384 x 384 pixels, float16, lzf. The forest uses one thread less than there are cores, as FeatureForest has it.
"""

import importlib.metadata
import os
import pickle
import sys

import numpy as np

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import h5py
import torch
from featureforest._segmentation_widget import SegmentationWidget
from featureforest.models.base import BaseModelAdapter
from featureforest.utils.data import get_num_patches, get_stride_margin
from featureforest.utils.extract import extract_embeddings_to_file
from napari.components import ViewerModel
from napari.qt import get_qapp

STORE = "featureforest.hdf5"


class GridAdapter(BaseModelAdapter):
    """The stand-in for an encoder: hands over the patches of one interpolated grid, in order."""

    def __init__(self, grid, height, width):
        """Take a (256, y, x) float32 grid that covers an image of `height` x `width` pixels."""
        super().__init__(torch.nn.Identity(), height, width, torch.device("cpu"))
        self.no_patching = False  # sets patch size and overlap from the size of the image
        self.stride, _ = get_stride_margin(self.patch_size, self.overlap)
        rows, self.columns = get_num_patches(height, width, self.patch_size, self.overlap)
        size = (height, width)
        features = torch.nn.functional.interpolate(torch.from_numpy(grid)[None], size=size, mode="bilinear")
        # The last patches reach beyond the image, which FeatureForest continues by reflection.
        beyond = (0, self.columns * self.stride - width, 0, rows * self.stride - height)
        self.features = torch.nn.functional.pad(features, beyond, mode="reflect")[0].half()
        self.given = 0

    def get_features_patches(self, in_patches):
        """Return the features of the next patches, (n, stride, stride, 256) float16, whatever their pixels."""
        patches = []
        for i in range(self.given, self.given + len(in_patches)):
            y, x = i // self.columns * self.stride, i % self.columns * self.stride
            patches.append(self.features[:, y : y + self.stride, x : x + self.stride])
        self.given += len(in_patches)
        return torch.stack(patches).permute(0, 2, 3, 1)  # (n, 256, y, x) -> (n, y, x, 256)


def prepare(folder):
    """Write the store, train on the scribbles and return the widget that holds both, and the shape of the image."""
    image, y, x, classes = (
        np.load(folder / f"{n}.npy") for n in ("image", "scribble_y", "scribble_x", "scribble_class")
    )
    adapter = GridAdapter(np.load(folder / "embedding.npy"), *image.shape)
    for _ in extract_embeddings_to_file(image, str(folder / STORE), adapter):
        pass
    adapter.features = None
    scribbles = np.zeros((1, *image.shape), np.uint8)
    scribbles[0, y, x] = classes + 1

    get_qapp()
    viewer = ViewerModel()
    viewer.add_image(image, name="image")
    viewer.add_labels(scribbles, name="scribbles")
    widget = SegmentationWidget(viewer)
    # What its "Select..." button does after the file dialog, less the encoder's weights.
    widget.storage = h5py.File(folder / STORE, "r")
    widget.patch_size, widget.overlap = adapter.patch_size, adapter.overlap
    widget.stride = adapter.stride
    widget.model_adapter = adapter
    widget.stats.set_file_path(folder / "featureforest_stats.csv")
    np.random.seed(0)  # noqa: NPY002 - its forest has no seed of its own
    widget.train_model()
    report(folder, widget.rf_model)
    return widget, image.shape


def report(folder, forest):
    """Say on stderr how large store and forest are."""
    store, nodes = (folder / STORE).stat().st_size / 2**20, sum(tree.tree_.node_count for tree in forest.estimators_)
    size = len(pickle.dumps(forest)) / 2**20
    print(f"store {store:.0f} MiB, forest {size:.2f} MiB, {nodes} nodes, {forest.n_jobs} threads", file=sys.stderr)


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    widget, shape = state
    labels = widget.predict_slice(widget.rf_model, 0, *shape)
    return np.where(labels > 0, labels - 1, labels)  # it shows class 1 as 0 and the others by their own numbers


def versions():
    """Return the versions of what it runs through."""
    packages = ("featureforest", "scikit-learn", "h5py", "torch", "napari")
    return {package: importlib.metadata.version(package) for package in packages}
