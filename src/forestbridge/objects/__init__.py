"""From numbered objects to numbers: measurements, outlines and accuracy of label images."""

from forestbridge.objects.evaluate import Agreement, Evaluation, agreement, evaluate
from forestbridge.objects.measure import measure
from forestbridge.objects.tables import ObjectTable, write_table
from forestbridge.objects.training_set import TrainingPair, read_training_set, scribbles_of_masks

__all__ = [
    "Agreement",
    "Evaluation",
    "ObjectTable",
    "TrainingPair",
    "agreement",
    "evaluate",
    "measure",
    "read_training_set",
    "scribbles_of_masks",
    "write_table",
]
