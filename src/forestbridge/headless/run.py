"""From a planned export to its file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Piece
from forestbridge.encoders.features import TileOfImage, encode_tile, tiles_of
from forestbridge.forest import PixelForest
from forestbridge.headless.export import FIVE, SOURCES, Export
from forestbridge.headless.files import Write, created
from forestbridge.headless.plan import Plan
from forestbridge.ilastik import Project
from forestbridge.image import Image
from forestbridge.predict import Progress, meets, predict_pieces
from forestbridge.threads import in_order


def run_export(
    project: Project,
    forest: PixelForest,
    image: Image,
    export: Export,
    plan: Plan,
    *,
    overwrite: bool = False,
    jobs: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write an export tile by tile; folders that its name needs are made.

    Returns
    -------
    path
        Of the file.

    Raises
    ------
    OutputExistsError, ResourceError
        If it exists, or cannot be written.
    """
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    t, _, z, y, x = plan.region
    kind = SOURCES[export.source]
    if kind is None:
        pieces = _features(project, image, (t, z, y, x), jobs)
    else:
        options: dict[str, Any] = {"jobs": jobs, "device": device, "progress": progress}
        pieces = predict_pieces(image, forest, kind=kind, region=(t, z, y, x), **options)
    with created(export, plan, image, overwrite=overwrite) as write:
        for piece in pieces:
            _write_piece(piece, export, plan, write)
    return plan.path


def _features(project: Project, image: Image, region: tuple[slice, ...], jobs: int | None) -> Iterator[Piece]:
    """Yield the features of the tiles that meet a region, in the order of the project's columns."""
    bank, columns = project.encoder, project.columns

    def work(place: TileOfImage) -> Piece:
        values = encode_tile(image, bank, place)[0]
        return Piece(place.t, place.z, place.tile.core, values[columns])

    yield from in_order(work, [p for p in tiles_of(bank.spec, image) if meets(p, region)], jobs)


def _write_piece(piece: Piece, export: Export, plan: Plan, write: Write) -> None:
    """Write the part of a piece that is exported."""
    core = piece.core if len(piece.core) == 3 else (slice(piece.z, (piece.z or 0) + 1), *piece.core)
    block = piece.answer if len(piece.core) == 3 else piece.answer[:, None]  # (C, z, y, x)
    corner = (piece.t, 0, *(s.start or 0 for s in core))
    lengths, region = (1, *block.shape), plan.region
    parts = [(max(a, r.start), min(a + n, r.stop)) for a, n, r in zip(corner, lengths, region, strict=True)]
    inside = tuple(slice(start - a, stop - a) for (start, stop), a in zip(parts, corner, strict=True))
    values = converted(block[None][inside], plan.dtype, export.result_range, export.export_range)  # (1, c, z, y, x)
    first = [r.start or 0 for r in region]
    target = {a: slice(start - low, stop - low) for a, (start, stop), low in zip(FIVE, parts, first, strict=True)}
    left_out = tuple(i for i, a in enumerate(FIVE) if a not in plan.axes)
    order = [FIVE.index(a) for a in plan.axes]
    values = values.transpose(*order, *left_out)
    write(tuple(target[a] for a in plan.axes), values.reshape(values.shape[: len(order)]))


def converted(
    values: NDArray, dtype: np.dtype, result_range: tuple[float, float] | None, export_range: tuple[float, float] | None
) -> NDArray:
    """Return values in another dtype; with ranges, scaled from the first to the second, and rounded for integers, as ilastik does.

    Without ranges, fractions are cut off: probabilities as uint8 are 0 or 1.
    """
    if result_range is None or export_range is None:
        return values.astype(dtype)
    (low, high), (new_low, new_high) = result_range, export_range
    ratio = np.float32(0 if np.isclose(high - low, 0) else (new_high - new_low) / (high - low))
    scaled = np.float32(new_low) + (values.astype(np.float32) - np.float32(low)) * ratio
    if values.dtype.kind == "f" and dtype.kind in "iu":
        scaled = np.rint(scaled)
    return scaled.astype(dtype)
