"""bioimage.io packages: written, described, checked."""

from forestbridge.package.about import About
from forestbridge.package.check import CheckReport, FormatCheck, check_package, format_check
from forestbridge.package.contents import FORMATS
from forestbridge.package.encoder import write_encoder_package
from forestbridge.package.recipe import build_recipe
from forestbridge.package.write import write_forest_package, write_package

__all__ = [
    "FORMATS",
    "About",
    "CheckReport",
    "FormatCheck",
    "build_recipe",
    "check_package",
    "format_check",
    "write_encoder_package",
    "write_forest_package",
    "write_package",
]
