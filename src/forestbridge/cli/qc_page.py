"""``forestbridge qc --html``: reports in, one page out that stands alone: verdicts, reasons, pictures, histograms, numbers."""

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from forestbridge.cli.qc_plot import PANELS, Reports, View, drawn, panels_of, save
from forestbridge.cli.sources import open_image
from forestbridge.files import new_file
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.qc import ChannelQuality, QualityReport, Statistics
from forestbridge.qc.verdict import number

WORDS = {
    "ok": "nothing was found that spoils it",
    "look": "usable, but look at the points below first",
    "unusable": "record it again: what is missing cannot be computed back",
}
"""What a verdict means for whoever took the image."""

WIDTH = 320
"""Width of a picture in pixels, at most."""

DARK, BRIGHT = (60, 120, 255), (255, 60, 60)
"""Colours of pixels at the lowest and highest value that were found to be clipped."""

ROWS = {
    "min": "smallest value",
    "p1": "1 %",
    "p50": "median",
    "p99": "99 %",
    "max": "largest value",
    "mean": "mean",
    "std": "standard deviation",
    "clipped_low_percent": "% clipped at the dark end",
    "clipped_high_percent": "% clipped at the bright end",
    "range_used_percent": "% of the possible range used",
    "noise": "noise (standard deviation)",
    "snr": "signal to noise",
    "focus": "focus (variance of the gradient)",
}

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { border-top: 1px solid #ccc; padding-top: 1em }
td, th { padding: .1em .8em; text-align: right }
th:first-child, td:first-child { text-align: left }
.ok { color: #007a5e } .look { color: #b35c00 } .unusable { color: #c00000 }
figure { display: inline-block; margin: .5em } figcaption { font-size: 85% }
"""


def write_page(path: Path, reports: Reports, view: View, *, overwrite: bool) -> None:
    """Write the page; image by image, with one plane in memory at a time."""
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Quality of {len(reports)} images</title>'
        )
        file.write(f"<style>{STYLE}</style></head><body>\n<h1>Quality of {len(reports)} images</h1>\n")
        for image, report in reports:
            file.writelines(f"{line}\n" for line in _section(image, report, view))
        file.write("</body></html>\n")


def _section(path: Path, report: QualityReport, view: View) -> Iterator[str]:
    yield f'<h2>{escape(shown(path))}: <span class="{report.verdict}">{report.verdict}</span></h2>'
    possible = "" if report.possible is None else f", possible values {report.possible[0]} to {report.possible[1]}"
    bits = "" if report.bits is None else f", {report.bits} bits used"
    n = len(report.channels[0].planes)
    yield f"<p>{WORDS[report.verdict]}. {report.dtype}{possible}{bits}; {n} plane{'s' if n > 1 else ''}.</p>"
    notes = [*report.reasons, *(f"note: {hint}" for hint in report.hints)]
    yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
    image = open_image(path, view.reading)
    for channel in report.channels[:PANELS]:
        yield _figure(image, channel, report, view)
    figure = drawn(list(panels_of(path, report, view))[:PANELS], view)
    data = io.BytesIO()
    save(figure, data, "png")
    yield f"<p>{_img(data.getvalue(), 'histograms')}</p>"
    yield _table(report)


def _figure(image: Image, channel: ChannelQuality, report: QualityReport, view: View) -> str:
    """Return the picture of a channel: the plane asked for, or the sharpest one."""
    planes = [p for p in channel.planes if view.plane is None or (p.z == view.plane and p.t == 0)]
    best = max(planes, key=lambda p: p.statistics.focus if np.isfinite(p.statistics.focus) else -1.0)
    pixels = image.plane(best.t, best.z)[channel.channel]
    data = io.BytesIO()
    Pillow.fromarray(picture(pixels, best.statistics)).save(data, format="PNG")
    where = f"t={best.t} z={best.z}" if len(channel.planes) > 1 else ""
    sharpest = ", the sharpest plane" if where and view.plane is None else ""
    caption = f"channel {channel.channel} {channel.name} {where}{sharpest}".strip()
    clipped = best.statistics.clipped_high_percent or best.statistics.clipped_low_percent
    colours = "; clipped pixels are red (bright) and blue (dark)" if clipped else ""
    return f"<figure>{_img(data.getvalue(), caption)}<figcaption>{escape(caption + colours)}</figcaption></figure>"


def picture(pixels: NDArray, statistics: Statistics) -> NDArray[np.uint8]:
    """Return (y, x, 3) of a (Y, X) plane, at most `WIDTH` wide, from 1 % to 99 %; clipped pixels in colour."""
    step = -(-pixels.shape[1] // WIDTH)
    small = pixels[::step, ::step].astype(np.float64)
    low, high = statistics.p1, statistics.p99
    with np.errstate(invalid="ignore"):
        grey = np.clip((np.nan_to_num(small, nan=low) - low) / ((high - low) or 1), 0, 1) * 255
    result = np.repeat(np.nan_to_num(grey)[:, :, None], 3, axis=2).astype(np.uint8)
    if statistics.clipped_low_percent:
        result[small == statistics.min] = DARK
    if statistics.clipped_high_percent:
        result[small == statistics.max] = BRIGHT
    return result


def _img(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(report: QualityReport) -> str:
    names = "".join(f"<th>{escape(f'channel {c.channel} {c.name}'.strip())}</th>" for c in report.channels)
    rows = "".join(
        f"<tr><td>{text}</td>"
        + "".join(f"<td>{_cell(getattr(c.statistics, key))}</td>" for c in report.channels)
        + "</tr>"
        for key, text in ROWS.items()
    )
    return f"<table><tr><th></th>{names}</tr>{rows}</table>"


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return number(value) if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"
