"""run_core_test.py PACKAGE FORMAT: runs the test of any version of bioimageio.core on one weight format; prints its errors, or "passed"."""

import sys
from pathlib import Path

from bioimageio.core import test_model
from loguru import logger

logger.remove()
summary = test_model(Path(sys.argv[1]), weight_format=sys.argv[2], devices=["cpu"])
errors = [error.msg for detail in summary.details for error in detail.errors]
print(summary.status, *errors)
sys.exit(summary.status != "passed")
