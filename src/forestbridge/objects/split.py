"""One unit of classes to numbered objects: connected components, or one of three ways to part objects that touch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Method = Literal["components", "erode", "distance", "probability"]
"""components: pixels that touch. erode: cores that are left when each class is eroded, grown again. distance: watershed of the distance to
the border. probability: watershed of the probability of the class."""

METHODS: tuple[Method, ...] = ("components", "erode", "distance", "probability")

H = {"distance": 1.0, "probability": 0.1}
"""How much a hill must rise above the pass to a higher one to be an object: pixels, or probability."""


class Splitting(NamedTuple):
    """How objects are told apart; what a method does not need is not looked at.

    Attributes
    ----------
    connectivity
        How many axes neighbours may differ in, from 1 (sides) on; None: all of them (corners too).
    erode, expand
        Radius of the ball (disk in 2D) in pixels, and distance that the cores grow, for "erode".
    h
        See `H`; None takes the value there.
    min_distance
        Smallest distance in pixels between two seeds of touching objects.
    """

    method: Method = "components"
    connectivity: int | None = None
    erode: int = 10
    expand: int = 10
    h: float | None = None
    min_distance: float = 0.0

    def check(self, n_axes: int) -> None:
        """Refuse what cannot be.

        Raises
        ------
        ValueError
            If the method is not known, or a number is out of its range.
        """
        if self.method not in METHODS:
            raise ValueError(f"expected one of the methods {', '.join(METHODS)}, found {self.method!r}")
        if self.connectivity is not None and not 1 <= self.connectivity <= n_axes:
            raise ValueError(
                f"expected a connectivity from 1 to {n_axes}, found {self.connectivity}; leave it out for corners too"
            )
        for name in ("erode", "expand", "min_distance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"expected {name} in pixels, 0 or more, found {getattr(self, name)}")
        if self.h is not None and not 0 < self.h < float("inf"):
            raise ValueError(f"expected h above 0, found {self.h}")

    def text(self) -> str:
        """Return the method with the numbers that it takes, for provenance."""
        match self.method:
            case "erode":
                numbers = f" erode={self.erode} expand={self.expand}"
            case "distance" | "probability":
                numbers = f" h={self.height:g} min_distance={self.min_distance:g}"
            case _:
                numbers = ""
        return f"{self.method}{numbers} connectivity={self.connectivity or 'all'}"

    @property
    def height(self) -> float:
        """The h that counts."""
        return self.h if self.h is not None else H.get(self.method, 0.0)


class Objects(NamedTuple):
    """Objects of one unit.

    Attributes
    ----------
    labels
        int32: 1 … n in the order of their first pixels (for "erode" those of their cores), and 0.
    class_of
        (n + 1,) uint8: the class of each object; 0 for 0.
    lost
        Connected components of which nothing is left.
    """

    labels: NDArray[np.int32]
    class_of: NDArray[np.uint8]
    lost: int = 0


def split(
    classes: NDArray[np.uint8], splitting: Splitting, probabilities: Sequence[NDArray[np.float32]] | None = None
) -> Objects:
    """Return the objects of a unit.

    Parameters
    ----------
    classes
        (Y, X) or (Z, Y, X) uint8: k for the k-th class whose objects are wanted, else 0. Objects are of one class each.
    splitting
        How.
    probabilities
        For "probability": of each of these classes, float32 of the same shape.

    Raises
    ------
    ValueError
        As `Splitting.check`, or if probabilities are needed and not given.
    """
    from forestbridge.objects.components import label_components

    splitting.check(classes.ndim)
    connectivity = splitting.connectivity or classes.ndim
    match splitting.method:
        case "components":
            return Objects(*label_components(classes, connectivity))
        case "erode":
            return _split_by_erosion(classes, splitting.erode, splitting.expand, connectivity)
        case "distance":
            hills = [_distances(classes == k + 1) for k in range(int(classes.max(initial=0)))]
        case _:
            if probabilities is None:
                raise ValueError("expected probabilities for the method 'probability', found labels; choose 'distance'")
            hills = list(probabilities)
    return _split_by_watershed(classes, hills, splitting, connectivity)


def _distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Euclidean distance of each pixel to the nearest one outside the mask; beyond the image there is none."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(mask))


def _split_by_erosion(classes: NDArray[np.uint8], erode: int, expand: int, connectivity: int) -> Objects:
    """Label what is left of each class when it is eroded by a ball, and grow it again, into no other class.

    A pixel is left where no pixel of the ball around it lies outside the class: where the nearest one is farther than the radius.
    """
    from skimage.segmentation import expand_labels

    from forestbridge.objects.components import label_components

    cores = classes.copy()
    for k in range(1, int(classes.max(initial=0)) + 1):
        mask = classes == k
        cores[mask & (_distances(mask) <= erode)] = 0
    labels, class_of = label_components(cores, connectivity)
    before, _ = label_components(classes, connectivity)
    kept = len(np.unique(before[cores > 0]))
    if expand and len(class_of) > 1:
        labels = expand_labels(labels, distance=expand)
        labels[(classes > 0) & (class_of[labels] != classes)] = 0
    return Objects(labels, class_of, int(before.max(initial=0)) - kept)


def _split_by_watershed(
    classes: NDArray[np.uint8], hills: Sequence[NDArray], splitting: Splitting, connectivity: int
) -> Objects:
    """Flood each class from the tops of its hills; every connected component has at least one."""
    from scipy import ndimage

    labels = np.zeros(classes.shape, np.int32)
    class_of = [np.zeros(1, np.uint8)]
    n = 0
    for k, place in enumerate(ndimage.find_objects(classes), 1):
        if place is None:
            continue
        mask = classes[place] == k
        part = _flood(mask, np.asarray(hills[k - 1][place], np.float64), splitting, connectivity)
        found = int(part.max())
        labels[place][mask] = part[mask] + n
        class_of.append(np.full(found, k, np.uint8))
        n += found
    return Objects(*_renumbered(labels, np.concatenate(class_of)))


def _flood(mask: NDArray[np.bool_], hills: NDArray[np.float64], splitting: Splitting, connectivity: int) -> NDArray:
    """Return the objects of one class, 1 … n."""
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    from forestbridge.objects.components import label_components

    h = splitting.height
    hills = np.where(np.isfinite(hills), hills, 1.0)  # a class that fills the image is one hill
    outside = (
        float(hills[mask].min()) - 2 * h
    )  # below everything: the top of the lowest hill is above it by more than h
    inside = tuple(slice(1, n + 1) for n in mask.shape)
    mask = np.pad(mask, 1)  # a hill that fills the image is a hill, too
    hills = np.where(mask, np.pad(hills, 1), outside)
    footprint = _neighbours(mask.ndim, connectivity)
    lowered = reconstruction(hills - h, hills, footprint=footprint)
    tops = np.asarray(local_maxima(lowered, footprint=footprint)) & mask
    seeds, _ = label_components(tops.astype(np.uint8), connectivity)
    if splitting.min_distance > 0:
        components, _ = label_components(mask.astype(np.uint8), connectivity)
        seeds = _thinned(seeds, hills, components, splitting.min_distance)
    return watershed(-hills, seeds, mask=mask, connectivity=connectivity)[inside]


def _neighbours(n_axes: int, connectivity: int) -> NDArray[np.bool_]:
    from scipy import ndimage

    return np.asarray(ndimage.generate_binary_structure(n_axes, connectivity))


def _thinned(seeds: NDArray, hills: NDArray, components: NDArray, min_distance: float) -> NDArray[np.int32]:
    """Return the seeds without those closer to a higher one of their component than `min_distance`."""
    from scipy.spatial import KDTree

    places = np.argwhere(seeds)  # ascending
    numbers, heights = seeds[seeds > 0], hills[seeds > 0]
    order = np.lexsort((np.arange(len(numbers)), -heights, numbers))
    first = order[np.searchsorted(numbers[order], np.arange(1, numbers.max(initial=0) + 1))]
    tops, heights = places[first], heights[first]
    of_component = components[tuple(tops.T)]
    tree = KDTree(tops)
    dropped = np.zeros(len(tops), bool)
    for i in np.lexsort((np.arange(len(tops)), -heights)):
        if not dropped[i]:
            near = [j for j in tree.query_ball_point(tops[i], np.nextafter(min_distance, 0)) if j != i]
            dropped[[j for j in near if of_component[j] == of_component[i] and heights[j] <= heights[i]]] = True
    keep = np.concatenate([[0], np.where(dropped, 0, np.cumsum(~dropped))]).astype(np.int32)
    return keep[seeds]


def _renumbered(labels: NDArray, class_of: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return objects numbered 1 … n in the order of their first pixels."""
    flat = labels.ravel()
    first = np.full(len(class_of), flat.size)
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # of several places that are assigned the last one stays
    there = np.flatnonzero(first < flat.size)
    there = there[there > 0]
    order = there[np.argsort(first[there], kind="stable")]
    new = np.zeros(len(class_of), np.int32)
    new[order] = np.arange(1, len(order) + 1)
    return new[labels], np.concatenate([class_of[:1], class_of[order]])
