"""`read_scribbles`: label images and annotation files in, one `Scribbles` out."""

import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from forestbridge.errors import ImageError, LabelError
from forestbridge.image.ome_zarr import NODE_FILES
from forestbridge.image.source import shown
from forestbridge.labels.check import Size, image_grid, match_to_image
from forestbridge.labels.geojson import read_geojson
from forestbridge.labels.imagej_roi import read_rois
from forestbridge.labels.merge import Merge, combine, merge_scribbles
from forestbridge.labels.names import Names, class_colours, class_names, replaced_colours
from forestbridge.labels.rasters import as_label_error, open_raster
from forestbridge.labels.scribbles import Scribbles, as_scribbles
from forestbridge.labels.shapes import Shape, shape_pixels

RASTER_SUFFIXES = (".tif", ".tiff", ".png", ".npy", ".zarr")
SHAPE_SUFFIXES = (".geojson", ".json", ".roi", ".zip")


def read_scribbles(
    paths: str | Path | Sequence[str | Path],
    *,
    names: Names | None = None,
    colours: Names | None = None,
    axes: str | None = None,
    ignore: int | str | Collection[int | str] | None = None,
    plane: int | tuple[int, int] | None = None,
    shape: Size | None = None,
    merge: Merge = "refuse",
    stroke_width: float | None = None,
) -> Scribbles:
    """Read the scribbles of one image from one or several files.

    Label images: TIFF (ImageJ, OME, plain pages), PNG (grey; with a palette the index is the label), NPY, OME-Zarr
    labels; 0 is unlabelled, k is class k. Annotations: GeoJSON (QuPath), ImageJ ROIs (.roi, .zip). Several files are
    laid over each other in the order given: a later one fills what the earlier ones leave unlabelled.

    Parameters
    ----------
    paths
        One file or several. An OME-Zarr label is a folder: ``a.ome.zarr/labels/NAME``.
    names
        Label images: one name for each painted value in ascending order, or a mapping from values; otherwise those in
        the file, or "class k". Annotations: the first name is class 1 and so on, whether it is painted here or not;
        without names, classes are numbered in alphabetical order. ROI groups are label values.
    colours
        "#rrggbb", one for each painted value in ascending order, or a mapping from values; otherwise those in the
        files.
    axes
        Axes of the label images where their files do not tell or are wrong: "TYX", "XY", …
    ignore
        Label values or class names that count as unlabelled.
    plane
        Where labels without z or frames lie in a stack: an index, or (t, z), counted from 0.
    shape
        The image, or its size; annotations need it. With it, the scribbles are matched: see `match_to_image`.
    merge
        Where classes overlap: "refuse", or take the "first" or the "last".
    stroke_width
        Width of lines in pixels; by default 1, for ROIs what was saved with them.

    Raises
    ------
    LabelError
        If a file cannot be read or does not hold what it should, or files or overlapping classes contradict each other.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise ValueError("expected at least one label file, found none")
    values, texts = _ignored(ignore)
    rasters, annotations = [f for f in files if _kind(f) == "raster"], [f for f in files if _kind(f) == "shapes"]
    parts: dict[Path, Scribbles] = {}
    if annotations:
        if shape is None:
            raise LabelError(
                f"{annotations[0].name}: expected the image that the annotations belong to, found none given; give the "
                "image, or its size, with shape= (--image)"
            )
        parts |= _read_annotations(annotations, names, texts, values, plane, shape, merge, stroke_width)
        names = _as_mapping(names, parts.values())
    for file in rasters:
        # names of a sequence count the painted values of all files, so they wait until these are merged
        own = _read_raster(file, axes, values, plane)
        parts[file] = own if shape is None else match_to_image(own, shape)
    found = [parts[file] for file in files]
    if names is not None:
        found = [replace(s, names={v: f"class {v}" for v in s.classes}) for s in found]
    if names is None and len({_unnamed(s) for s in found if s.classes}) > 1:
        raise LabelError(
            f"{found[0].source}: expected names for the label values too that are merged with named classes, found "
            "none; give names= (--names)"
        )
    merged = merge_scribbles(found, merge=merge)
    if names is not None:
        merged = replace(merged, names=class_names(merged.classes, names, merged.source))
    return replace(merged, colours=replaced_colours(merged.colours, colours, merged.classes, merged.source))


def _kind(path: Path) -> str:
    """Return "raster" or "shapes", after a look at what is there."""
    name, empty = shown(path), False
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
        if not folder:
            with path.open("rb") as file:
                empty = not file.read(1)
    except FileNotFoundError as error:
        raise LabelError(f"{name}: expected a label file, found nothing there; check the path") from error
    except (OSError, ValueError) as error:  # closed to us, a name too long; ValueError: a zero byte inside
        raise LabelError(
            f"{name}: expected a label file that can be read, found none ({error}); check the path"
        ) from error
    suffix = path.suffix.lower()
    if folder and not any((path / node).exists() for node in NODE_FILES):
        raise LabelError(
            f"{name}: expected a label file or an OME-Zarr folder, found another folder; give the file itself"
        )
    if not folder and suffix == ".zarr":
        raise LabelError(f"{name}: expected an OME-Zarr folder, found a file; unpack it first")
    if not folder and suffix not in RASTER_SUFFIXES[:-1] + SHAPE_SUFFIXES:
        raise LabelError(
            f"{name}: expected labels as {', '.join(RASTER_SUFFIXES + SHAPE_SUFFIXES)}, found {suffix or 'no suffix'}; "
            "save them as TIFF or PNG"
        )
    if empty:
        raise LabelError(f"{name}: expected a label file, found an empty one; save or copy it again")
    return "shapes" if suffix in SHAPE_SUFFIXES and not folder else "raster"


def _read_raster(
    path: Path, axes: str | None, ignore: frozenset[int], plane: int | tuple[int, int] | None
) -> Scribbles:
    source = shown(_zarr_name(path) if path.is_dir() else path.name)
    try:
        raster = open_raster(path)
        scribbles = as_scribbles(raster.data, axes=axes or raster.axes, ignore=ignore, plane=plane, source=source)
    except ImageError as error:
        raise as_label_error(error) from error
    painted = scribbles.classes
    names = {v: raster.names[v] for v in painted if v in raster.names}
    colours = {v: raster.colours[v] for v in painted if v in raster.colours}
    return replace(scribbles, names={**scribbles.names, **names}, colours={**scribbles.colours, **colours})


def _read_annotations(
    paths: Sequence[Path],
    names: Names | None,
    left_out: frozenset[str],
    ignore: frozenset[int],
    plane: int | tuple[int, int] | None,
    shape: Size,
    merge: Merge,
    stroke_width: float | None,
) -> dict[Path, Scribbles]:
    """Read annotation files and give all of them the same values for the same names."""
    axes, grid = image_grid(shape)
    known = list(names.values()) if isinstance(names, Mapping) else list(names or ())
    shapes: dict[Path, list[Shape]] = {}
    for path in paths:
        if path.suffix.lower() in (".roi", ".zip"):
            found = read_rois(path, shape=grid, stroke_width=stroke_width, known=known)
        else:
            found = read_geojson(path, stroke_width=stroke_width or 1.0)
        shapes[path] = [s for s in found if s.label not in left_out and s.label not in ignore]
    value_of = _values_of_names(
        {s.label for found in shapes.values() for s in found}, names, ", ".join(p.name for p in paths)
    )
    result = {}
    for path, found in shapes.items():
        pixels = [_draw(s, value_of.get(s.label, s.label), plane, grid) for s in found]
        points, values = combine(pixels, grid, merge, path.name)
        painted = [int(v) for v in np.unique(values)]
        own = {value_of[s.label]: s.label for s in found if isinstance(s.label, str)}
        colours = {int(value_of.get(s.label, s.label)): s.colour for s in reversed(found) if s.colour}
        result[path] = Scribbles(
            points,
            values,
            axes,
            grid,
            class_names(painted, None, path.name) | cast(dict[int, str], own),
            class_colours(painted, None, path.name) | {v: c for v, c in colours.items() if v in painted},
            path.name,
        )
    return result


def _values_of_names(labels: set[str | int], names: Names | None, source: str) -> dict[str | int, int]:
    """Return the label value of each class name."""
    texts = sorted(label for label in labels if isinstance(label, str))
    if texts and names is None and len(texts) < len(labels):
        raise LabelError(
            f"{source}: expected ROIs that all have a group, or all have the name of a class, found both (names "
            f"{texts[:5]}); give names= (--names), the first being that of group 1"
        )
    if names is None:
        return {text: value for value, text in enumerate(texts, start=1)}
    known = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, start=1))
    by_name: dict[str | int, int] = {name: value for value, name in known.items()}
    if unknown := [text for text in texts if text not in by_name]:
        raise LabelError(
            f"{source}: expected annotations of the classes {list(known.values())}, found also {unknown}; name all "
            f"classes, or leave one out with ignore={unknown[0]!r} (--ignore)"
        )
    return by_name


def _draw(
    shape: Shape, value: str | int, plane: int | tuple[int, int] | None, grid: tuple[int, int, int, int]
) -> tuple:
    """Return the (n, 4) points and (n,) values of a shape."""
    frames, planes, height, width = grid
    place = shape.place
    if place is None and plane is not None:
        place = plane if isinstance(plane, tuple) else ((plane, 0) if planes == 1 else (0, plane))
    if place is None and frames * planes > 1 and not shape.first_plane:
        raise LabelError(
            f"{shape.where}: expected a plane for each annotation of a stack, found none (on all slices); set its "
            "position in ImageJ, or give the plane with --slice (plane= in Python), counted from 0"
        )
    t, z = place or (0, 0)
    if not (0 <= t < frames and 0 <= z < planes):
        raise LabelError(
            f"{shape.where}: expected a plane inside the image of {frames} frames and {planes} planes, found t={t} "
            f"z={z}; check that it belongs to this image"
        )
    yx = shape_pixels(shape, height, width)
    points = np.column_stack([np.full(len(yx), t), np.full(len(yx), z), yx]).astype(np.int64)
    return points, np.full(len(yx), value, np.int64)


def _unnamed(scribbles: Scribbles) -> bool:
    return any(scribbles.names[value] == f"class {value}" for value in scribbles.classes)


def _as_mapping(names: Names | None, parts: Collection[Scribbles]) -> Names | None:
    """Beside named annotations a sequence of names counts from class 1, whether each is painted or not."""
    named = any(name != f"class {value}" for s in parts for value, name in s.names.items())
    return dict(enumerate(names, start=1)) if named and names is not None and not isinstance(names, Mapping) else names


def _ignored(ignore: int | str | Collection[int | str] | None) -> tuple[frozenset[int], frozenset[str]]:
    items = (
        []
        if ignore is None
        else [ignore]
        if isinstance(ignore, str) or not isinstance(ignore, Collection)
        else list(ignore)
    )
    return frozenset(int(i) for i in items if not isinstance(i, str)), frozenset(i for i in items if isinstance(i, str))


def _zarr_name(path: Path) -> str:
    """Return "a.ome.zarr/labels/cells" for a label inside an image, else the folder's name."""
    image = next((parent for parent in path.parents if parent.suffix == ".zarr"), None)
    return str(path.relative_to(image.parent)) if image else path.name
