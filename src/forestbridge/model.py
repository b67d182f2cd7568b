"""What classifies, opened from its file: a package, a forest, or the forest of an ilastik project; and its prediction."""

from pathlib import Path
from typing import Any

from forestbridge.assemble import Classes
from forestbridge.forest import PixelForest, load_forest
from forestbridge.image import Image
from forestbridge.once import open_once
from forestbridge.predict import predict
from forestbridge.runner import Package, open_package

Model = Package | PixelForest


def open_forest(path: Path) -> PixelForest:
    """Return the forest of a file, or the one that an ilastik project was trained to.

    Raises
    ------
    ForestError, ProjectError
        If it is neither, or cannot be used.
    """
    from forestbridge.ilastik import is_project, read_project

    return read_project(path).pixel_forest() if is_project(path) else load_forest(path)


def open_model(path: str | Path, *, device: str = "cpu") -> Model:
    """Open a package (.zip), forest (.forest) or ilastik project (.ilp), the one of the last call if the file is still the same.

    Parameters
    ----------
    device
        Where a package runs; a forest is told when it predicts.

    Raises
    ------
    PackageError, ForestError, ProjectError, ResourceError
        As `forestbridge.open_package`, `forestbridge.load_forest` and `forestbridge.read_project`.
    """
    path = Path(path)
    if path.suffix.lower() == ".zip":
        return open_once(open_package, path, device=device)
    return open_once(open_forest, path)


def classes_of(model: Model) -> Classes:
    """Return the label values, names and colours of what classifies."""
    return model.classes if isinstance(model, Package) else Classes(model.classes, model.names, model.colours)


def predict_with(model: Model, image: Image, *, device: str = "cpu", tile: int | None = None, **options: Any) -> Any:
    """Classify every pixel of an image.

    Parameters
    ----------
    device
        For forests; a package runs where it was opened.
    tile
        For packages: wanted length of a window in pixels.
    options
        As for `forestbridge.predict`: kind, out, overwrite, progress.

    Raises
    ------
    ValueError
        If `tile` is given with a forest, whose encoder fixes its own.
    """
    if isinstance(model, Package):
        return model.predict(image, tile=tile, **options)
    if tile is not None:
        raise ValueError(f"expected tile with a package (.zip) only, found {tile} with a forest; leave it out")
    return predict(image, model, device=device, **options)
