"""A forest over the filter bank, images and scribbles in; an ilastik project (.ilp) out, which ilastik opens, predicts with, retrains.

The layout is that of ilastik 1.4 (`pixelClassificationSerializer.py`, `dataSelectionSerializer.py`, `featureSelectionSerializer.py`).
"""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filter_kernels import FEATURE_NAMES
from forestbridge.errors import ForestError, ImageError, LabelError
from forestbridge.files import check_output, new_file
from forestbridge.forest import PixelForest
from forestbridge.ilastik.vigra_forest import TreeNodes, write_forest
from forestbridge.image import Image
from forestbridge.image.axistags import tags_of_axes
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles, match_to_image

if TYPE_CHECKING:
    import h5py

VERSION = "1.4.0"
"""ilastik's version whose layout is written; later ones read it."""

WORKFLOW = "Pixel Classification"

TREES_PER_FOREST = 10
"""ilastik evaluates its worker forests in parallel; it grows about so many trees in each itself."""

BLOCK = 256
"""Side of a block of labels."""

PICTURES = (".png", ".jpg", ".jpeg")
"""Files that ilastik reads with a channel axis, grey ones too."""

MAX_CLASSES = 255
"""ilastik keeps labels as uint8."""

MOST_EMBEDDED = 2**31
"""Bytes of an image that is written into the project; a larger one is linked."""

FACTORY = """ccopy_reg
_reconstructor
p0
(clazyflow.classifiers.parallelVigraRfLazyflowClassifier
ParallelVigraRfLazyflowClassifierFactory
p1
c__builtin__
object
p2
Ntp3
Rp4
(dp5
VVERSION
p6
I2
sV_num_trees
p7
I{n_trees}
sV_label_proportion
p8
NsV_variable_importance_path
p9
NsV_variable_importance_enabled
p10
I00
sV_kwargs
p11
(dp12
sV_num_forests
p13
I{n_forests}
sb."""
"""ilastik's note of how it trains: text that it takes apart by regular expressions and never unpickles (`legacyClassifiers.py`)."""

CLASSIFIER = "clazyflow.classifiers.parallelVigraRfLazyflowClassifier\nParallelVigraRfLazyflowClassifier\np0\n."

Place = Literal["embed", "link"]


