"""What a rule of a program says about a package: `Finding`, and the programs' names."""

from dataclasses import dataclass

CONSUMERS = ("Python", "ilastik", "deepImageJ", "QuPath", "bioimage.io")
"""Programs in the order of the table. Python is forestbridge and bioimageio.core; bioimage.io is upload and test."""

GRAPHICAL = ("ilastik", "deepImageJ", "QuPath")
SPEC = ("Python", "ilastik", "bioimage.io")
"""Programs that validate with some version of bioimageio.spec."""
OLD_SPEC = ("ilastik", "bioimage.io")
"""Those whose bioimageio.spec is older than 0.5.11."""


@dataclass(frozen=True)
class Finding:
    """A rule that a package does not keep.

    Attributes
    ----------
    consumers
        The programs that have the rule.
    text
        Which key, what is wrong with it, and what to change.
    note
        Whether the package works all the same.
    """

    consumers: tuple[str, ...]
    text: str
    note: bool = False
