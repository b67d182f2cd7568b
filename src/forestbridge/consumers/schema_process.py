"""The process of `validate_with_spec`: a path comes in as argument, one line of JSON goes out."""

import hashlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")


def _refuse_network(event: str, arguments: Any) -> None:
    if event in _NETWORK:
        raise OSError(f"no network during validation: {event}")


def main(path: Path) -> None:
    """Validate a package and write its errors to stdout."""
    sys.addaudithook(_refuse_network)
    warnings.simplefilter("ignore")
    logging.disable()
    from bioimageio.spec import load_description
    from loguru import logger

    logger.remove()
    summary = load_description(path, perform_io_checks=False).validation_summary
    found = [error for detail in summary.details for error in detail.errors]
    errors = [f"{'.'.join(map(str, error.loc)) or '(all)'}: {error.msg}" for error in found]
    if summary.status == "failed" and not errors:
        errors = ["(all): bioimageio.spec calls it invalid without a reason"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sys.stdout.write(json.dumps({"errors": errors, "sha256": digest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
