"""The zarr.json documents of a store: OME-Zarr 0.5 metadata and zarr v3 arrays; independent validators judge them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from forestbridge.stores.base import ImageFacts
from forestbridge.stores.grid import MapGrid, StoreGrid

OME_VERSION = "0.5"

STORE_FORMAT = 1
"""Number of the store's format. Raised when a reader of the old number would misread a store: a key it needs is
renamed, removed or changes its meaning, or shards are cut or encoded otherwise; not for keys that it can ignore."""

ZSTD_LEVEL = 3
"""Of compressed chunks."""

SPACE_UNIT = "micrometer"
TIME_UNIT = "second"

ACTIVE_COLOURS = ("FF0000", "00FF00", "0000FF")
"""Colours of the first three features; the others are not shown until asked for."""

LABEL_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
"""Colours of labels that were given none: Okabe and Ito's, which people with any colour vision can tell apart."""


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON text that is equal for equal documents."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def group_document(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def root_document(grid: StoreGrid, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of the store: an image whose only level is the first map, and our own attributes."""
    first = grid.maps[0]
    return group_document({"ome": _image_attributes(grid.image, first, first.path), "forestbridge": dict(ours)})


def map_document(grid: StoreGrid, m: MapGrid) -> dict[str, Any]:
    """Return the zarr.json of the group of one map."""
    return group_document({"ome": _image_attributes(grid.image, m, "0")})


def map_array_document(grid: StoreGrid, m: MapGrid, *, compress: bool) -> dict[str, Any]:
    """Return the zarr.json of the array of one map: a checksum on every chunk, NaN where nothing was written."""
    number: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    crc: dict[str, Any] = {"name": "crc32c"}
    zstd: dict[str, Any] = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": True}}
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(m.chunks),
            "codecs": [number, zstd if compress else crc],
            "index_codecs": [number, crc],
            "index_location": "end",
        },
    }
    return _array_document(m.shape, m.dtype, m.shards, fill="NaN", codecs=[sharding], axes=m.axes)


def labels_document(names: Sequence[str]) -> dict[str, Any]:
    """Return the zarr.json of the group `labels`."""
    return group_document({"ome": {"version": OME_VERSION, "labels": list(names)}})


def label_document(
    image: ImageFacts,
    name: str,
    axes: str,
    *,
    values: Sequence[int],
    names: Mapping[int, str],
    colours: Mapping[int, str],
) -> dict[str, Any]:
    """Return the zarr.json of the group of one label image.

    Parameters
    ----------
    values
        The labels to describe; those without a name or a colour get their number and a default.
    colours
        Label → "#rrggbb".
    """
    # ome-zarr-models 1.6 fails without colors, and wants the same labels in colors and properties.
    label = {
        "version": OME_VERSION,
        "colors": [{"label-value": v, "rgba": [*bytes.fromhex(_label_colour(v, colours)[1:]), 255]} for v in values],
        "properties": [{"label-value": v, "name": names.get(v, str(v))} for v in values],
        "source": {"image": "../../"},
    }
    attributes = {
        "version": OME_VERSION,
        "multiscales": [_multiscale(image, name, axes, "0", stride=1, offset=0)],
        "image-label": label,
    }
    return group_document({"ome": attributes})


def label_array_document(shape: Sequence[int], dtype: str, axes: str) -> dict[str, Any]:
    """Return the zarr.json of the array of one label image, (1, 1, 512, 512) chunks, zstd with checksum."""
    chunks = [min(n, 512) if a in "yx" else 1 for a, n in zip(axes, shape, strict=True)]
    codecs = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 3, "checksum": True}},
    ]
    return _array_document(shape, dtype, chunks, fill=0, codecs=codecs, axes=axes)


def _array_document(
    shape: Sequence[int],
    dtype: str,
    chunks: Sequence[int],
    *,
    fill: Any,
    codecs: Sequence[Mapping[str, Any]],
    axes: str,
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": list(codecs),
        "attributes": {},
        "dimension_names": list(axes),
        "storage_transformers": [],
    }


def _image_attributes(image: ImageFacts, m: MapGrid, path: str) -> dict[str, Any]:
    channels = [
        {
            "label": channel,
            "active": number < len(ACTIVE_COLOURS),
            "color": ACTIVE_COLOURS[number] if number < len(ACTIVE_COLOURS) else "FFFFFF",
            "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
        }
        for number, channel in enumerate(m.spec.channels)
    ]
    return {
        "version": OME_VERSION,
        "multiscales": [_multiscale(image, m.spec.name, m.axes, path, stride=m.spec.stride, offset=m.spec.offset)],
        "omero": {"channels": channels},
    }


def _multiscale(image: ImageFacts, name: str, axes: str, path: str, *, stride: float, offset: float) -> dict[str, Any]:
    """Return one entry of `multiscales`; the origin is the centre of the image's first pixel, as OME-Zarr wants it."""
    size = {"t": image.frame_interval or 1.0, "c": 1.0, **{a: image.pixel_size.get(a, 1.0) for a in "zyx"}}
    scale = [size[a] * stride if a in "yx" else size[a] for a in axes]
    translation = [size[a] * offset if a in "yx" else 0.0 for a in axes]
    return {
        "name": name,
        "axes": [_axis(image, a) for a in axes],
        "datasets": [
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [float(v) for v in scale]},
                    {"type": "translation", "translation": [float(v) for v in translation]},
                ],
            }
        ],
    }


def _label_colour(value: int, colours: Mapping[int, str]) -> str:
    return colours.get(value, LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)])


def _axis(image: ImageFacts, axis: str) -> dict[str, str]:
    if axis == "c":
        # With the type "channel" napari would make one layer of each feature.
        return {"name": "c", "type": "feature"}
    if axis == "t":
        return {"name": "t", "type": "time"} | ({"unit": TIME_UNIT} if image.frame_interval else {})
    return {"name": axis, "type": "space"} | ({"unit": SPACE_UNIT} if axis in image.pixel_size else {})
