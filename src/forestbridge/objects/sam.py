"""Regions refined by Segment Anything: the image, and the regions of classes as prompts, in; better regions out.

Everything is done plane by plane, on the image itself. Weights are files of the user, in the format in which their makers publish them.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.devices import find_gpu
from forestbridge.errors import ImageError, MissingExtraError, ResourceError
from forestbridge.image import Image
from forestbridge.image.source import open_source, shown
from forestbridge.objects.segmentation import Unit, read_unit

_logger = logging.getLogger(__name__)

SamModel = Literal["sam2_tiny", "sam2_small", "sam2_base", "sam2_large", "vit_b", "vit_l", "vit_h"]
"""sam2_…: SAM 2.1 of that size. vit_…: Segment Anything with that image encoder."""

SAM2_CONFIGS = {"sam2_tiny": "t", "sam2_small": "s", "sam2_base": "b+", "sam2_large": "l"}

MODELS: tuple[SamModel, ...] = ("sam2_tiny", "sam2_small", "sam2_base", "sam2_large", "vit_b", "vit_l", "vit_h")

Prompts = Literal["boxes", "auto"]
"""boxes: the box around each region asks for one mask. auto: masks of the whole image; a region becomes the smallest that fits it."""

AT_ONCE = 16
"""Boxes that are asked at once."""

AUTO = {
    "pred_iou_thresh": 0.8,
    "stability_score_thresh": 0.88,
    "stability_score_offset": 0.9,
    "crop_n_layers": 1,
    "crop_n_points_downscale_factor": 8,
}
"""How FeatureForest generates masks of the whole image."""


@dataclass(frozen=True, eq=False)
class Sam:
    """A model and the image that it looks at.

    Attributes
    ----------
    model
        Of the package sam2 or segment_anything, in evaluation mode.
    image
        One channel, or three that are red, green and blue.
    prompts
        See `Prompts`.
    iou
        For "auto": smallest intersection over union of a region and the mask that it becomes, exclusive.
    points_per_side
        For "auto": side of the grid of points that are asked.
    """

    model: Any
    image: Image
    prompts: Prompts = "boxes"
    iou: float = 0.35
    points_per_side: int = 50

    def __post_init__(self) -> None:
        if self.image.n_channels not in (1, 3):
            raise ImageError(
                f"{self.image.source}: expected one channel or three for Segment Anything, found {self.image.n_channels}; "
                "choose with --channels"
            )
        if self.prompts not in ("boxes", "auto"):
            raise ValueError(f"expected the prompts boxes or auto, found {self.prompts!r}")
        if not 0 <= self.iou <= 1 or self.points_per_side < AUTO["crop_n_points_downscale_factor"]:
            raise ValueError(
                f"expected an IoU from 0 to 1 and at least {AUTO['crop_n_points_downscale_factor']} points, found {self.iou} and "
                f"{self.points_per_side}"
            )

    def refine(self, classes: NDArray[np.uint8], unit: Unit, other: int) -> NDArray[np.uint8]:
        """Return refined classes of a unit.

        Parameters
        ----------
        classes
            (Y, X) or (Z, Y, X): 0 free, k for classes; `other` stays as it is.
        """
        if classes.ndim == 3:
            planes = [self.refine(plane, Unit(unit.t, z), other) for z, plane in enumerate(classes)]
            return np.stack(planes)
        from forestbridge.objects.components import label_components

        regions, class_of = label_components(np.where(classes == other, np.uint8(0), classes), 2)
        if len(class_of) == 1:
            return classes
        picture = self._picture(unit)
        masks = self._of_boxes if self.prompts == "boxes" else self._of_all
        result = np.zeros_like(classes)
        best = np.zeros(classes.shape, np.float32)
        for region, mask, score in masks(picture, regions):
            ahead = mask & (score > best)  # where masks overlap, the surer one counts, whatever the order
            result[ahead], best[ahead] = class_of[region], np.broadcast_to(score, classes.shape)[ahead]
        result[classes == other] = other
        return result

    def _picture(self, unit: Unit) -> NDArray[np.uint8]:
        """Return a plane as (Y, X, 3), from its smallest to its largest value."""
        pixels = np.asarray(read_unit(self.image, unit), np.float64)
        channels = pixels if "C" in self.image.axes else pixels[None]  # (C, Y, X)
        low, high = channels.min(), channels.max()
        if not np.isfinite([low, high]).all():
            raise ImageError(
                f"{self.image.source}: expected finite pixels, found NaN or infinite ones; replace them with --nan"
            )
        grey = np.rint((channels - low) * (255 / ((high - low) or 1))).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1))

    def _of_boxes(
        self, picture: NDArray[np.uint8], regions: NDArray
    ) -> Iterator[tuple[int, NDArray, NDArray | np.float32]]:
        """Yield for each region a mask, and how sure the model is of each pixel."""
        from scipy import ndimage

        found = [(n, place) for n, place in enumerate(ndimage.find_objects(regions), 1) if place is not None]
        boxes = np.array([[x.start, y.start, x.stop, y.stop] for _, (y, x) in found], np.float32)
        predictor = _predictor(self.model)
        predictor.set_image(picture)
        for first in range(0, len(found), AT_ONCE):
            logits = _logits(predictor, boxes[first : first + AT_ONCE])
            for (n, _), values in zip(found[first : first + AT_ONCE], logits, strict=True):
                yield n, values > 0, values

    def _of_all(
        self, picture: NDArray[np.uint8], regions: NDArray
    ) -> Iterator[tuple[int, NDArray, NDArray | np.float32]]:
        """Yield for each region the smallest mask that fits it, and how well it does."""
        try:
            found = _generator(self.model, self.points_per_side).generate(picture)
        except IndexError:  # both packages end so where no part of an image has a mask that is good enough
            found = []
        masks = [np.asarray(entry["segmentation"], bool) for entry in found]
        areas = np.bincount(regions.ravel())
        sizes = np.array([int(mask.sum()) for mask in masks], np.int64)
        shared = np.array([np.bincount(regions[mask], minlength=len(areas)) for mask in masks]).reshape(
            len(masks), len(areas)
        )
        lost = 0
        for n in range(1, len(areas)):
            both = shared[:, n]
            iou = both / np.maximum(areas[n] + sizes - both, 1)
            fitting = np.flatnonzero(iou > self.iou)
            if not len(fitting):
                lost += 1
                continue
            chosen = fitting[np.argmin(sizes[fitting])]
            yield n, masks[chosen], np.float32(iou[chosen])
        if lost:
            _logger.info(
                "%s: %d of %d regions have no mask that fits and are left out", self.image.source, lost, len(areas) - 1
            )


def open_sam(
    weights: str | Path,
    image: Image,
    *,
    model: SamModel = "sam2_base",
    prompts: Prompts = "boxes",
    iou: float = 0.35,
    device: str = "cpu",
) -> Sam:
    """Open a model with weights from a file; no code in it is run.

    Parameters
    ----------
    weights
        A checkpoint as published with SAM 2.1 or Segment Anything (.pt, .pth).
    image
        What the model looks at.
    model
        What the weights are of.
    prompts, iou
        See `Sam`.
    device
        As for `predict`.

    Raises
    ------
    ImageError
        If there is no such file, or the image has another number of channels.
    MissingExtraError
        If the extra 'torch' is not installed.
    ResourceError
        If the file does not hold weights of this model.
    """
    if model not in MODELS:
        raise ValueError(f"expected one of the models {', '.join(MODELS)}, found {model!r}")
    open_source(weights)
    try:
        import torch

        empty = _empty_model(model)
    except ImportError as error:
        raise MissingExtraError("Segment Anything", "torch") from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        empty.load_state_dict(state.get("model", state))
    except (
        UnpicklingError,
        RuntimeError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        EOFError,
        OSError,
        ImportError,
    ) as error:
        raise _no_weights(weights, model, error) from error
    gpu = find_gpu(device)
    return Sam(empty.to(str(gpu) if gpu is not None else "cpu").eval(), image, prompts, iou)


def _no_weights(weights: str | Path, model: str, error: Exception) -> ResourceError:
    reason = str(error).strip().split("\n")[0][:200]
    return ResourceError(
        f"expected the weights of {model} in {shown(weights)}, found a file without them ({reason}); check the file, and --sam-model"
    )


def _empty_model(model: SamModel) -> Any:
    """Return a model with random weights, on the CPU."""
    if model in SAM2_CONFIGS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # sam2 scripts a part of itself when it is imported
            from sam2.build_sam import build_sam2

        return build_sam2(f"configs/sam2.1/sam2.1_hiera_{SAM2_CONFIGS[model]}.yaml", None, device="cpu")
    from segment_anything import sam_model_registry

    return sam_model_registry[model]()


def _is_sam2(model: Any) -> bool:
    return type(model).__module__.startswith("sam2.")


def _predictor(model: Any) -> Any:
    if _is_sam2(model):
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        return SAM2ImagePredictor(model)
    from segment_anything import SamPredictor

    return SamPredictor(model)


def _generator(model: Any, points_per_side: int) -> Any:
    if _is_sam2(model):
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        return SAM2AutomaticMaskGenerator(model, points_per_side=points_per_side, use_m2m=True, **AUTO)
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator(model, points_per_side=points_per_side, **AUTO)


def _logits(predictor: Any, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, Y, X) logits of the masks in (N, 4) boxes (x, y, x, y)."""
    if _is_sam2(predictor.model):
        masks, _, _ = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
        return np.asarray(masks, np.float32).reshape(len(boxes), *masks.shape[-2:])
    import torch

    moved = predictor.transform.apply_boxes(boxes, predictor.original_size)
    prompts = torch.as_tensor(moved, dtype=torch.float32, device=predictor.device)
    with torch.no_grad():
        masks, _, _ = predictor.predict_torch(None, None, prompts, multimask_output=False, return_logits=True)
    return masks[:, 0].cpu().numpy()
