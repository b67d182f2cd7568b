"""``forestbridge qc``: from images to what is wrong with them, as text, table, picture or JSON."""

import csv as csv_format
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import ceil, isfinite, log1p
from pathlib import Path
from typing import Annotated, Any

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present, end, for_each
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.options import Axes, Channels, Json, Overwrite, Scene
from forestbridge.cli.output import print_json, print_table, print_text, tell
from forestbridge.cli.places import Places, check_places
from forestbridge.cli.qc_page import write_page
from forestbridge.cli.qc_plot import Reports, View, write_plot
from forestbridge.cli.sources import Reading, open_image
from forestbridge.files import new_file
from forestbridge.image.source import shown
from forestbridge.qc import ChannelQuality, Histogram, PlaneQuality, QualityReport, Statistics
from forestbridge.qc.verdict import number

BARS = "▁▂▃▄▅▆▇█"
SPARKLINE = 24
"""Characters of a histogram in the table."""

COLUMNS = [
    "channel",
    "min",
    "1 %",
    "median",
    "99 %",
    "max",
    "mean",
    "std",
    "low %",
    "high %",
    "range %",
    "noise",
    "s/n",
]
COLUMNS += ["focus", "histogram (log)"]
CSV_COLUMNS = ["file", "t", "z", "channel", "name", "dtype", "bits", *Statistics.__dataclass_fields__]
CSV_COLUMNS += ["constant", "same_as", "verdict"]

SEVERITY = ("ok", "look", "unusable")


