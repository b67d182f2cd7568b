"""Fiji and ImageJ: commands for their macros and the warm worker these call; and from Python the gateway, images there and back.

What is imported here serves Python programs; `client`, `install` and `shared` are of the commands.
"""

from forestbridge.fiji.gateway import start
from forestbridge.fiji.images import from_imagej, to_imagej
from forestbridge.fiji.segment import segment

__all__ = ["from_imagej", "segment", "start", "to_imagej"]
