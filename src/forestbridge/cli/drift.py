"""The comparison of images with those of the training, before they are classified: what differs is told, or refused."""

from collections.abc import Mapping
from typing import Any

from forestbridge.cli.messages import say
from forestbridge.errors import ForestError, SpecMismatchError
from forestbridge.image import Image
from forestbridge.qc.drift import Statistics, drift, facts_statistics, image_statistics
from forestbridge.stores import FeatureStore


class Comparison:
    """Compares images with what a forest or package says of its training images.

    Attributes
    ----------
    found
        Of each image: its name, whether it was compared, and the notes; as JSON values.
    """

    def __init__(self, training: Statistics | None, *, strict: bool) -> None:
        """Take the statistics of the training images, None where they are not known."""
        self.training, self.strict = training, strict
        self.found: list[Mapping[str, Any]] = []

    def check(self, source: Image | FeatureStore) -> None:
        """Tell how an image, or that of a store, differs, one line for each way.

        Raises
        ------
        SpecMismatchError
            If it differs and the comparison is strict.
        ForestError
            If the statistics of the training are damaged.
        """
        name = source.source if isinstance(source, Image) else source.image.source
        notes: list[str] = []
        if self.training is not None:
            try:
                notes = drift(self.training, _statistics(source))
            except (KeyError, TypeError, IndexError, AttributeError, ValueError, ZeroDivisionError) as error:
                raise ForestError(
                    f"expected statistics of the training images, found damaged ones ({error!r}); train again, or package again"
                ) from error
        self.found.append({"input": name, "compared": self.training is not None, "notes": notes})
        if notes and self.strict:
            raise SpecMismatchError(f"{name}: {'; '.join(notes)}; leave out --strict to classify it all the same")
        for note in notes:
            say(f"WARNING: {name}: {note}")


def _statistics(source: Image | FeatureStore) -> Statistics:
    if isinstance(source, Image):
        return image_statistics(source)
    return getattr(source, "image_statistics", None) or facts_statistics(
        source.image, source.image.dtype, source.image.channel_names
    )
