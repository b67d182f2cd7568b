"""Accuracy of segmentations: every number is that of its definition, written out pixel by pixel and object by object."""

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import cohen_kappa_score, f1_score, jaccard_score

from command_line import call, done
from forestbridge.errors import ImageError, LabelError
from forestbridge.objects import annotator_agreement, evaluate
from forestbridge.objects.scores import THRESHOLDS


def cells(seed: int, *, shape: tuple[int, ...] = (60, 70), shift: int = 0) -> NDArray[np.int32]:
    """Return numbered blobs; with another shift, the same ones elsewhere, split and joined here and there."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2.5)
    smooth = np.roll(smooth, shift, axis=-1) + shift * 0.004 * np.random.default_rng(99).random(shape)
    return ndimage.label(smooth > np.quantile(smooth, 0.65))[0].astype(np.int32)


def by_definition(segmentation: NDArray, truth: NDArray, threshold: float) -> tuple[int, int, int, float]:
    """Return TP, FP, FN and the sum of their IoU as StarDist matches: an assignment of all objects to all."""
    a, b = ([v for v in np.unique(labels) if v] for labels in (segmentation, truth))
    iou = np.zeros((len(a), len(b)))
    for (i, p), (j, q) in product(enumerate(a), enumerate(b)):
        one, other = segmentation == p, truth == q
        iou[i, j] = (one & other).sum() / (one | other).sum()
    if not iou.size:
        return 0, len(a), len(b), 0.0
    gain = (iou >= threshold) + iou / (2 * min(iou.shape))
    pairs = linear_sum_assignment(gain, maximize=True)
    good = iou[pairs] >= threshold
    return int(good.sum()), len(a) - int(good.sum()), len(b) - int(good.sum()), float(iou[pairs][good].sum())


@pytest.mark.parametrize("seed, shift", [(0, 0), (1, 1), (2, 2), (3, 4)])
def test_objects_by_definition(seed: int, shift: int) -> None:
    truth, segmentation = cells(seed), cells(seed, shift=shift)
    thresholds = (0.1, 0.3, *THRESHOLDS)
    found = evaluate(segmentation, truth, thresholds=thresholds)
    assert (found.n_segmentation, found.n_truth) == (segmentation.max(), truth.max())
    for scores, threshold in zip(found.objects, thresholds, strict=True):
        tp, fp, fn, iou = by_definition(segmentation, truth, threshold)
        assert (scores.found, scores.extra, scores.missed) == (tp, fp, fn)
        assert scores.iou_sum == pytest.approx(iou)
        if tp:
            assert scores.average_precision == tp / (tp + fp + fn)
            assert (scores.precision, scores.recall) == (tp / (tp + fp), tp / (tp + fn))
            assert scores.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
            assert scores.panoptic_quality == pytest.approx(iou / (tp + 0.5 * fp + 0.5 * fn))
            assert scores.panoptic_quality == pytest.approx(scores.mean_iou * scores.f1)
    assert found.mean_average_precision == pytest.approx(np.mean([s.average_precision for s in found.objects]))
    assert found.classes[0].dice == pytest.approx(f1_score(truth.ravel() > 0, segmentation.ravel() > 0))
    if shift == 0:
        assert found.mean_average_precision == 1


def test_two_halves_of_one_object_are_found_once() -> None:
    truth = np.ones((4, 4), np.uint8)
    halves = np.repeat([[1, 1, 2, 2]], 4, axis=0)
    [scores] = evaluate(halves, truth, thresholds=[0.5]).objects
    assert (scores.found, scores.extra, scores.missed) == (1, 1, 0)
    [scores] = evaluate(truth, halves, thresholds=[0.5]).objects
    assert (scores.found, scores.extra, scores.missed) == (1, 0, 1)


def test_as_many_pairs_as_possible() -> None:
    segmentation, truth = np.zeros((1, 12), int), np.zeros((1, 12), int)
    segmentation[0, :5], segmentation[0, 5:9] = 1, 2
    truth[0, 0], truth[0, 1:9] = 1, 2  # 1 lies on both true ones, best on the one that 2 lies on alone
    found = evaluate(segmentation, truth, thresholds=[0.2]).objects[0]
    assert (found.found, found.extra, found.missed) == by_definition(segmentation, truth, 0.2)[:3] == (2, 0, 0)


def test_classes_by_definition() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (40, 50))
    segmentation = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 6, truth.shape))
    found = evaluate(segmentation, truth, kind="classes")
    values = [c.value for c in found.classes]
    assert values == [1, 2, 3, 4, 5]
    dice = f1_score(truth.ravel(), segmentation.ravel(), labels=values, average=None)
    iou = jaccard_score(truth.ravel(), segmentation.ravel(), labels=values, average=None)
    assert [c.dice for c in found.classes] == pytest.approx(dice.tolist())
    assert [c.iou for c in found.classes] == pytest.approx(iou.tolist())
    assert found.accuracy == (truth == segmentation).mean()
    assert found.mean_dice == pytest.approx(dice.mean()) and found.objects == ()
    sparse = evaluate(segmentation, truth, kind="classes", sparse=True)
    known = truth > 0
    wanted = f1_score(truth[known], segmentation[known], labels=values, average=None)
    assert [c.dice for c in sparse.classes] == pytest.approx(wanted.tolist())
    assert sparse.accuracy == (truth == segmentation)[known].mean()


def test_sparse_truth_knows_nothing_of_other_objects() -> None:
    truth = cells(0)
    some = np.where(np.isin(truth, np.arange(1, truth.max() + 1, 3)), truth, 0)
    for scores in evaluate(truth, some, sparse=True).objects:
        assert (scores.extra, scores.missed) == (0, 0)
    split = np.where(np.arange(truth.shape[1]) % 2, truth, truth + truth.max() * (truth > 0))
    scores = evaluate(split, some, sparse=True).objects[0]
    assert scores.extra + scores.found == len(np.unique(split[some > 0]))
    assert evaluate(truth, some).objects[0].extra == truth.max() - len(np.unique(some)) + 1


@pytest.mark.parametrize("kind", ["objects", "classes"])
def test_nothing_to_find(kind: str) -> None:
    nothing, one = np.zeros((8, 9), np.uint8), np.zeros((8, 9), np.uint8)
    one[2:5, 2:5] = 1
    both = evaluate(nothing, nothing, kind=kind).describe()  # pyright: ignore[reportArgumentType]
    assert (both["accuracy"], both["mean_dice"]) == (1, None)
    found = evaluate(one, nothing, kind=kind)  # pyright: ignore[reportArgumentType]
    missed = evaluate(nothing, one, kind=kind)  # pyright: ignore[reportArgumentType]
    assert found.mean_dice == missed.mean_dice == 0
    if kind == "objects":
        assert both["mean_average_precision"] is None
        assert (found.mean_average_precision, missed.mean_average_precision) == (0, 0)
        assert (found.objects[0].precision, missed.objects[0].recall) == (0, 0)
        assert np.isnan([found.objects[0].recall, missed.objects[0].precision]).all()
        assert evaluate(one, one).mean_average_precision == 1
    assert np.isnan(evaluate(one, nothing, kind=kind, sparse=True).accuracy)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32"])
def test_dtypes_and_large_numbers(dtype: str) -> None:
    truth = cells(1)
    wanted = evaluate(cells(1, shift=1), truth)
    assert evaluate(cells(1, shift=1).astype(dtype), truth) == wanted
    assert evaluate(cells(1, shift=1), truth * 60_000).objects == wanted.objects  # numbers are names
    assert evaluate((truth > 0).astype(bool), truth).n_segmentation == 1


def test_frames_volumes_and_planes() -> None:
    truth, segmentation = cells(4, shape=(3, 30, 40)), cells(4, shape=(3, 30, 40), shift=1)
    volume = evaluate(segmentation, truth).objects[0]
    assert (volume.found, volume.extra, volume.missed) == by_definition(segmentation, truth, 0.5)[:3]
    wanted = sum(np.array(by_definition(s, t, 0.5)) for s, t in zip(segmentation, truth, strict=True))
    for options in ({"plane_by_plane": True}, {"axes": "TYX"}):
        scores = evaluate(segmentation, truth, **options).objects[0]  # pyright: ignore[reportArgumentType]
        assert (scores.found, scores.extra, scores.missed, scores.iou_sum) == pytest.approx(tuple(wanted))


def test_kappa_by_definition() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, (30, 40))
    people = [
        np.where(rng.random(first.shape) < share, first, rng.integers(0, 4, first.shape)) for share in (1, 0.8, 0.5)
    ]
    found = annotator_agreement(people)
    for (a, b, _), kappa in zip(found.pairs, found.kappas, strict=True):
        assert kappa == pytest.approx(cohen_kappa_score(people[a].ravel(), people[b].ravel()))
    votes = np.stack([sum((p == value).astype(int) for p in people).ravel() for value in range(4)], axis=1)  # (N, K)
    per_pixel = ((votes**2).sum(axis=1) - 3) / (3 * 2)
    chance = ((votes.sum(axis=0) / votes.sum()) ** 2).sum()
    assert found.fleiss == pytest.approx((per_pixel.mean() - chance) / (1 - chance))
    known = np.logical_and.reduce([p > 0 for p in people])
    sparse = annotator_agreement(people, sparse=True)
    assert sparse.kappas[2] == pytest.approx(cohen_kappa_score(people[1][known], people[2][known]))
    assert annotator_agreement([first, first, first]).fleiss == 1
    assert annotator_agreement([first * 0, first * 0]).fleiss == 1
    objects = annotator_agreement([cells(0), cells(0, shift=1)], kind="objects")
    assert objects.kappas[0] == pytest.approx(cohen_kappa_score(cells(0).ravel() > 0, cells(0, shift=1).ravel() > 0))
    assert objects.pairs[0][2].objects == evaluate(cells(0), cells(0, shift=1)).objects


def test_refused() -> None:
    with pytest.raises(
        LabelError, match=r"expected at most 255 classes, found 300 values, which look like objects; give --kind"
    ):
        evaluate(np.arange(300)[None], np.zeros((1, 300), int), kind="classes")
    with pytest.raises(ImageError, match=r"expected images of one size, found"):
        evaluate(np.zeros((3, 4), int), np.zeros((4, 3), int))
    with pytest.raises(ValueError, match=r"expected thresholds above 0 and at most 1, found 50"):
        evaluate(np.zeros((3, 4), int), np.zeros((3, 4), int), thresholds=[50])
    with pytest.raises(ValueError, match=r"expected label images of at least two people, found 1"):
        annotator_agreement([np.zeros((3, 4), int)])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder with truth/NAME_masks.tif and found/NAME_objects.tif of two pictures."""
    for seed, name in enumerate("pq"):
        for folder, suffix, shift in (("truth", "_masks", 0), ("found", "_objects", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{name}{suffix}.tif", cells(seed, shift=shift).astype(np.uint16))
    return tmp_path


def test_command(folders: Path) -> None:
    one = [folders / "found" / "p_objects.tif", folders / "truth" / "p_masks.tif"]
    found = done("evaluate", *one, "--json").json()
    wanted = evaluate(*one)
    assert found["pairs"] == [wanted.describe()] and found["all"] is None
    text = done("evaluate", *one).out
    assert f"{wanted.n_segmentation} objects, {wanted.n_truth} in the truth" in text
    assert f"mean AP {wanted.mean_average_precision:.4f}" in text
    classes = done("evaluate", one[1], one[1], "--kind", "classes").out
    assert "mean Dice 1.0000, mean IoU 1.0000" in classes


def test_command_of_folders(folders: Path) -> None:
    both = ["evaluate", folders / "found", folders / "truth", "--suffix", "_objects", "--truth-suffix", "_masks"]
    found = done(*both, "--json", "--csv", folders / "scores.csv").json()
    first = found["all"]["thresholds"][0]
    assert first["found"] == sum(p["thresholds"][0]["found"] for p in found["pairs"])
    with (folders / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["objects_truth"] for row in rows] == [str(p["objects_truth"]) for p in [*found["pairs"], found["all"]]]
    assert float(rows[2]["average_precision_0.50"]) == first["average_precision"]
    assert "2 pairs" in done(*both).out
    assert len(done(*both, "--dry-run", "--json").json()["pairs"]) == 2
    ended = call("evaluate", folders / "found", folders / "truth")
    assert (
        ended.code == 3
        and "expected a truth for each segmentation, found 4 names in one folder only: p_masks" in ended.err
    )
    ended = call("evaluate", folders / "found", folders / "truth" / "p_masks.tif")
    assert ended.code == 3 and "expected two files or two folders, found one of each" in ended.err


def test_command_of_people(folders: Path) -> None:
    people = [folders / "truth" / "p_masks.tif", folders / "found" / "p_objects.tif", folders / "truth" / "q_masks.tif"]
    found = done("evaluate", *people, "--agreement", "--kind", "objects", "--json", "--csv", folders / "a.csv").json()
    assert len(found["pairs"]) == 3 and found["fleiss_kappa"] == annotator_agreement(people, kind="objects").fleiss
    assert len((folders / "a.csv").read_text().splitlines()) == 4
    assert "Fleiss' kappa" in done("evaluate", *people, "--agreement").out
    assert call("evaluate", *people).code == 2
    assert call("evaluate", *people[:2], "--csv", folders / "a.csv").code == 2
