"""validate.py PACKAGE: validates a description in any version of bioimageio.spec; prints its errors, or "valid"."""

import sys
from pathlib import Path

from bioimageio.spec import InvalidDescr, load_description
from loguru import logger

logger.remove()
description = load_description(Path(sys.argv[1]), format_version="latest", perform_io_checks=False)
errors = [f"{error.loc}: {error.msg}" for detail in description.validation_summary.details for error in detail.errors]
print(description.validation_summary.status, *errors)
sys.exit(isinstance(description, InvalidDescr) or bool(errors))
