"""Compare label images: a segmentation with the truth, or those of several people with each other.

`docs/objects.md` says what each number means.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.image import Image
from forestbridge.objects.labelled import Source, check_same_size, open_labelled, read_plane, units
from forestbridge.objects.overlap import NOTHING, Overlap, added, overlap_of, with_values
from forestbridge.objects.scores import (
    THRESHOLDS,
    ClassScores,
    ObjectScores,
    accuracy,
    class_scores,
    cohens_kappa,
    fleiss_kappa,
    object_scores,
)

Kind = Literal["objects", "classes"]
"""What the values of label images are."""

MAX_CLASSES = 255
"""Values of a label image of classes, at most: more are objects."""


@dataclass(frozen=True)
class Evaluation:
    """How well a segmentation fits the truth.

    Attributes
    ----------
    source
        Name of the segmentation.
    kind
        What its values are.
    classes
        Scores of each class; of objects one entry with the value 1, for "object or not".
    accuracy
        Share of pixels with the right class; 0 is a class here, except in sparse truth.
    objects
        Scores at each threshold; empty for classes.
    n_truth, n_segmentation
        Numbers of objects, an object of two frames counts twice; 0 for classes.
    """

    source: str
    kind: Kind
    classes: tuple[ClassScores, ...]
    accuracy: float
    objects: tuple[ObjectScores, ...]
    n_truth: int
    n_segmentation: int

    @property
    def mean_average_precision(self) -> float:
        """Mean over the thresholds."""
        return float(np.mean([s.average_precision for s in self.objects])) if self.objects else float("nan")

    @property
    def mean_dice(self) -> float:
        """Mean over the classes."""
        return float(np.mean([c.dice for c in self.classes])) if self.classes else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean over the classes."""
        return float(np.mean([c.iou for c in self.classes])) if self.classes else float("nan")

    def describe(self) -> dict[str, Any]:
        """Return all numbers as JSON values; None is what is undefined."""
        per_class = [
            {
                "value": c.value,
                "truth_pixels": c.truth,
                "segmentation_pixels": c.segmentation,
                **_numbers(c, ("dice", "iou", "precision", "recall")),
            }
            for c in self.classes
        ]
        facts: dict[str, Any] = {"segmentation": self.source, "kind": self.kind}
        facts |= _numbers(self, ("accuracy", "mean_dice", "mean_iou"))
        facts["classes"] = per_class
        if self.kind == "objects":
            names = ("average_precision", "precision", "recall", "f1", "mean_iou", "panoptic_quality")
            facts |= {"objects_truth": self.n_truth, "objects_segmentation": self.n_segmentation}
            facts |= _numbers(self, ("mean_average_precision",))
            facts["thresholds"] = [
                {"iou": s.threshold, "found": s.found, "extra": s.extra, "missed": s.missed, **_numbers(s, names)}
                for s in self.objects
            ]
        return facts


@dataclass(frozen=True)
class AnnotatorAgreement:
    """How well label images of one picture by several people agree.

    Attributes
    ----------
    sources
        Their names.
    pairs
        For each pair of people the indices of both, and how well the first fits the second.
    kappas
        Cohen's kappa of each pair.
    fleiss
        Fleiss' kappa of all.
    """

    sources: tuple[str, ...]
    pairs: tuple[tuple[int, int, Evaluation], ...]
    kappas: tuple[float, ...]
    fleiss: float

    def describe(self) -> dict[str, Any]:
        """Return all numbers as JSON values."""
        pairs = [
            {"a": self.sources[a], "b": self.sources[b], "cohens_kappa": _finite(kappa), **found.describe()}
            for (a, b, found), kappa in zip(self.pairs, self.kappas, strict=True)
        ]
        for pair in pairs:
            del pair["segmentation"]
        return {"raters": list(self.sources), "fleiss_kappa": _finite(self.fleiss), "pairs": pairs}


def evaluate(
    segmentation: Source,
    truth: Source,
    *,
    kind: Kind = "objects",
    sparse: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
    plane_by_plane: bool = False,
    axes: str | None = None,
) -> Evaluation:
    """Compare a segmentation with the truth.

    Parameters
    ----------
    segmentation, truth
        Label images of one size: files, images, or arrays (Y, X), (Z, Y, X), (T, Z, Y, X) of any integer dtype.
    kind
        "objects": one number for each object, numbers need not be the same in both. "classes": one number for each class, the same in
        both; 0 is background.
    sparse
        Whether the truth labels a part of the picture only, and 0 means "not labelled" there.
    thresholds
        IoU from which an object counts as found.
    plane_by_plane
        Whether the objects of each plane of a stack are compared on their own; those of frames always are.
    axes
        Of both, where their files do not say.

    Raises
    ------
    ImageError
        If they cannot be read, are no label images, or differ in size.
    LabelError
        If there are too many classes.
    ValueError
        If a threshold is not above 0 and at most 1.
    """
    images = [open_labelled(source, axes=axes) for source in (segmentation, truth)]
    check_same_size(*images)
    found = list(_unit_overlaps(images, plane_by_plane=plane_by_plane))
    return _evaluation([o for [o] in found], images, kind=kind, sparse=sparse, thresholds=thresholds)


