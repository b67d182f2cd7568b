"""The exceptions of forestbridge: every failure a user can meet, with the exit code of the command line.

    ForestbridgeError            (never raised itself)
    ├── OutputExistsError    2   the output is there already and overwriting was not asked for
    ├── ImageError           3   an image file or array that cannot be used
    ├── LabelError           3   a set of scribbles that cannot be used
    ├── ForestError          3   a forest file that is damaged, hostile or not ours
    ├── ProjectError         3   an ilastik project that is damaged, hostile, or of a kind that cannot be used
    ├── StoreError           4   a feature store that is damaged, incomplete or not ours
    │   └── SpecMismatchError 4  two things that were made with different encoders, or for different images
    ├── PackageError         5   a package that is damaged, hostile, or does not reproduce its own test
    │   └── TrustError       5   a package that carries code, and whose hash was not given to --trust
    ├── WeightsError         5   a weight file that is damaged, hostile, or of another network
    ├── ResourceError        6   memory, disk or a device that is not there
    │   ├── MissingExtraError 6  a package of an optional extra is not installed
    │   └── PluginError      6   an encoder of another package that fails
    └── InterruptedRunError  7   stopped from outside; the work done is kept and the run can be resumed

Exit code 0 is success, 1 "checked and not good" (a result, not an error), 2 wrong use: of the command line, or of a function
(`ValueError`, `TypeError`). Every message says what was expected, what was found, and what to do.
"""


class ForestbridgeError(Exception):
    """Base of all errors that forestbridge raises about its inputs, files and surroundings."""

    exit_code = 1


class OutputExistsError(ForestbridgeError):
    """The output exists and overwriting was not asked for."""

    exit_code = 2


class ImageError(ForestbridgeError):
    """An image that cannot be read or used."""

    exit_code = 3


class LabelError(ForestbridgeError):
    """A set of scribbles that cannot be used."""

    exit_code = 3


class ForestError(ForestbridgeError):
    """A forest file that cannot be used."""

    exit_code = 3


class ProjectError(ForestbridgeError):
    """An ilastik project that cannot be used."""

    exit_code = 3


class StoreError(ForestbridgeError):
    """A feature store that cannot be used."""

    exit_code = 4


class SpecMismatchError(StoreError):
    """Two things that do not belong together: different encoders, settings or images."""


class PackageError(ForestbridgeError):
    """A package that is refused."""

    exit_code = 5


class TrustError(PackageError):
    """A package that carries code and was not trusted by its hash."""


class WeightsError(ForestbridgeError):
    """A weight file that is refused."""

    exit_code = 5


class ResourceError(ForestbridgeError):
    """Memory, disk space or a device that is needed and not there."""

    exit_code = 6


class MissingExtraError(ResourceError):
    """An optional extra of forestbridge is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed; install it with: pip install 'forestbridge[{extra}]'"
        )
        self.extra = extra


class PluginError(ResourceError):
    """An encoder of another package that fails."""


class InterruptedRunError(ForestbridgeError):
    """The run was stopped from outside; what is done is kept."""

    exit_code = 7
