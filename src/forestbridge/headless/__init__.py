"""What ``ilastik --headless`` writes, in its words: sources, formats, names of files, axes, cut-outs and ranges of values.

The arrays are those of ilastik 1.4 (`opFormattedDataExport.py`, `opExportSlot.py`, `opDataExport.py`): same axes in the same order, same
dtype, same numbers as far as two programs can agree, so that a script goes on with the same file.
"""

from forestbridge.headless.export import DTYPES, FORMATS, SOURCES, Export
from forestbridge.headless.plan import Plan, plan_export
from forestbridge.headless.run import run_export

__all__ = ["DTYPES", "FORMATS", "SOURCES", "Export", "Plan", "plan_export", "run_export"]
