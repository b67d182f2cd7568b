"""From numbered objects to numbers: measurements, outlines and accuracy of label images."""

from forestbridge.objects.evaluate import AnnotatorAgreement, Evaluation, annotator_agreement, evaluate
from forestbridge.objects.measure import measure
from forestbridge.objects.tables import ObjectTable, write_table
from forestbridge.objects.training_set import TrainingPair, read_training_set, scribbles_of_masks

__all__ = [
    "AnnotatorAgreement",
    "Evaluation",
    "ObjectTable",
    "TrainingPair",
    "annotator_agreement",
    "evaluate",
    "measure",
    "read_training_set",
    "scribbles_of_masks",
    "write_table",
]
