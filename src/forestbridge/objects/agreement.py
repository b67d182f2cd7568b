"""How well two segmentations of one image agree about what is object and what is background."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forestbridge.errors import ImageError
from forestbridge.image import Image
from forestbridge.objects.segmentation import ClassName, Segmentation


class Agreement(NamedTuple):
    """Pixels that two segmentations call object: both, one of them, none; the measures follow from these.

    Attributes
    ----------
    both, only_first, only_second, neither
        Numbers of pixels.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def dice(self) -> float:
        """2 · both / (first + second); 1 where neither finds an object."""
        found = 2 * self.both + self.only_first + self.only_second
        return 2 * self.both / found if found else 1.0

    @property
    def iou(self) -> float:
        """Both / any; 1 where neither finds an object."""
        found = self.both + self.only_first + self.only_second
        return self.both / found if found else 1.0

    @property
    def pixel_agreement(self) -> float:
        """Fraction of the pixels that are the same in both."""
        return (self.both + self.neither) / sum(self)

    def document(self) -> dict[str, float]:
        """Return the measures, and the numbers that they follow from, as JSON values."""
        measures = {"dice": self.dice, "iou": self.iou, "pixel_agreement": self.pixel_agreement}
        return {**measures, **self._asdict()}


def agreement(first: Segmentation, second: Segmentation, *, classes: Sequence[ClassName] | None = None) -> Agreement:
    """Compare what is object in two segmentations, plane by plane.

    Parameters
    ----------
    first, second
        Of one image.
    classes
        Which classes of `second` are objects; by default all but its background.

    Raises
    ------
    ImageError
        If their sizes differ.
    """
    check_same_size(first.image, second.image)
    values = [first.chosen(None).values, second.chosen(classes).values]
    counts = np.zeros(4, np.int64)
    pairs = zip(first.units(plane_by_plane=True), second.units(plane_by_plane=True), strict=True)
    for unit, other in pairs:
        a, b = (np.isin(s.labels(u), v) for s, u, v in zip((first, second), (unit, other), values, strict=True))
        counts += np.bincount((2 * a + b).ravel(), minlength=4)
    neither, only_second, only_first, both = counts.tolist()
    return Agreement(both, only_first, only_second, neither)


def check_same_size(image: Image, labels: Image) -> None:
    """Refuse labels of another size than an image.

    Raises
    ------
    ImageError
        With both sizes.
    """
    first, second = ({a: i.sizes[a] for a in "TZYX"} for i in (image, labels))
    if first != second:
        texts = [" ".join(f"{a}={n}" for a, n in sizes.items()) for sizes in (first, second)]
        raise ImageError(
            f"{labels.source}: expected labels of the size of {image.source}, {texts[0]}, found {texts[1]}; give the "
            "segmentation of this image"
        )
