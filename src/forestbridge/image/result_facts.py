"""What a result says about itself: classes and provenance, read back from the places where the writers of results put them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from forestbridge.image.hdf5 import split_internal
from forestbridge.image.nrrd import MAGIC, read_header
from forestbridge.image.ome_zarr import NODE_FILES
from forestbridge.image.source import PathLike, open_source

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CLASS = re.compile(r"class (\d+)")
_NAME = re.compile(r"(.*) (#[0-9a-fA-F]{6})", re.DOTALL)


class ResultFacts(NamedTuple):
    """Names and colours by label value, and the provenance; empty where a file has none.

    Attributes
    ----------
    names, colours
        By label value, ascending; colours as "#rrggbb", as far as the file has them.
    provenance
        The other texts, as in `ResultInfo`.
    """

    names: Mapping[int, str]
    colours: Mapping[int, str]
    provenance: Mapping[str, str]


def read_result_facts(path: PathLike) -> ResultFacts:
    """Return what a file says about its classes; nothing for formats without a place for it, and for files of others.

    The file is one that `read_image` opens: what is damaged is told there.
    """
    file, inside = split_internal(path)
    place = Path(file)
    texts: Mapping[str, Any] = {}
    labels: Mapping[str, Any] = {}
    if place.is_dir():
        texts, labels = _of_zarr(place)
    else:
        with place.open("rb") as opened:
            start = opened.read(8)
        if start.startswith(_TIFF):
            texts = _of_tiff(place)
        elif start.startswith(b"\x89HDF"):
            texts = _of_hdf5(place, inside)
        elif start.startswith(MAGIC):
            _, texts, _ = read_header(open_source(place))
    found = _facts_of({str(k): str(v) for k, v in texts.items()})
    return found if found.names or not labels else _facts_of_image_label(labels)


def _facts_of(texts: Mapping[str, str]) -> ResultFacts:
    names, colours, provenance = {}, {}, {}
    for key, text in texts.items():
        value, parts = _CLASS.fullmatch(key), _NAME.fullmatch(text)
        if value and parts:
            names[int(value[1])], colours[int(value[1])] = parts[1], parts[2].lower()
        else:
            provenance[key] = text
    return ResultFacts(dict(sorted(names.items())), colours, provenance)


def _facts_of_image_label(labels: Mapping[str, Any]) -> ResultFacts:
    """Return the names and colours of an OME-Zarr label of another program."""
    names, colours = {}, {}
    try:
        for entry in labels.get("properties") or []:
            if isinstance(name := entry.get("name", entry.get("class")), str):
                names[int(entry["label-value"])] = name
        for entry in labels.get("colors") or []:
            if rgba := entry.get("rgba"):
                colours[int(entry["label-value"])] = "#" + "".join(f"{int(c) & 255:02x}" for c in rgba[:3])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ResultFacts({}, {}, {})
    return ResultFacts(dict(sorted(names.items())), colours, {})


def _of_tiff(path: Path) -> Mapping[str, str]:
    try:
        with tifffile.TiffFile(path) as tif:
            info = str((tif.imagej_metadata or {}).get("Info", ""))
            xml = tif.ome_metadata
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, TypeError):
        return {}
    if xml:
        root = ElementTree.fromstring(xml)
        annotations = [
            e for e in root.iter() if e.tag.endswith("MapAnnotation") and e.get("Namespace") == "forestbridge"
        ]
        entries = [m for a in annotations for m in a.iter() if m.tag.endswith("}M") or m.tag == "M"]
        return {m.get("K", ""): m.text or "" for m in entries}
    pairs = (line.partition(": ") for line in info.splitlines())
    return {key: text for key, colon, text in pairs if colon}


def _of_hdf5(path: Path, inside: str | None) -> Mapping[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        datasets = [file[inside]] if inside else [d for d in file.values() if isinstance(d, h5py.Dataset)]
        text = datasets[0].attrs.get("forestbridge") if len(datasets) == 1 else None
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_zarr(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the texts of a result, and what an OME-Zarr label says about its values."""
    attributes: dict[str, Any] = {}
    for name in NODE_FILES:
        try:
            found = json.loads((path / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            attributes |= found.get("attributes", {}) if name == "zarr.json" else found
    texts, ome = attributes.get("forestbridge", {}), attributes.get("ome", attributes)
    labels = ome.get("image-label", {}) if isinstance(ome, dict) else {}
    return (texts if isinstance(texts, dict) else {}), (labels if isinstance(labels, dict) else {})