def qc(
    images: Annotated[list[Path], typer.Argument(help="One image, or several.")],
    csv: Annotated[
        Path | None, typer.Option(help="NAME.csv to write: one row for each file, t, z and channel.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="NAME.png or NAME.svg to write: the histogram of each channel.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="NAME.html to write: one page with pictures, histograms and the verdicts.")
    ] = None,
    plane: Annotated[
        int | None,
        typer.Option(
            "--slice", min=0, help="Histograms and pictures of this plane only, counted from 0; of all by default."
        ),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW,HIGH", help="Grey values that the histograms show: 25000,60000."),
    ] = None,
    channels: Channels = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Look for what spoils images before anything is computed: clipping, noise, empty and repeated planes; ends with 1 if one is unusable.

    Give the images first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge qc a.tif --plot a_histograms.png[/bold]
    """
    check_present(images)
    _check_output(images, csv, ("--csv", ".csv"), overwrite=overwrite)
    _check_output(images, plot, ("--plot", ".png", ".svg"), overwrite=overwrite)
    _check_output(images, html, ("--html", ".html"), overwrite=overwrite)
    view = View(Reading(axes, scene=scene), plane, _range(limits))
    if (plane is not None or limits is not None) and plot is None and html is None:
        raise ValueError("expected --slice and --range with --plot or --html, found neither; give a picture to write")
    look = partial(_look, reading=Reading(axes, scene=scene), json=json)
    reports, failures = for_each([(path, channels) for path in images], look)
    if csv and reports:
        _write_csv(csv, reports, overwrite=overwrite)
    if plot and reports:
        write_plot(plot, reports, view, overwrite=overwrite)
    if html and reports:
        write_page(html, reports, view, overwrite=overwrite)
    if json:
        found = [_document(path, report) for path, report in reports]
        print_json({"images": found, "failed": [failure.to_json_dict() for failure in failures]})
    verdicts = [report.verdict for _, report in reports]
    reasons = [reason.replace("|", ";") for _, report in reports for reason in report.reasons]
    tell(verdict=max(verdicts, key=SEVERITY.index, default=""), reasons="|".join(reasons))
    end(len(images), failures)
    if "unusable" in verdicts:
        raise typer.Exit(1)


def _check_output(images: Sequence[Path], path: Path | None, option: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuse an output that is there, is an input, or is named like another format; `option` has its name, then the suffixes.

    Raises
    ------
    ValueError, OutputExistsError, ResourceError
        As `check_places`; or if the suffix is another one.
    """
    if path is None:
        return
    name, *suffixes = option
    if path.suffix.lower() not in suffixes:
        wanted = " or ".join(suffixes)
        raise ValueError(f"expected a name that ends in {wanted} for {name}, found {shown(path)}; give another name")
    check_places(images, Places([path], None), overwrite=overwrite)


def _range(text: str | None) -> tuple[float, float] | None:
    """Return the two numbers of --range.

    Raises
    ------
    ValueError
        If it is not two numbers, the smaller one first.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(
            f"expected --range LOW,HIGH, two numbers with the lower one first, found {text!r}; write --range 25000,60000"
        )
    return low, high


def _look(path: Path, channels: list[int] | None, *, reading: Reading, json: bool) -> tuple[Path, QualityReport]:
    """Measure an image and print what was found at once: the next one may take a while."""
    image = open_image(path, reading)
    with progress_bar(f"qc {path.name}") as progress:
        report = fb.quality(image, channels=channels, progress=progress)
    if not json:
        _print_report(path, report)
    return path, report


def _print_report(path: Path, report: QualityReport) -> None:
    bits = f", {report.bits} bits used" if report.bits else ""
    n = len(report.channels[0].planes)
    several = f", {n} planes: medians, but min and max of all" if n > 1 else ""
    print_table(f"{shown(path)}: {report.verdict} ({report.dtype}{bits}{several})", COLUMNS, list(_rows(report)))
    print_text(
        "\n".join([*(f"  - {r}" for r in report.reasons), *(f"  note: {h}" for h in report.hints)]) or "  nothing found"
    )


def _rows(report: QualityReport) -> Iterator[list[str]]:
    """Yield the table's row of each channel."""
    for c in report.channels:
        s = c.statistics
        values = (s.min, s.p1, s.p50, s.p99, s.max, s.mean, s.std)
        rest = (s.clipped_low_percent, s.clipped_high_percent, s.range_used_percent, s.noise, s.snr, s.focus)
        name = f"{c.channel} {c.name}".rstrip()
        yield [name, *map(_short, (*values, *rest)), sparkline(c.histogram)]


def _short(value: float) -> str:
    """Return a number as a cell: without decimals from 1000 on, with three digits below."""
    if not isfinite(value):
        return "-"
    return number(round(value) * 1.0) if 1000 <= abs(value) < 1e9 or value.is_integer() else f"{value:.3g}"


def sparkline(histogram: Histogram | None, *, width: int = SPARKLINE) -> str:
    """Return a histogram as one line of bars, whose heights are logarithms so that rare values show; empty bins are blank."""
    if histogram is None:
        return ""
    counts = _rebinned(histogram, width)
    highest = log1p(max(counts))
    return "".join(BARS[min(7, int(8 * log1p(n) / highest))] if n > 0 else " " for n in counts)


def _rebinned(histogram: Histogram, width: int) -> list[float]:
    """Return the counts in at most `width` groups of neighbouring bins."""
    step = ceil(len(histogram.counts) / width)
    return [sum(histogram.counts[k : k + step]) for k in range(0, len(histogram.counts), step)]


def _write_csv(path: Path, reports: Reports, *, overwrite: bool) -> None:
    """Write one row for each plane and channel of each image; what cannot be said is left empty."""
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv_format.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for image, report in reports:
            for channel in report.channels:
                writer.writerows(_csv_row(image, report, channel, plane) for plane in channel.planes)


def _csv_row(image: Path, report: QualityReport, channel: ChannelQuality, plane: PlaneQuality) -> dict[str, Any]:
    place = {"file": shown(image), "t": plane.t, "z": plane.z, "channel": plane.channel, "name": channel.name}
    same = " ".join(f"{axis}={n}" for axis, n in zip("tzc", plane.same_as or ()))
    about = {"dtype": report.dtype, "bits": report.bits, "verdict": report.verdict, "same_as": same}
    return {**place, **about, **_finite(asdict(plane.statistics)), "constant": int(plane.constant)}


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Return the numbers with None for what cannot be said, in JSON as in a table."""
    return {name: value if isfinite(value) else None for name, value in numbers.items()}


def _document(path: Path, report: QualityReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    facts = {name: getattr(report, name) for name in ("dtype", "possible", "bits", "verdict", "reasons", "hints")}
    return {"input": str(path), **facts, "channels": [_channel_document(c) for c in report.channels]}


def _channel_document(channel: ChannelQuality) -> dict[str, Any]:
    planes = [
        {"t": p.t, "z": p.z, "constant": p.constant, "same_as": p.same_as, **_finite(asdict(p.statistics))}
        for p in channel.planes
    ]
    histogram = channel.histogram._asdict() if channel.histogram else None
    about = {"channel": channel.channel, "name": channel.name, **_finite(asdict(channel.statistics))}
    return {**about, "histogram": histogram, "planes": planes}
