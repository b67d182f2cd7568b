"""An open image of ImageJ and a package or forest in, an image of labels, probabilities or uncertainty out."""

from pathlib import Path
from typing import Any, Literal

from forestbridge.assemble import Kind
from forestbridge.fiji.images import from_imagej, to_imagej
from forestbridge.forest import PixelForest
from forestbridge.image import AXES
from forestbridge.model import Model, classes_of, open_model, predict_with
from forestbridge.runner import Package

Output = Literal["Segmentation", "Probabilities", "Uncertainty"]

OUTPUTS: dict[Output, Kind] = {
    "Segmentation": "labels",
    "Probabilities": "probabilities",
    "Uncertainty": "uncertainty",
}


def segment(
    imp: Any,
    package: str | Path | Model,
    *,
    output: Output = "Segmentation",
    device: str = "cpu",
    tile: int | None = None,
) -> Any:
    """Classify every pixel of an image of ImageJ.

    Parameters
    ----------
    imp
        ij.ImagePlus; all of it is classified, whatever is selected.
    package
        A package (.zip), forest (.forest) or ilastik project (.ilp), or one that is open: opening takes longer than a small image.
    output
        "Segmentation" (labels in the colours of their classes), "Probabilities" (a channel per class) or "Uncertainty".
    device
        "cpu", "cuda", "cuda:1" or "auto"; an open package runs where it was opened.
    tile
        Wanted length of a package's windows; the encoder of a forest fixes its own.

    Returns
    -------
    result
        ij.ImagePlus, not shown, titled "segmentation of X", "probabilities of X" or "uncertainty of X" after the image, with its
        calibration. The pixels are those of `forestbridge.predict` and of `forestbridge.open_package(...).predict`.

    Raises
    ------
    ValueError
        If the output is not known, or `device` or `tile` is given where something else fixes it.
    ImageError, PackageError, ForestError, ResourceError
        As `forestbridge.predict` and `forestbridge.open_package`.
    """
    if output not in OUTPUTS:
        raise ValueError(f"expected one of the outputs {', '.join(OUTPUTS)}, found {output!r}")
    kind = OUTPUTS[output]
    model = _open(package, device)
    image = from_imagej(imp)
    result = predict_with(model, image, kind=kind, device=device, tile=tile)
    has = set(image.axes) - {"C"} | ({"C"} if kind == "probabilities" else set())
    axes = "".join(a for a in AXES if a in has)
    answer = to_imagej(result, f"{output.lower()} of {image.source}", axes=axes, classes=classes_of(model))
    calibration = imp.getCalibration().copy()
    calibration.disableDensityCalibration()  # that of the pixel values, which are others now
    answer.setCalibration(calibration)
    return answer


def _open(package: str | Path | Model, device: str) -> Model:
    """Open what is not open, and refuse what would be ignored."""
    if isinstance(package, Package) and device != "cpu":
        raise ValueError(
            f"expected no device with an open package, found {device!r}; give it to forestbridge.open_package(path, device=...)"
        )
    return package if isinstance(package, Package | PixelForest) else open_model(package, device=device)
