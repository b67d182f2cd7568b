"""The command line: `forestbridge` and `ff-package`."""

from forestbridge.cli.app import main, main_package

__all__ = ["main", "main_package"]
