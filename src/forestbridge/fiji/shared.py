"""What Fiji's Groovy scripts call through Appose: pixels in shared memory in, results in shared memory out, in a process that stays.

Every function takes the task, through which progress and cancelling go, and returns the task's outputs. Arrays are those of an
ImagePlus: (T, Z, C, Y, X), the planes in the order of its stack. Appose runs each task in a thread of its own; they work one after
the other, so that two calls do not share a GPU. What only some functions need is imported there: the first call should not wait.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders import Encoder, encoder_from_spec, features, open_encoder
from forestbridge.errors import ForestbridgeError
from forestbridge.fiji.segment import OUTPUTS, Output
from forestbridge.image import Image, as_image, label_dtype
from forestbridge.model import classes_of, open_model, predict_with
from forestbridge.runner import Package

STACK = "TZCYX"
"""Axes of an ImagePlus."""

TELL_EVERY = 0.1
"""Seconds between two words on the progress: each is drawn in a window."""

_one_at_a_time = threading.Lock()


class Task(Protocol):
    """The part of Appose's task that is used here."""

    cancel_requested: bool

    def update(self, message: str | None = None, current: int | None = None, maximum: int | None = None) -> None: ...


class Shared(Protocol):
    """Appose's NDArray."""

    def ndarray(self) -> NDArray: ...


class Cancelled(Exception):
    """The caller cancelled the task."""


def describe(*, model: str, device: str) -> dict[str, Any]:
    """Return the classes of a package, forest or project, which is open from then on.

    Returns
    -------
    outputs
        "values", "names", "colours" (as "#rrggbb"), one of each class, and the "dtype" of its label images.
    """
    with _one_at_a_time:
        classes = classes_of(open_model(model, device=device))
    dtype = label_dtype(classes.values)
    return {
        "values": list(classes.values),
        "names": list(classes.names),
        "colours": list(classes.colours),
        "dtype": "float32" if dtype.itemsize > 2 else dtype.name,  # ImageJ has no labels of 32 bits
    }


def segment(
    task: Task, pixels: Shared, result: Shared, *, model: str, output: Output, device: str, tile: int, title: str
) -> dict[str, Any]:
    """Classify every pixel of an image into an array that the caller made.

    Parameters
    ----------
    pixels
        (T, Z, C, Y, X) uint8, uint16 or float32.
    result
        (T, Z, K, Y, X): labels in the dtype of `describe` with K = 1; or float32, probabilities with K classes, uncertainty with 1.

    Returns
    -------
    outputs
        "seconds" that the prediction itself took.
    """
    with _one_at_a_time:
        opened, image = open_model(model, device=device), image_of(pixels.ndarray(), title)
        options: dict[str, Any] = {"kind": OUTPUTS[output], "progress": progress_of(task, f"predict {title}")}
        began = time.perf_counter()
        found = predict_with(opened, image, device=device, tile=tile or None, **options)
        seconds = time.perf_counter() - began
        own = set(image.axes) - {"C"} | ({"C"} if output == "Probabilities" else set())
        result.ndarray()[...] = in_stack_order(found, "".join(axis for axis in "TCZYX" if axis in own))
        return {"seconds": seconds}


def image_of(pixels: NDArray, title: str) -> Image:
    """Return an image for the pixels of an ImagePlus, (T, Z, C, Y, X), without its axes of length 1."""
    axes = "".join(axis for axis, n in zip(STACK, pixels.shape, strict=True) if n > 1 or axis in "YX")
    shape = [n for axis, n in zip(STACK, pixels.shape, strict=True) if axis in axes]
    image = as_image(pixels.reshape(shape), axes=axes)
    return Image(data=image.data, axes=image.axes, pixel_size={}, source=title)


def in_stack_order(array: NDArray, axes: str) -> NDArray:
    """Return an array as (T, Z, C, Y, X), with axes of length 1 where it has none."""
    order = [axes.index(axis) for axis in STACK if axis in axes]
    ordered = array.transpose(order)  # the axes of STACK that there are, in its order
    for n, axis in enumerate(STACK):
        if axis not in axes:
            ordered = np.expand_dims(ordered, n)
    return ordered


def progress_of(task: Task, message: str) -> Callable[[int, int], None]:
    """Return a function that tells the progress, and ends the work by `Cancelled` when the caller asked for it."""

    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if task.cancel_requested:
            raise Cancelled
        now = time.monotonic()
        if now - told >= TELL_EVERY or done == total:
            task.update(message=message, current=done, maximum=total)
            told = now

    return tell


def train_forest(
    pixels: Shared,
    labels: Shared | None,
    *,
    regions: str,
    names: Sequence[str],
    forest: str,
    preset: str,
    trees: int,
    volume: bool,
    overwrite: bool,
    title: str,
) -> dict[str, Any]:
    """Train a forest on an image and a label image, or the regions of a file of the ROI Manager, and save it.

    Parameters
    ----------
    labels
        (T, Z, 1, Y, X): 0 unlabelled, k = class k; None to use `regions`.
    """
    from forestbridge.labels import as_scribbles, read_scribbles
    from forestbridge.train import train

    with _one_at_a_time:
        image = image_of(pixels.ndarray(), title)
        if labels is None:
            scribbles = read_scribbles(regions, names=list(names) or None, shape=image)
        else:
            painted = image_of(labels.ndarray(), "labels")
            array = np.asarray(painted.data[tuple(slice(None) for _ in painted.axes)])
            scribbles = as_scribbles(array, axes=painted.axes, names=list(names) or None, source="labels")
        encoder = open_encoder("filters", channels=image.n_channels, compute_in_2d=not volume)
        grown = train([(image, scribbles)], encoder=encoder, preset=preset, n_trees=trees or None)
        grown.save(forest, overwrite=overwrite)
        return {
            "trees": grown.n_trees,
            "pixels": sum(grown.training["pixels"].values()),
            "accuracy": grown.training["oob_accuracy"],
        }


