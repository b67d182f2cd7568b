"""From classes to objects: thresholds, clean masks, numbered objects."""

from forestbridge.objects.baseline import baseline
from forestbridge.objects.instances import Instances, ObjectClass, instances
from forestbridge.objects.postprocess import postprocess
from forestbridge.objects.segmentation import Segmentation, open_segmentation

__all__ = [
    "Instances",
    "ObjectClass",
    "Segmentation",
    "baseline",
    "instances",
    "open_segmentation",
    "postprocess",
]
