"""How well a segmentation fits the truth: overlaps in; Dice, IoU, average precision, panoptic quality and kappa out.

What is undefined, such as the precision where nothing was found, is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forestbridge.objects.overlap import Overlap, with_values

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""IoU from which an object counts as found: 0.5, 0.55, …, 0.95."""

IN_THE_ANNOTATED = 0.5
"""Of sparse truth: share of an object that must lie on annotated objects for it to count as one too many."""


@dataclass(frozen=True)
class ClassScores:
    """One class: pixels in the truth, in the segmentation, and in both."""

    value: int
    truth: int
    segmentation: int
    both: int

    @property
    def dice(self) -> float:
        """2 |A ∩ B| / (|A| + |B|), the same as the F1 of the pixels."""
        return ratio(2 * self.both, self.truth + self.segmentation)

    @property
    def iou(self) -> float:
        """|A ∩ B| / |A ∪ B|, the Jaccard index."""
        return ratio(self.both, self.truth + self.segmentation - self.both)

    @property
    def precision(self) -> float:
        """Share of the segmented pixels that are right."""
        return ratio(self.both, self.segmentation)

    @property
    def recall(self) -> float:
        """Share of the true pixels that were found."""
        return ratio(self.both, self.truth)


@dataclass(frozen=True)
class ObjectScores:
    """Objects that were found, at one IoU threshold; of several images, the numbers of all of them.

    Attributes
    ----------
    threshold
        IoU from which two objects are the same.
    found, extra, missed
        True positives, false positives, false negatives.
    iou_sum
        Of the pairs that were found.
    """

    threshold: float
    found: int
    extra: int
    missed: int
    iou_sum: float

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), as StarDist and Cellpose define it."""
        return ratio(self.found, self.found + self.extra + self.missed)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return ratio(self.found, self.found + self.extra)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return ratio(self.found, self.found + self.missed)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.found, 2 * self.found + self.extra + self.missed)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the objects that were found."""
        return ratio(self.iou_sum, self.found)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the IoU of the found / (TP + FP / 2 + FN / 2), as Kirillov et al. 2019 (doi:10.1109/CVPR.2019.00963) define it."""
        return ratio(self.iou_sum, self.found + (self.extra + self.missed) / 2)

    def __add__(self, other: "ObjectScores") -> "ObjectScores":
        numbers = (getattr(self, n) + getattr(other, n) for n in ("found", "extra", "missed", "iou_sum"))
        return ObjectScores(self.threshold, *numbers)


def ratio(a: float, b: float) -> float:
    """Return a / b, NaN for b = 0."""
    return a / b if b else float("nan")


def class_scores(overlap: Overlap) -> list[ClassScores]:
    """Return the scores of each class that occurs in either image, ascending; 0 is no class.

    Parameters
    ----------
    overlap
        Of segmentation (a) and truth (b).
    """
    in_a, in_b = overlap.totals()
    same = overlap.a == overlap.b
    values = np.union1d(in_a.values, in_b.values)
    values = values[values > 0]
    both = dict(zip(overlap.a[same].tolist(), overlap.count[same].tolist(), strict=True))
    numbers = zip(values.tolist(), in_b.of(values).tolist(), in_a.of(values).tolist(), strict=True)
    return [ClassScores(value, truth, found, both.get(value, 0)) for value, truth, found in numbers]


def accuracy(overlap: Overlap) -> float:
    """Return the share of pixels with the same value in both images, 0 included."""
    return ratio(int(overlap.count[overlap.a == overlap.b].sum()), int(overlap.count.sum()))


def cohens_kappa(overlap: Overlap) -> float:
    """Return Cohen's kappa: agreement beyond that of chance; 1 where both images have one and the same value everywhere.

    References
    ----------
    Cohen 1960, doi:10.1177/001316446002000104.
    """
    return fleiss_kappa([overlap], pooled=False)


def fleiss_kappa(overlaps: Sequence[Overlap], *, pooled: bool = True) -> float:
    """Return Fleiss' kappa of all raters from the overlaps of each pair of them, on the same pixels.

    Parameters
    ----------
    overlaps
        Of each pair of raters.
    pooled
        Whether chance is that of the frequencies of all raters together (Fleiss), or the two of the pair (Cohen).

    References
    ----------
    Fleiss 1971, doi:10.1037/h0031619. The mean over pixels of the agreeing pairs of raters is the mean agreement of the pairs.
    """
    observed = float(np.mean([accuracy(overlap) for overlap in overlaps]))
    shares: dict[int, list[float]] = {}
    for overlap in overlaps:
        for side, counts in enumerate(overlap.totals()):
            total = int(counts.pixels.sum())
            for value, pixels in zip(counts.values.tolist(), counts.pixels.tolist(), strict=True):
                shares.setdefault(value, [0.0, 0.0])[side] += pixels / total / len(overlaps)
    chance = sum(((a + b) / 2) ** 2 if pooled else a * b for a, b in shares.values())
    if chance >= 1:
        return 1.0
    return (observed - chance) / (1 - chance)


def object_scores(
    overlap: Overlap, *, thresholds: Sequence[float] = THRESHOLDS, sparse: bool = False
) -> list[ObjectScores]:
    """Return how many objects were found at each threshold.

    Pairs are chosen so that as many as possible reach the threshold, and among these so that the sum of their IoU is largest.

    Parameters
    ----------
    overlap
        Of segmentation (a) and truth (b), of one picture.
    thresholds
        Of the IoU, above 0, at most 1.
    sparse
        Whether the truth holds some of the objects only: an object of the segmentation then counts as one too many only if
        `IN_THE_ANNOTATED` of it lies on annotated ones.
    """
    segmentation, truth = (counts for counts in overlap.totals())
    pairs = with_values(overlap)
    union = segmentation.of(pairs.a) + truth.of(pairs.b) - pairs.count
    iou = pairs.count / union
    ids = segmentation.values[segmentation.values > 0]
    n_truth = int(np.count_nonzero(truth.values > 0))
    counts = np.ones(len(ids), bool)
    if sparse:
        annotated = np.zeros(len(ids), np.int64)
        np.add.at(annotated, np.searchsorted(ids, pairs.a), pairs.count)
        counts = annotated >= IN_THE_ANNOTATED * segmentation.of(ids)
    result = []
    for threshold in thresholds:
        chosen = _matched(pairs, iou, threshold)
        matched = np.isin(ids, pairs.a[chosen])
        extra = int(np.count_nonzero(counts & ~matched))
        result.append(ObjectScores(threshold, len(chosen), extra, n_truth - len(chosen), float(iou[chosen].sum())))
    return result


def _matched(pairs: Overlap, iou: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Return which pairs are the same objects; each object is in one pair at most."""
    good = np.flatnonzero(iou >= threshold)
    a, b = pairs.a[good], pairs.b[good]
    _, index_a, n_a = np.unique(a, return_inverse=True, return_counts=True)
    _, index_b, n_b = np.unique(b, return_inverse=True, return_counts=True)
    alone = (n_a[index_a] == 1) & (n_b[index_b] == 1)  # above 0.5 all are
    if alone.all():
        return good
    rest = np.flatnonzero(~alone)
    return np.sort(np.concatenate([good[alone], good[rest][_assigned(index_a[rest], index_b[rest], iou[good[rest]])]]))


def _assigned(a: NDArray[np.intp], b: NDArray[np.intp], iou: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the best choice of pairs, group by group of objects that compete."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(a.max()) + int(b.max()) + 2
    graph = coo_array((np.ones(len(a)), (a, b + a.max() + 1)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][a]
    chosen = []
    for members in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        rows, row = np.unique(a[members], return_inverse=True)
        columns, column = np.unique(b[members], return_inverse=True)
        gain = np.zeros((len(rows), len(columns)))
        gain[row, column] = 1 + iou[members] / (2 * min(gain.shape))
        pair = np.full(gain.shape, -1)
        pair[row, column] = members
        found = pair[linear_sum_assignment(gain, maximize=True)]
        chosen.append(found[found >= 0])
    return np.concatenate(chosen)