def feature_names(*, encoder: str, like: str, channels: int, volume: bool) -> dict[str, Any]:
    """Return the names of the features that `show_features` computes."""
    return {"names": list(_encoder(encoder, like, channels, volume=volume).spec.feature_names)}


def show_features(
    task: Task, pixels: Shared, result: Shared, *, encoder: str, like: str, volume: bool, title: str
) -> None:
    """Compute the features of every pixel into a (T, Z, F, Y, X) float32 array that the caller made."""
    with _one_at_a_time:
        frames, target = pixels.ndarray(), result.ndarray()
        bank = _encoder(encoder, like, frames.shape[2], volume=volume)
        tell = progress_of(task, f"features of {title}")
        for t in range(len(frames)):
            tell(t, len(frames))
            found = features(image_of(frames[t : t + 1], title), bank)  # (F, Y, X) or (F, Z, Y, X)
            target[t] = np.moveaxis(found, 0, 1) if found.ndim == 4 else found  # (Z, F, Y, X)


def _encoder(name: str, like: str, channels: int, *, volume: bool) -> Encoder:
    if not like:
        return open_encoder(name, channels=channels, compute_in_2d=not volume)
    spec = open_model(like)
    found = spec.info.spec if isinstance(spec, Package) else spec.spec
    if found is None:
        raise ValueError(f"expected a package or forest with the spec of its features, found none in {like}")
    return encoder_from_spec(found)


def check_quality(task: Task, pixels: Shared, *, title: str) -> dict[str, Any]:
    """Return the verdict on an image, its reasons, and the numbers of each plane and channel as rows."""
    from forestbridge.qc import quality

    with _one_at_a_time:
        report = quality(image_of(pixels.ndarray(), title), progress=progress_of(task, f"quality of {title}"))
        rows = [
            {"t": plane.t, "z": plane.z, "channel": plane.channel, **vars(plane.statistics)}
            for channel in report.channels
            for plane in channel.planes
        ]
        return {"verdict": report.verdict, "reasons": list(report.reasons), "rows": rows}


def segment_folder(
    task: Task,
    *,
    model: str,
    folder: str,
    destination: str,
    output: Output,
    pattern: str,
    device: str,
    tile: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Classify the images of a folder into files NAME_segmentation.tif and so on; a bad one does not stop the others.

    Returns
    -------
    outputs
        The number "written", and "failed": a message for each file that could not be done.
    """
    from forestbridge.image import base_name, check_distinct_names, is_named_like_image, read_image

    with _one_at_a_time:
        found = sorted(
            path
            for path in Path(folder).iterdir()
            if (fnmatch(path.name, pattern) if pattern else is_named_like_image(path)) and not path.name.startswith(".")
        )
        if not found:
            raise ValueError(f"expected images in the folder {folder}, found none; check the folder and filter=")
        check_distinct_names(found)
        opened = open_model(model, device=device)
        Path(destination).mkdir(parents=True, exist_ok=True)
        failed = []
        for path in found:
            out = Path(destination) / f"{base_name(path)}_{output.lower()}.tif"
            options: dict[str, Any] = {"kind": OUTPUTS[output], "out": out, "overwrite": overwrite}
            options["progress"] = progress_of(task, f"predict {path.name}")
            try:
                predict_with(opened, read_image(path), device=device, tile=tile or None, **options)
            except (ForestbridgeError, ValueError) as error:
                failed.append(" ".join(str(error).split()))
        return {"written": len(found) - len(failed), "failed": failed}


def export_package(
    pixels: Shared | None,
    *,
    forest: str,
    package: str,
    name: str,
    authors: Sequence[str],
    license: str,
    overwrite: bool,
    title: str,
) -> dict[str, Any]:
    """Write a forest as a package; a crop of `pixels`, (T, Z, C, Y, X), travels in it as its test."""
    from forestbridge.package import About, write_package

    with _one_at_a_time:
        opened = open_model(forest)
        if isinstance(opened, Package):
            raise ValueError(
                f"expected forest= with a forest (.forest) or ilastik project (.ilp), found the package {forest}"
            )
        people = tuple({"name": author} for author in authors) or About().authors
        image = None if pixels is None else image_of(pixels.ndarray(), title)
        about = About(name=name or None, authors=people, license=license)
        write_package(package, opened, image=image, about=about, overwrite=overwrite)
        return {}


def make_example(*, name: str, folder: str) -> dict[str, Any]:
    """Write an example into a folder; return the paths of its "image" and "labels"."""
    from forestbridge.example import write_example

    image, labels = write_example(name, folder, overwrite=True)
    return {"image": str(image), "labels": str(labels)}


def guarded(work: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any]:
    """Do a task's work; return its outputs, "cancelled" where the caller asked for it, or the message as "error"."""
    try:
        return work() or {}
    except Cancelled:
        return {"cancelled": True}
    except (ForestbridgeError, ValueError, TypeError, OSError) as error:
        return {"error": " ".join(str(error).split())}
