"""From classes to objects: thresholds, clean masks, numbered objects."""

from forestbridge.objects.instances import Instances, ObjectClass, instances
from forestbridge.objects.segmentation import Segmentation, open_segmentation

__all__ = ["Instances", "ObjectClass", "Segmentation", "instances", "open_segmentation"]
