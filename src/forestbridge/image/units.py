"""Lengths and times of file formats, converted to micrometres and seconds."""

import math

_MICROMETRES = {
    **dict.fromkeys(
        ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre", "micrometers"), 1.0
    ),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("\u00c5", "\u212b", "angstrom", "angstroms"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in", "inches"), 25400.0),
}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


def micrometres(value: float, unit: str | None) -> float | None:
    """Return a length in micrometres; None for another unit or a value that is no size."""
    return _converted(value, _MICROMETRES.get(_spelling(unit)))


def seconds(value: float, unit: str | None) -> float | None:
    """Return a time in seconds; None for another unit or a value that is no time."""
    return _converted(value, _SECONDS.get(_spelling(unit)))


def _spelling(unit: str | None) -> str:
    """Return words in lower case; symbols keep theirs, since Mm (megametre) is not mm."""
    unit = (unit or "").strip()
    return unit.lower() if len(unit) > 2 else unit


def _converted(value: float, factor: float | None) -> float | None:
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return float(f"{value * factor:.12g}")  # 0.65 micrometres written as 650 nanometres come back as 0.65
