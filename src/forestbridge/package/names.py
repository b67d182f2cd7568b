"""Names that every consumer accepts: package name and id, channel identifiers."""

import keyword
import re
import unicodedata
from collections.abc import Sequence

from forestbridge.errors import PackageError

MIN_NAME, MAX_NAME = 5, 128
"""Length of a model name in the bioimage.io specification."""

MIN_ID = 2


def ascii_fold(text: str) -> str:
    """Return the text without accents and without characters that have no ASCII form."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def channel_identifiers(names: Sequence[str], values: Sequence[int]) -> tuple[str, ...]:
    """Return one ASCII identifier per class; bioimageio.spec up to 0.5.10 takes nothing else as a channel name.

    Accents are dropped, every run of other characters becomes one underscore, underscores at the ends go; a result that starts
    with a digit, is a Python keyword or is empty gets the prefix "class_" (for an empty one followed by the label value).

    Parameters
    ----------
    names, values
        Display name and label value of each class.

    Raises
    ------
    PackageError
        If two classes get the same identifier.
    """
    identifiers = []
    for name, value in zip(names, values, strict=True):
        text = re.sub(r"[^0-9A-Za-z]+", "_", ascii_fold(name)).strip("_")
        if not text:
            text = f"class_{value}"
        elif text[0].isdigit() or keyword.iskeyword(text):
            text = f"class_{text}"
        identifiers.append(text)
    for identifier in identifiers:
        clash = [name for name, other in zip(names, identifiers, strict=True) if other == identifier]
        if len(clash) > 1:
            raise PackageError(
                f"expected class names that stay different as ASCII identifiers, found {clash}, which all become {identifier!r}; "
                "rename one class"
            )
    return tuple(identifiers)


def model_name(text: str) -> str:
    """Return a name of 5 to 128 letters, digits and ``_+- ()``, as the specification demands; a good name stays as it is."""
    name = re.sub(r"[^0-9A-Za-z_+\- ()]+", "-", ascii_fold(text)).strip(" -")
    if len(name) < MIN_NAME:
        name = f"{name} pixel classifier".strip()
    return name[:MAX_NAME].rstrip(" -")


def model_id(name: str) -> str:
    """Return an id of 2 to 128 lower-case letters, digits and hyphens made from a name; JDLL needs one, and calls the folder so."""
    text = re.sub(r"[^0-9a-z]+", "-", ascii_fold(name).lower()).strip("-")[:MAX_NAME].rstrip("-")
    return text if len(text) >= MIN_ID else f"{text}-pixel-classifier".strip("-")
