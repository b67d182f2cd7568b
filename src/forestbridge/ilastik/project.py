"""`Project`: what an ilastik project holds; its images, labels, features and forest as forestbridge has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filters import FilterBank
from forestbridge.errors import ProjectError
from forestbridge.forest import PixelForest
from forestbridge.ilastik.labels import LanePoints
from forestbridge.ilastik.lanes import Lane, open_lane
from forestbridge.ilastik.selection import (
    Selection,
    bank_of_selection,
    check_feature_names,
    columns_of_selection,
)
from forestbridge.ilastik.vigra_forest import TreeNodes, VigraForest
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles, match_to_image


@dataclass(frozen=True, eq=False)
class Project:
    """What an ilastik project of pixel classification holds.

    Attributes
    ----------
    path
        The file.
    version, workflow, saved
        ilastik's version and workflow, and when it was saved, as texts.
    lanes
        One per image; None for one without raw data.
    selection
        The selected features; None if there are none.
    names, colours
        Of the classes 1..K, in their order.
    labels
        Painted pixels by number of the image.
    forest
        The trees, in the project's own columns; None if the project was saved without.
    feature_names
        Those that the forest was trained on; empty in old projects.
    export
        What the project's export dialog was set to, as far as it was, by the names of `forestbridge.headless.Export`.
    """

    path: Path
    version: str
    workflow: str
    saved: str
    lanes: tuple[Lane | None, ...]
    selection: Selection | None
    names: tuple[str, ...]
    colours: tuple[str, ...]
    labels: dict[int, LanePoints]
    forest: VigraForest | None
    feature_names: tuple[str, ...]
    export: Mapping[str, Any]

    @property
    def encoder(self) -> FilterBank:
        """The filter bank of the selected features.

        Raises
        ------
        ProjectError
            If no feature is selected, the images differ in channels, or nothing tells how many channels they have.
        """
        if self.selection is None:
            raise ProjectError(
                f"{shown(self.path)}: expected selected features, found none; choose features in ilastik and save the project"
            )
        return bank_of_selection(self.selection, channels=self._channels, planes=self._planes)

    @property
    def _known(self) -> list[Lane]:
        """The images whose size the project tells."""
        return [lane for lane in self.lanes if lane is not None and lane.shape]

    @property
    def _planes(self) -> int:
        """Length of the images' z axis: told by them, by their axes, or by what fits the forest; 2 stands for any more than one."""
        assert self.selection is not None  # `encoder` has seen to that
        if self._known:
            return max(lane.sizes["Z"] for lane in self._known)
        if any(lane is not None and "z" not in lane.axes for lane in self.lanes):
            return 1  # projects before 1.3.3 keep the axes, not the size
        if self.selection.in_2d and all(self.selection.in_2d):
            return 1
        if self.forest is not None:
            fitting = [n for n in (2, 1) if self.forest.n_columns % self._features_of_a_channel(n) == 0]
            return fitting[0] if fitting else 2
        image = self.first_image()
        return image.sizes["Z"] if image else 2

    @property
    def _channels(self) -> int:
        """Number of channels: told by the images, or by what fits the forest."""
        found = {lane.sizes["C"] for lane in self._known}
        if len(found) > 1:
            raise ProjectError(
                f"{shown(self.path)}: expected images with the same channels, found {sorted(found)}; the project is damaged"
            )
        if found:
            return found.pop()
        if self.forest is not None:
            return max(1, self.forest.n_columns // self._features_of_a_channel(self._planes))
        image = self.first_image()
        if image is None:
            raise ProjectError(
                f"{shown(self.path)}: expected an image or a forest, which tell the number of channels, found neither; add an image in "
                "ilastik and save the project"
            )
        return image.n_channels

    def _features_of_a_channel(self, planes: int) -> int:
        assert self.selection is not None  # `encoder` has seen to that
        return bank_of_selection(self.selection, channels=1, planes=planes).spec.n_features

    @property
    def columns(self) -> NDArray[np.int32]:
        """(F,): for each column of the project's own features, the feature of `encoder`."""
        bank = self.encoder
        assert self.selection is not None  # `encoder` has seen to that
        return columns_of_selection(self.selection, bank)

    def pixel_forest(self) -> PixelForest:
        """Return the project's own trees as a forest over its filter bank: it decides as ilastik does.

        Returns
        -------
        forest
            Its classes are 1..K, all that the project names; one without labels has probability 0 everywhere.

        Raises
        ------
        ProjectError
            If the project has no forest, or one over other features or classes than the project has now.
        """
        if self.forest is None:
            raise ProjectError(
                f"{shown(self.path)}: expected a trained forest, found none: the project was saved without, or its labels have changed "
                f"since. Train in ilastik (Live Update) and save it, or here: forestbridge train {shown(self.path)} -o NAME.forest"
            )
        bank = self.encoder
        if bank.spec.n_features != self.forest.n_columns:
            raise ProjectError(
                f"{shown(self.path)}: expected a forest over the {bank.spec.n_features} features that the project selects, found one "
                f"over {self.forest.n_columns}; train in ilastik again and save, or here: forestbridge train {shown(self.path)} -o "
                "NAME.forest"
            )
        assert self.selection is not None  # `encoder` has seen to that
        check_feature_names(self.feature_names, self.selection, bank, shown(self.path))
        columns = self.columns
        trees = [self._complete(tree) for tree in self.forest.trees]
        nodes = np.cumsum([0, *(len(tree.column) for tree in trees)])
        leaves = np.cumsum([0, *(len(tree.leaves) for tree in trees)])
        feature, left = [], []
        for tree, first_node, first_leaf in zip(trees, nodes, leaves, strict=False):
            is_leaf = tree.column < 0
            feature.append(np.where(is_leaf, np.int32(-1), columns[tree.column]))
            left.append(tree.left + np.where(is_leaf, first_leaf, first_node))
        return PixelForest(
            feature=np.concatenate(feature).astype(np.int32),
            threshold=np.concatenate([tree.threshold for tree in trees]),
            left=np.concatenate(left).astype(np.int32),
            roots=nodes[:-1].astype(np.int32),
            leaves=np.concatenate([tree.leaves for tree in trees]),
            n_features=bank.spec.n_features,
            classes=tuple(range(1, len(self.names) + 1)),
            names=self.names,
            colours=self.colours,
            spec=bank.spec,
            training={"engine": "ilastik", "sources": [self.path.name], "pixels": self._pixels()},
            versions={"ilastik": self.version},
        )

    def _complete(self, tree: TreeNodes) -> TreeNodes:
        """Return a tree with a column of leaves for each class that the project names."""
        assert self.forest is not None  # the caller has seen to that
        strange = [label for label in self.forest.labels if not 1 <= label <= len(self.names)]
        if strange:
            raise ProjectError(
                f"{shown(self.path)}: expected a forest of the classes 1 to {len(self.names)}, found one of {strange[:10]} too; train in "
                "ilastik again and save"
            )
        leaves = np.zeros((len(tree.leaves), len(self.names)), np.float32)
        leaves[:, np.asarray(self.forest.labels) - 1] = tree.leaves
        return tree._replace(leaves=leaves)

    def _pixels(self) -> dict[str, int]:
        values = np.concatenate([np.zeros(0, np.int64), *(lane.values for lane in self.labels.values())])
        return {str(k): int(np.count_nonzero(values == k)) for k in range(1, len(self.names) + 1)}

    def training_pairs(self) -> list[tuple[Image, Scribbles]]:
        """Return each image that has labels, with them: what `forestbridge.train` takes.

        Raises
        ------
        ProjectError
            If nothing is labelled, or an image is not there.
        """
        pairs = []
        for index, labels in sorted(self.labels.items()):
            lane = self.lanes[index]
            assert lane is not None  # `read_labels` has seen to that
            image = open_lane(self.path, lane)
            pairs.append((image, self._scribbles(labels, image)))
        if not pairs:
            raise ProjectError(
                f"{shown(self.path)}: expected labels to train on, found none; paint some in ilastik and save the project"
            )
        return pairs

    def _scribbles(self, labels: LanePoints, image: Image) -> Scribbles:
        sizes = image.sizes
        axes = "".join(a for a in "TZYX" if a in image.axes)
        values = {int(v) for v in np.unique(labels.values)}
        scribbles = Scribbles(
            labels.points,
            labels.values,
            axes,
            (sizes["T"], sizes["Z"], sizes["Y"], sizes["X"]),
            {v: self.names[v - 1] for v in values},
            {v: self.colours[v - 1] for v in values},
            image.source,
        )
        return match_to_image(scribbles, image)

    def first_image(self) -> Image | None:
        """Return the first image of the project; None if it has none, or it cannot be opened from here."""
        for lane in self.lanes:
            if lane is not None:
                try:
                    return open_lane(self.path, lane)
                except ProjectError:
                    return None
        return None

    def describe(self) -> dict[str, Any]:
        """Return what `forestbridge info` prints, as JSON values."""
        pixels = self._pixels()
        forest = None
        if self.forest is not None:
            nodes = sum(len(tree.column) for tree in self.forest.trees)
            forest = {
                "trees": len(self.forest.trees),
                "nodes": nodes,
                "features": self.forest.n_columns,
                "classes": list(self.forest.labels),
            }
        return {
            "kind": "ilastik project",
            "workflow": self.workflow,
            "ilastik": self.version,
            "saved": self.saved,
            "images": [None if lane is None else lane.describe() for lane in self.lanes],
            "classes": [
                {"value": k, "name": name, "colour": colour, "pixels": pixels[str(k)]}
                for k, (name, colour) in enumerate(zip(self.names, self.colours, strict=True), start=1)
            ],
            "labelled_images": sorted(self.labels),
            "selection": None if self.selection is None else self.selection.describe(),
            "forest": forest,
        }
