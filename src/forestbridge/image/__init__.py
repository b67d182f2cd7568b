"""Images in, labels and probabilities out."""

from forestbridge.image.image import AXES, Image, ImageShape, as_image
from forestbridge.image.overlay import write_overlay
from forestbridge.image.readers import (
    base_name,
    check_distinct_names,
    check_same_kind,
    describe_image,
    is_image_folder,
    is_named_like_image,
    read_image,
)
from forestbridge.image.writers import (
    ResultInfo,
    ResultWriter,
    create_result,
    label_dtype,
    write_labels,
    write_probabilities,
)

__all__ = [
    "AXES",
    "Image",
    "ImageShape",
    "ResultInfo",
    "ResultWriter",
    "as_image",
    "base_name",
    "check_distinct_names",
    "check_same_kind",
    "create_result",
    "describe_image",
    "is_image_folder",
    "is_named_like_image",
    "label_dtype",
    "read_image",
    "write_labels",
    "write_overlay",
    "write_probabilities",
]
