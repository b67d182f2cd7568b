"""A label image as it is into another dtype or format, plane by plane."""

import os
from pathlib import Path

import numpy as np

from forestbridge.assemble import Classes
from forestbridge.files import check_output
from forestbridge.image import create_result
from forestbridge.image.result_facts import ResultFacts, read_result_facts
from forestbridge.labels import DEFAULT_COLOURS
from forestbridge.objects.instances import DTYPES, LabelDtype
from forestbridge.objects.labelled import Source, open_labelled, read_plane
from forestbridge.objects.output import Progress, label_info
from forestbridge.objects.segmentation import Unit, in_place, place_of


def convert_labels(
    labels: Source,
    out: str | Path,
    *,
    dtype: LabelDtype | None = None,
    axes: str | None = None,
    scene: int | None = None,
    overwrite: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a label image again; no value changes, and the names and colours of classes, pixel size and frame interval are kept.

    Parameters
    ----------
    labels
        Classes or objects, see `forestbridge.objects.labelled.open_labelled`.
    out, overwrite, format
        File to write, as for `forestbridge.predict`.
    dtype
        "uint8", "uint16" or "uint32"; by default the smallest that holds the largest value: 255, 65,535 or 4,294,967,295.
    axes, scene
        For files that do not say, or hold several images.
    progress
        Told after each plane.

    Returns
    -------
    path
        The file.

    Raises
    ------
    ImageError
        If the source is no label image.
    OutputExistsError, ResourceError
        If the output exists or cannot be written.
    ValueError
        If the dtype is unknown, or does not hold the largest value.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)}, found {dtype!r}")
    check_output(out, overwrite=overwrite)
    image = open_labelled(labels, axes=axes, scene=scene)
    is_file = isinstance(labels, str | os.PathLike)
    facts = read_result_facts(labels) if is_file and Path(labels).exists() else ResultFacts({}, {}, {})
    planes = list(image.planes())
    largest = max(int(read_plane(image, t, z).max(initial=0)) for t, z in planes)
    chosen = np.dtype(dtype or next(d for d in DTYPES if largest <= np.iinfo(d).max))
    if largest > np.iinfo(chosen).max:
        raise ValueError(
            f"{image.source}: expected labels up to {np.iinfo(chosen).max} for {chosen}, found {largest}; "
            f"choose {next(d for d in DTYPES if largest <= np.iinfo(d).max)} (--dtype)"
        )
    names = facts.names if facts.names and largest <= max(facts.names) else {}
    colours = (facts.colours.get(v, DEFAULT_COLOURS[(v - 1) % len(DEFAULT_COLOURS)]) for v in names)
    info = label_info(
        image,
        dtype=chosen,
        classes=Classes(tuple(names), tuple(names.values()), tuple(colours)) if names else None,
        n_objects=None if names else largest,
        provenance=facts.provenance,
    )
    with create_result(out, info, overwrite=overwrite, format=format) as writer:
        for n, (t, z) in enumerate(planes, 1):
            unit = Unit(t, z if "Z" in image.axes else None)
            pixels = read_plane(image, t, z).astype(chosen)
            writer.write(place_of(unit, info.axes, info.shape), in_place(pixels, unit, info.axes))
            if progress:
                progress(n, len(planes))
    return Path(out)
