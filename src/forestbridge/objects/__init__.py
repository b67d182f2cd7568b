"""From numbered objects to numbers: measurements, outlines and accuracy of label images."""

from forestbridge.objects.measure import measure
from forestbridge.objects.tables import ObjectTable, write_table

__all__ = ["ObjectTable", "measure", "write_table"]
