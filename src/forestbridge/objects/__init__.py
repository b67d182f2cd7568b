"""From numbered objects to numbers: measurements, outlines and accuracy of label images."""

from forestbridge.objects.evaluate import Agreement, Evaluation, agreement, evaluate
from forestbridge.objects.measure import measure
from forestbridge.objects.tables import ObjectTable, write_table

__all__ = ["Agreement", "Evaluation", "ObjectTable", "agreement", "evaluate", "measure", "write_table"]
