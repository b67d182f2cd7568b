"""``forestbridge evaluate``: from a segmentation and the truth to how well they fit, as text, table or JSON."""

import csv as csv_format
from collections.abc import Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from forestbridge.cli.batch import Failure, check_present, end, for_each
from forestbridge.cli.measure import PlaneByPlane
from forestbridge.cli.options import DryRun, Json, Overwrite
from forestbridge.cli.output import print_json, print_path, print_table, tell
from forestbridge.cli.places import Places, check_places, files_of
from forestbridge.errors import ImageError
from forestbridge.files import new_file
from forestbridge.image import base_name, is_image_folder
from forestbridge.image.source import shown
from forestbridge.objects.evaluate import AnnotatorAgreement, Evaluation, Kind, annotator_agreement, pooled
from forestbridge.objects.evaluate import evaluate as compare
from forestbridge.objects.scores import THRESHOLDS

LISTED = 10
"""Names without a partner that a message lists."""


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SEGMENTATION TRUTH",
            help="Two label images, or two folders of them; with --agreement two or more of one picture.",
        ),
    ],
    kind: Annotated[
        Kind | None,
        typer.Option(help="What the numbers are: objects (default), or classes (default with --agreement)."),
    ] = None,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="The truth labels a part of the picture only: 0 is not labelled there.")
    ] = False,
    thresholds: Annotated[
        list[float] | None,
        typer.Option(metavar="N N ...", help="IoU from which an object counts as found; 0.5 to 0.95 in steps of 0.05."),
    ] = None,
    people: Annotated[
        bool, typer.Option("--agreement", help="Compare label images of one picture by several people.")
    ] = False,
    suffix: Annotated[str, typer.Option(help="Of folders: what follows the common name, such as _objects.")] = "",
    truth_suffix: Annotated[str, typer.Option(help="The same of the truth, such as _masks.")] = "",
    plane_by_plane: PlaneByPlane = False,
    axes: Annotated[
        str | None,
        typer.Option("--axes", metavar="LETTERS", help="Axes of the label images if their files do not say."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="NAME.csv to write: one row for each pair.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Say how well label images fit: Dice and IoU of classes; average precision, F1 and panoptic quality of objects.

    Example: [bold]forestbridge evaluate a_objects.tif a_truth.tif[/bold]
    """
    check_present(paths)
    if csv is not None:
        if csv.suffix.lower() != ".csv":
            raise ValueError(f"expected a name that ends in .csv for --csv, found {shown(csv)}; give another name")
        check_places(paths, Places([csv], None), overwrite=overwrite)
    options = {"sparse": sparse, "plane_by_plane": plane_by_plane, "axes": axes}
    if people:
        if thresholds or suffix or truth_suffix:
            raise ValueError("expected --agreement without --thresholds and suffixes, found both; leave one out")
        _agree(paths, kind or "classes", csv, options, overwrite=overwrite, dry_run=dry_run, json=json)
        return
    pairs = pairs_of(paths, suffix=suffix, truth_suffix=truth_suffix)
    if dry_run:
        _print_plan(pairs, json=json)
        return
    options |= {"kind": kind or "objects", "thresholds": thresholds or THRESHOLDS}
    work = partial(_compare, several=len(pairs) > 1, json=json, options=options)
    done, failures = for_each(pairs, work)
    _report(done, failures, csv, overwrite=overwrite, json=json)
    end(len(pairs), failures)


def pairs_of(paths: Sequence[Path], *, suffix: str, truth_suffix: str) -> list[tuple[Path, Path]]:
    """Return segmentations with their truth; of two folders those of the same name, without the suffixes.

    Raises
    ------
    ValueError
        If there are not two paths, or suffixes are given without folders.
    ImageError
        If only one is a folder, a name occurs twice, or a file has no partner.
    """
    if len(paths) != 2:
        raise ValueError(
            f"expected a segmentation and the truth, found {len(paths)} paths; give two files or two folders, or --agreement"
        )
    folders = [path.is_dir() and not is_image_folder(path) for path in paths]
    if not any(folders):
        if suffix or truth_suffix:
            raise ValueError("expected --suffix and --truth-suffix with two folders, found files; leave them out")
        return [(paths[0], paths[1])]
    if not all(folders):
        raise ImageError(
            f"expected two files or two folders, found one of each: {shown(paths[0])}, {shown(paths[1])}; give both alike"
        )
    found = [_by_name(path, end) for path, end in zip(paths, (suffix, truth_suffix), strict=True)]
    if lonely := sorted(found[0].keys() ^ found[1].keys()):
        names = ", ".join(map(shown, lonely[:LISTED]))
        raise ImageError(
            f"expected a truth for each segmentation, found {len(lonely)} names in one folder only: {names}; remove them, or say "
            "what follows the common name with --suffix and --truth-suffix"
        )
    return [(path, found[1][name]) for name, path in found[0].items()]


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in files_of([folder], f"*{suffix}.*" if suffix else None):
        name = base_name(path).removesuffix(suffix)
        if name in names:
            raise ImageError(
                f"expected different names in {shown(folder)}, found {shown(path.name)} and {names[name].name}; remove one"
            )
        names[name] = path
    return names


def _compare(segmentation: Path, truth: Path, *, several: bool, json: bool, options: dict[str, Any]) -> Evaluation:
    found = compare(segmentation, truth, **options)
    if not json and not several:
        _print(found)
    return found


def _report(
    done: Sequence[Evaluation], failures: Sequence[Failure], csv: Path | None, *, overwrite: bool, json: bool
) -> None:
    documents = [e.describe() for e in done]
    total = pooled(done) if len(done) > 1 else None
    if total is not None:
        documents.append(total.describe())
        if not json:
            _print_list(done)
            _print(total)
    if csv is not None and done:
        _write_csv(csv, documents, overwrite=overwrite)
    if json:
        each = documents[: len(done)]
        all_ = total.describe() if total else None
        print_json({"pairs": each, "all": all_, "failed": [f.to_json_dict() for f in failures]})
    best = total or (done[0] if done else None)
    if best is not None:
        score = best.mean_average_precision if best.kind == "objects" else best.mean_dice
        tell(score=f"{score:.4f}")
    if csv is not None and done:
        print_path(csv, json=json)


def _agree(
    paths: Sequence[Path],
    kind: Kind,
    csv: Path | None,
    options: dict[str, Any],
    *,
    overwrite: bool,
    dry_run: bool,
    json: bool,
) -> None:
    if dry_run:
        _print_plan([(path, paths[0]) for path in paths[1:]], json=json)
        return
    found = annotator_agreement(paths, kind=kind, **options)
    document = found.describe()
    if csv is not None:
        _write_csv(csv, document["pairs"], overwrite=overwrite)
    if json:
        print_json(document)
    else:
        _print_agreement(found)
    tell(fleiss_kappa=f"{found.fleiss:.4f}")
    if csv is not None:
        print_path(csv, json=json)


def _print_plan(pairs: Sequence[tuple[Path, Path]], *, json: bool) -> None:
    if json:
        print_json({"dry_run": True, "pairs": [[str(a), str(b)] for a, b in pairs]})
    else:
        print("\n".join(f"would compare {shown(a)} with {shown(b)}" for a, b in pairs))


def _print(found: Evaluation) -> None:
    if found.kind == "classes":
        rows = [
            [str(c.value), str(c.truth), str(c.segmentation), *map(_short, (c.dice, c.iou, c.precision, c.recall))]
            for c in found.classes
        ]
        columns = ["class", "pixels in truth", "found", "Dice", "IoU", "precision", "recall"]
        print_table(f"{found.source}: {_short(found.accuracy)} of the pixels are right", columns, rows)
        print(f"mean Dice {_short(found.mean_dice)}, mean IoU {_short(found.mean_iou)}")
        return
    rows = []
    for s in found.objects:
        scores = (s.average_precision, s.precision, s.recall, s.f1, s.mean_iou, s.panoptic_quality)
        rows.append([f"{s.threshold:.2f}", str(s.found), str(s.extra), str(s.missed), *map(_short, scores)])
    columns = ["IoU from", "found", "extra", "missed", "AP", "precision", "recall", "F1", "mean IoU", "PQ"]
    print_table(f"{found.source}: {found.n_segmentation} objects, {found.n_truth} in the truth", columns, rows)
    print(
        f"mean AP {_short(found.mean_average_precision)}; object or not: Dice {_short(found.mean_dice)}, IoU {_short(found.mean_iou)}"
    )


def _print_list(done: Sequence[Evaluation]) -> None:
    score = "mean AP" if done[0].kind == "objects" else "mean Dice"
    rows = [
        [e.source, _short(e.mean_average_precision if e.kind == "objects" else e.mean_dice), _short(e.mean_iou)]
        for e in done
    ]
    print_table(f"{len(done)} pairs", ["segmentation", score, "mean IoU"], rows)


def _print_agreement(found: AnnotatorAgreement) -> None:
    rows = []
    for (a, b, pair), kappa in zip(found.pairs, found.kappas, strict=True):
        numbers = [pair.accuracy, pair.mean_dice, pair.mean_iou, kappa]
        numbers += [pair.objects[0].f1, pair.mean_average_precision] if pair.objects else []
        rows.append([found.sources[a], found.sources[b], *map(_short, numbers)])
    columns = ["one", "other", "same pixels", "mean Dice", "mean IoU", "Cohen's kappa"]
    columns += ["F1 at 0.5", "mean AP"] if found.pairs[0][2].objects else []
    print_table(f"{len(found.sources)} label images of one picture", columns, rows)
    print(f"Fleiss' kappa {_short(found.fleiss)}")


def _short(value: float) -> str:
    return "-" if isnan(value) else f"{value:.4f}"


def _write_csv(path: Path, documents: Sequence[dict[str, Any]], *, overwrite: bool) -> None:
    """Write one row for each pair; columns of classes and thresholds are named by them."""
    rows = [_flat(document) for document in documents]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv_format.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in document.items() if not isinstance(value, list)}
    for scores in document["classes"]:
        row |= {f"{name}_class_{scores['value']}": value for name, value in scores.items() if name != "value"}
    for scores in document.get("thresholds", ()):
        row |= {f"{name}_{scores['iou']:.2f}": value for name, value in scores.items() if name != "iou"}
    return row