def annotator_agreement(
    labels: Sequence[Source],
    *,
    kind: Kind = "classes",
    sparse: bool = False,
    plane_by_plane: bool = False,
    axes: str | None = None,
) -> AnnotatorAgreement:
    """Compare label images of one picture by several people.

    Parameters
    ----------
    labels
        At least two, as for `evaluate`.
    kind
        As for `evaluate`; kappas of objects are those of "object or not".
    sparse
        Whether 0 means "not labelled": then only pixels count that all people labelled.

    Raises
    ------
    ImageError, LabelError
        As `evaluate`.
    ValueError
        If there are fewer than two.
    """
    if len(labels) < 2:
        raise ValueError(f"expected label images of at least two people, found {len(labels)}")
    images = [open_labelled(source, axes=axes) for source in labels]
    for image in images[1:]:
        check_same_size(images[0], image)
    who = list(combinations(range(len(images)), 2))
    by_unit = list(_unit_overlaps(images, plane_by_plane=plane_by_plane, common=sparse))
    pairs, totals = [], []
    for n, (a, b) in enumerate(who):
        overlaps = [unit[n] for unit in by_unit]
        pair = [images[a], images[b]]
        pairs.append((a, b, _evaluation(overlaps, pair, kind=kind, sparse=sparse, thresholds=THRESHOLDS)))
        total = reduce(added, overlaps)
        totals.append(total if kind == "classes" else _as_foreground(total))
    sources = tuple(image.source if image.source != "array" else f"array {n}" for n, image in enumerate(images))
    return AnnotatorAgreement(sources, tuple(pairs), tuple(map(cohens_kappa, totals)), fleiss_kappa(totals))


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the scores of all pictures together: pixels and objects are summed up before they are compared."""
    by_value: dict[int, list[ClassScores]] = {}
    for evaluation in evaluations:
        for c in evaluation.classes:
            by_value.setdefault(c.value, []).append(c)
    classes = tuple(
        ClassScores(value, *(sum(getattr(c, name) for c in found) for name in ("truth", "segmentation", "both")))
        for value, found in sorted(by_value.items())
    )
    return Evaluation(
        f"all {len(evaluations)}",
        evaluations[0].kind,
        classes,
        float(np.mean([e.accuracy for e in evaluations])),
        tuple(reduce(add, scores) for scores in zip(*(e.objects for e in evaluations), strict=True)),
        sum(e.n_truth for e in evaluations),
        sum(e.n_segmentation for e in evaluations),
    )


def _unit_overlaps(images: Sequence[Image], *, plane_by_plane: bool, common: bool = False) -> Iterator[list[Overlap]]:
    """Yield, for each frame (and plane), the overlap of each pair of images; `common` leaves out what is 0 in any of them."""
    for t, planes in units(images[0], plane_by_plane=plane_by_plane):
        found = [NOTHING] * (len(images) * (len(images) - 1) // 2)
        for z in planes:
            pixels = [read_plane(image, t, z) for image in images]
            if common:
                labelled = np.logical_and.reduce([plane > 0 for plane in pixels])
                pixels = [plane[labelled] for plane in pixels]
            own = [overlap_of(a, b) for a, b in combinations(pixels, 2)]
            found = own if z == planes[0] else [added(o, n) for o, n in zip(found, own, strict=True)]
        yield found


def _evaluation(
    overlaps: Sequence[Overlap], images: Sequence[Image], *, kind: Kind, sparse: bool, thresholds: Sequence[float]
) -> Evaluation:
    """Score the overlaps of the units of one segmentation with the truth."""
    if bad := [t for t in thresholds if not 0 < t <= 1]:
        raise ValueError(f"expected thresholds above 0 and at most 1, found {bad[0]}")
    total = reduce(added, overlaps)
    objects: tuple[ObjectScores, ...] = ()
    counts = (0, 0)
    if kind == "objects":
        scores = (object_scores(o, thresholds=thresholds, sparse=sparse) for o in overlaps)
        objects = tuple(reduce(add, s) for s in zip(*scores, strict=True))
        counts = tuple(
            sum(np.count_nonzero(np.unique(side)) for side in sides) for sides in zip(*((o.b, o.a) for o in overlaps))
        )
        total = _as_foreground(total)
    else:
        for image, values in zip(images, (total.a, total.b), strict=True):
            _check_classes(image, values)
    if sparse:
        total = with_values(total, a=False)
    return Evaluation(
        images[0].source, kind, tuple(class_scores(total)), accuracy(total), objects, int(counts[0]), int(counts[1])
    )


def _check_classes(image: Image, values: NDArray[np.int64]) -> None:
    n = len(np.unique(values))
    if n > MAX_CLASSES:
        raise LabelError(
            f"{image.source}: expected at most {MAX_CLASSES} classes, found {n} values, which look like objects; give --kind objects "
            "(kind='objects')"
        )


def _as_foreground(overlap: Overlap) -> Overlap:
    """Return the same pixels with 1 for every object."""
    return added(Overlap(np.minimum(overlap.a, 1), np.minimum(overlap.b, 1), overlap.count), NOTHING)


def _numbers(of: Any, names: Sequence[str]) -> dict[str, float | None]:
    return {name: _finite(getattr(of, name)) for name in names}


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
