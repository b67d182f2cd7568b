"""Images in, labels and probabilities out."""

from forestbridge.image.image import AXES, Image, as_image

__all__ = ["AXES", "Image", "as_image"]