def write_project(
    path: str | Path,
    forest: PixelForest,
    pairs: Sequence[tuple[Image, Scribbles | None]] = (),
    *,
    images: Place = "embed",
    overwrite: bool = False,
) -> Path:
    """Write an ilastik project of pixel classification.

    Parameters
    ----------
    path
        NAME.ilp.
    forest
        Over features of the filter bank. Its classes become 1..K in the project, in their order.
    pairs
        Images, each with the scribbles it was trained with, or None. Without scribbles ilastik predicts, but has nothing to retrain on.
    images
        "embed": pixels are copied into the project. "link": the project refers to the image files, relative to its folder.
    overwrite
        Whether `path` may be replaced.

    Returns
    -------
    path
        Of the project.

    Raises
    ------
    ForestError
        If the forest is not one over the filter bank, or has more than 255 classes.
    ImageError
        If an image has other channels than the forest's filters, or cannot be linked or embedded.
    LabelError
        If the scribbles hold a class that the forest does not have.
    OutputExistsError, ResourceError
        If the path exists, or cannot be written.
    """
    import h5py

    path = check_output(path, overwrite=overwrite)
    lanes = check_project(path, forest, pairs, images=images)
    with new_file(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        _write_text(file, "ilastikVersion", VERSION)
        _write_text(file, "workflowName", WORKFLOW)
        _write_text(file, "time", time.ctime())
        _write_images(file, [image for image, _ in lanes], images, path)
        _write_selection(file, forest)
        _write_classification(file, forest, [points for _, points in lanes], [image for image, _ in lanes])
        group = file.create_group("Prediction Export")
        _write_text(group, "StorageVersion", "0.1")
        _write_text(group, "OutputFormat", "compressed hdf5")
        _write_text(group, "OutputInternalPath", "exported_data")
        _write_text(group, "OutputFilenameFormat", "{dataset_dir}/{nickname}_{result_type}")
    return path


def check_project(
    path: Path, forest: PixelForest, pairs: Sequence[tuple[Image, Scribbles | None]], *, images: Place
) -> list[tuple[Image, Scribbles | None]]:
    """Refuse what cannot become a project; arguments and errors are those of `write_project`.

    Returns
    -------
    pairs
        The images with their scribbles as ilastik has them: values 1..K.
    """
    if path.suffix.lower() != ".ilp":
        raise ValueError(
            f"expected a project named NAME.ilp, found {shown(path)}; give {shown(path.with_suffix('.ilp'))}"
        )
    _check_forest(forest)
    lanes = [(image, _renumbered(scribbles, image, forest)) for image, scribbles in pairs]
    for image, _ in lanes:
        _check_lane(image, forest, images)
    return lanes


def _check_forest(forest: PixelForest) -> None:
    if forest.spec is None or forest.spec.name != "filters":
        found = "one without a spec of its features" if forest.spec is None else f"one over {forest.spec}"
        raise ForestError(
            f"expected a forest over the filter bank, which ilastik computes itself, found {found}; write a package (ff-package fused), "
            "which ilastik runs in its Neural Network workflow"
        )
    if forest.n_classes > MAX_CLASSES:
        raise ForestError(
            f"expected at most {MAX_CLASSES} classes, which ilastik's labels can hold, found {forest.n_classes}; train on fewer"
        )


def _check_lane(image: Image, forest: PixelForest, images: Place) -> None:
    assert forest.spec is not None  # `_check_forest` has seen to that
    if image.n_channels != forest.spec.channels:
        raise ImageError(
            f"{image.source}: expected {forest.spec.channels} channel(s), as the forest's filters have, found {image.n_channels}; choose "
            "them with --channels"
        )
    size = int(np.prod(image.shape, dtype=np.int64)) * image.dtype.itemsize
    if images == "embed" and size > MOST_EMBEDDED:
        raise ImageError(
            f"{image.source}: expected an image of at most {MOST_EMBEDDED} bytes in the project, found {size}; refer to the file with "
            "--link"
        )
    if images == "link" and not Path(image.source).is_file():
        raise ImageError(
            f"{image.source}: expected an image file that the project can refer to, found none; leave out --link to copy the pixels"
        )


def _renumbered(scribbles: Scribbles | None, image: Image, forest: PixelForest) -> Scribbles | None:
    """Return scribbles in the frame of their image, with values 1..K in the order of the forest's classes."""
    if scribbles is None:
        return None
    scribbles = match_to_image(scribbles, image)
    if strange := [c for c in scribbles.classes if c not in forest.classes]:
        raise LabelError(
            f"{scribbles.source}: expected labels of the forest's classes {list(forest.classes)}, found {strange}; give the labels that "
            "it was trained with"
        )
    values = np.searchsorted(np.asarray(forest.classes), scribbles.values) + 1
    return Scribbles(
        scribbles.points, values, scribbles.axes, scribbles.shape, scribbles.names, scribbles.colours, scribbles.source
    )


def _write_text(group: "h5py.Group", name: str, text: str) -> None:
    """Write a text as ilastik does: bytes of UTF-8."""
    group.create_dataset(name, data=text.encode())


def _write_images(file: "h5py.File", images: Sequence[Image], place: Place, project: Path) -> None:
    group = file.create_group("Input Data")
    _write_text(group, "StorageVersion", "0.2")
    group.create_dataset("Role Names", data=[b"Raw Data", b"Prediction Mask"])
    local, infos = group.create_group("local_data"), group.create_group("infos")
    for number, image in enumerate(images):
        lane = infos.create_group(f"lane{number:04d}")
        info = lane.create_group("Raw Data")
        lane.create_group("Prediction Mask")
        axes = _file_axes(image)
        name = Path(image.source).name or "image"
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{number}/{name}/{image.shape}"))
        if place == "embed":
            inner = f"{local.name}/{identity}"
            _embed(local, identity, image, axes)
            texts = {
                "__class__": "ProjectInternalDatasetInfo",
                "location": "ProjectInternal",
                "inner_path": inner,
                "filePath": inner,
            }
            info.create_dataset("fromstack", data=True)
        else:
            reference, kind = _reference(Path(image.source), project)
            texts = {"__class__": kind, "location": "FileSystem", "filePath": reference}
        texts |= {
            "axistags": tags_of_axes(axes),
            "datasetId": identity,
            "nickname": _nickname(name),
            "display_mode": "default",
        }
        for key, text in texts.items():
            _write_text(info, key, text)
        info.create_dataset("shape", data=[image.sizes[a.upper()] for a in axes])
        info.create_dataset("allowLabels", data=True)
        info.create_dataset("normalizeDisplay", data=False)


def _file_axes(image: Image) -> str:
    """Return the axes of an image as ilastik reads them from its file.

    It takes the axes of a project's image for those of the images that it predicts: they must agree in number and order.
    """
    axes = image.stored_axes.lower()
    picture = Path(image.source).suffix.lower() in PICTURES
    return axes + "c" if picture and "c" not in axes else axes


def _label_axes(image: Image) -> str:
    """Return the axes that ilastik paints on: without those of length 1, the channels last."""
    return "".join(a for a in "tzyx" if a in "yx" or image.sizes[a.upper()] > 1) + "c"


def _nickname(name: str) -> str:
    """Return the name of an image as ilastik shows it: without suffix, and without characters that it reads as a pattern."""
    stem = name.split(".")[0] or "image"
    return "".join("_" if c in "*:{}/\\" else c for c in stem)


def _reference(source: Path, project: Path) -> tuple[str, str]:
    """Return how a project names an image file, and ilastik's word for that."""
    try:
        relative = os.path.relpath(source.absolute(), project.absolute().parent)
    except ValueError:  # another drive
        return source.absolute().as_posix(), "FilesystemDatasetInfo"
    return Path(relative).as_posix(), "RelativeFilesystemDatasetInfo"


def _embed(local: "h5py.Group", name: str, image: Image, axes: str) -> None:
    """Write the pixels of an image plane by plane."""
    sizes = [image.sizes[a.upper()] for a in axes]
    y, x = image.sizes["Y"], image.sizes["X"]
    chunks = tuple(min(n, 512) if a in "yx" else n if a == "c" else 1 for a, n in zip(axes, sizes, strict=True))
    rest = "".join(a for a in axes if a in "cyx")
    dtype = np.dtype(np.uint8) if image.dtype.kind == "b" else image.dtype.newbyteorder("=")
    dataset = local.create_dataset(
        name, shape=sizes, dtype=dtype, chunks=chunks, compression="gzip", compression_opts=1
    )
    for t, z in image.planes():
        place = {"t": t, "z": z, "y": slice(0, y), "x": slice(0, x), "c": slice(None)}
        pixels = image.plane(t, z)  # (C, Y, X)
        pixels = pixels if "c" in rest else pixels[0]
        there = "cyx" if "c" in rest else "yx"
        dataset[tuple(place[a] for a in axes)] = pixels.transpose([there.index(a) for a in rest])
    dataset.attrs["axistags"] = tags_of_axes(axes)
    dataset.attrs["display_mode"] = "default"


def _write_selection(file: "h5py.File", forest: PixelForest) -> None:
    assert forest.spec is not None  # `_check_forest` has seen to that
    options = forest.spec.options
    group = file.create_group("FeatureSelections")
    _write_text(group, "StorageVersion", "0.1")
    group.create_dataset("FeatureIds", data=[feature.encode() for feature in FEATURE_NAMES])
    group.create_dataset("Scales", data=np.asarray(options["scales"], np.float64))
    matrix = [
        [scale in options["selection"].get(feature, ()) for scale in options["scales"]] for feature in FEATURE_NAMES
    ]
    group.create_dataset("SelectionMatrix", data=np.asarray(matrix, bool))
    group.create_dataset("ComputeIn2d", data=np.asarray(options["compute_in_2d"], bool))


def _write_classification(
    file: "h5py.File", forest: PixelForest, labels: Sequence[Scribbles | None], images: Sequence[Image]
) -> None:
    group = file.create_group("PixelClassification")
    _write_text(group, "StorageVersion", "0.1")
    names = group.create_dataset("LabelNames", data=[name.encode() for name in forest.names])
    names.attrs["isEmpty"] = False
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in forest.colours], np.int64)
    for key in ("LabelColors", "PmapColors"):
        group.create_dataset(key, data=colours).attrs["isEmpty"] = False
    sets = group.create_group("LabelSets")
    for number, (scribbles, image) in enumerate(zip(labels, images, strict=True)):
        lane = sets.create_group(f"labels{number:03d}")
        for block_number, (start, block) in enumerate(_blocks(scribbles) if scribbles else ()):
            _write_block(lane, f"block{block_number:04d}", start, block, _label_axes(image))
    forests = group.create_group("ClassifierForests")
    trees = list(_trees(forest))
    n_forests = -(-len(trees) // TREES_PER_FOREST)
    known = np.arange(1, forest.n_classes + 1, dtype=np.uint32)
    for number in range(n_forests):
        share = trees[number::n_forests]
        write_forest(
            forests.create_group(f"Forest{number:04d}"), share, n_columns=forest.n_features, labels=known.tolist()
        )
    forests["known_labels"] = known
    assert forest.spec is not None  # `_check_forest` has seen to that
    forests.create_dataset("feature_names", data=[name.encode() for name in forest.spec.feature_names])
    _write_text(forests, "pickled_type", CLASSIFIER)
    _write_text(group, "ClassifierFactory", FACTORY.format(n_trees=len(trees), n_forests=n_forests))


def _trees(forest: PixelForest) -> Iterator[TreeNodes]:
    """Yield the trees, each with addresses of its own."""
    ends = np.append(forest.roots[1:], len(forest.feature))
    for root, end in zip(forest.roots, ends, strict=True):
        column, left = forest.feature[root:end], forest.left[root:end]
        is_leaf = column < 0
        rows = left[is_leaf]
        place = np.where(is_leaf, 0, left - root)
        place[is_leaf] = np.arange(len(rows))
        yield TreeNodes(column, forest.threshold[root:end], place.astype(np.int32), forest.leaves[rows])


def _blocks(scribbles: Scribbles) -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.uint8]]]:
    """Yield (t, z, y, x) of the first pixel, and (y, x) labels cropped to what is painted, of each block that has any."""
    points, values = scribbles.points, scribbles.values
    square = points // (1, 1, BLOCK, BLOCK)
    _, first, block_of = np.unique(square, axis=0, return_index=True, return_inverse=True)
    for number, index in enumerate(first):
        inside = np.ravel(block_of) == number
        y, x = points[inside, 2], points[inside, 3]
        block = np.zeros((y.max() - y.min() + 1, x.max() - x.min() + 1), np.uint8)
        block[y - y.min(), x - x.min()] = values[inside]
        yield (int(points[index, 0]), int(points[index, 1]), int(y.min()), int(x.min())), block


def _write_block(
    lane: "h5py.Group", name: str, start: tuple[int, int, int, int], block: NDArray[np.uint8], axes: str
) -> None:
    first = dict(zip("tzyx", start, strict=True)) | {"c": 0}
    length = {"t": 1, "z": 1, "y": block.shape[0], "x": block.shape[1], "c": 1}
    dataset = lane.create_dataset(name, data=block.reshape([length[a] for a in axes]))
    place = ",".join(f"{first[a]}:{first[a] + length[a]}" for a in axes)
    dataset.attrs["blockSlice"] = np.bytes_(f"[{place}]")
    dataset.attrs["axistags"] = tags_of_axes(axes)
