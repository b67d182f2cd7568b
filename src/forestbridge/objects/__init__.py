"""From classes to objects and from objects to numbers: thresholds, clean masks, numbered objects, measurements, accuracy."""

from forestbridge.objects.baseline import baseline
from forestbridge.objects.convert import convert_labels
from forestbridge.objects.evaluate import AnnotatorAgreement, Evaluation, annotator_agreement, evaluate
from forestbridge.objects.instances import Instances, ObjectClass, instances
from forestbridge.objects.measure import measure
from forestbridge.objects.postprocess import postprocess
from forestbridge.objects.segmentation import Segmentation, open_segmentation
from forestbridge.objects.tables import ObjectTable, write_table
from forestbridge.objects.training_set import TrainingPair, read_training_set, scribbles_of_masks

__all__ = [
    "AnnotatorAgreement",
    "Evaluation",
    "Instances",
    "ObjectClass",
    "ObjectTable",
    "Segmentation",
    "TrainingPair",
    "annotator_agreement",
    "baseline",
    "convert_labels",
    "evaluate",
    "instances",
    "measure",
    "open_segmentation",
    "postprocess",
    "read_training_set",
    "scribbles_of_masks",
    "write_table",
]
