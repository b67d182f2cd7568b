"""Histograms of ``forestbridge qc`` as pictures: reports in, panels of matplotlib out."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forestbridge.cli.messages import say
from forestbridge.cli.sources import Reading, open_image
from forestbridge.errors import ImageError
from forestbridge.files import new_file
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.qc import ChannelQuality, Histogram, QualityReport
from forestbridge.qc.measure import BINS

PANELS = 100
"""Histograms that one picture holds at most: larger ones take minutes, and no viewer shows them."""

IN_A_ROW = 4

Reports = Sequence[tuple[Path, QualityReport]]


class View(NamedTuple):
    """What of the images is drawn: the options --axes and --scene, --slice, --range."""

    reading: Reading
    plane: int | None
    limits: tuple[float, float] | None


class Panel(NamedTuple):
    """One histogram: whose it is, and the grey values that are marked."""

    title: str
    histogram: Histogram | None
    ends: tuple[float, float]
    percentiles: tuple[float, float]


def write_plot(path: Path, reports: Reports, view: View, *, overwrite: bool) -> None:
    """Draw the histogram of each channel, with lines at its contrast limits: solid at min and max, dashed at 1 % and 99 %."""
    panels = [panel for image, report in reports for panel in panels_of(image, report, view)]
    if len(panels) > PANELS:
        say(
            f"{shown(path)} holds the first {PANELS} of {len(panels)} histograms; draw the others with fewer images at a time"
        )
    figure = drawn(panels[:PANELS], view)
    with new_file(path, overwrite=overwrite) as temporary:
        save(figure, temporary, path.suffix.lower()[1:])


def save(figure: Any, file: Any, format: str) -> None:
    """Save a figure as "png" or "svg"; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "forestbridge"}):
        figure.savefig(file, dpi=80, format=format, metadata={"Date": None} if format == "svg" else None)


def panels_of(path: Path, report: QualityReport, view: View) -> Iterator[Panel]:
    """Yield the histogram of each channel: of all planes, or of one.

    Raises
    ------
    ImageError
        If there is no such plane.
    """
    image = open_image(path, view.reading) if view.plane is not None or view.limits else None
    for channel in report.channels:
        title = f"{path.name}, channel {channel.channel} {channel.name}".rstrip()
        s = channel.statistics
        ends, percentiles = (s.min, s.max), (s.p1, s.p99)
        if view.plane is not None:
            own = [p.statistics for p in channel.planes if p.z == view.plane and p.t == 0]
            if not own:
                n = max(p.z for p in channel.planes) + 1
                raise ImageError(f"{shown(path)}: expected --slice below {n}, found {view.plane}; planes count from 0")
            title += f", z={view.plane}"
            ends, percentiles = (own[0].min, own[0].max), (own[0].p1, own[0].p99)
        histogram = channel.histogram if image is None else counted(image, channel, view)
        yield Panel(shown(title), histogram, ends, percentiles)


def counted(image: Image, channel: ChannelQuality, view: View) -> Histogram | None:
    """Return the histogram of one plane or all, of the grey values asked for, in bins of its own."""
    planes = [(p.t, p.z) for p in channel.planes if view.plane is None or (p.z == view.plane and p.t == 0)]
    s = channel.statistics
    if channel.histogram is None:
        return None
    integer = image.dtype.kind != "f"
    low, high = view.limits or (s.min, s.max + 1 if integer else max(s.max, np.nextafter(s.min, np.inf)))
    bins = BINS
    if integer:
        low, high = float(np.floor(low)), float(np.ceil(high))
        width = max(1, ceil((high - low) / BINS))  # whole grey values in a bin
        bins = ceil((high - low) / width)
        low, high = low - 0.5, low - 0.5 + bins * width
    counts = np.zeros(bins, np.int64)
    for t, z in planes:
        pixels = image.plane(t, z)[channel.channel]
        counts += np.histogram(pixels[np.isfinite(pixels)], bins, (low, high))[0]
    return Histogram(low, high, tuple(counts.tolist()))


def drawn(panels: Sequence[Panel], view: View) -> Any:
    """Return a figure with a panel for each histogram."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(IN_A_ROW, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for n, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(rows, columns, n), panel, view)
        figure.axes[-1].set_title(panel.title, fontsize=9, parse_math=False)
    return figure


def _draw(axes: Any, panel: Panel, view: View) -> None:
    """Draw bright bars on dark ground: the logarithmic scale shows rare values, such as clipped ones."""
    axes.set_facecolor("#222222")
    axes.set_xlabel("grey value")
    axes.set_ylabel("pixels")
    if panel.histogram is None:
        axes.text(0.5, 0.5, "no finite pixel", color="white", ha="center", transform=axes.transAxes)
        return
    axes.stairs(panel.histogram.counts, panel.histogram.edges(), fill=True, color="#3b7dd8")
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(bottom=0.7)  # of several planes, bins hold fractions of pixels
    if view.limits:
        axes.set_xlim(*view.limits)
    for values, style in ((panel.ends, "-"), (panel.percentiles, "--")):
        for value in values:
            axes.axvline(value, color="white", linestyle=style, linewidth=1)
