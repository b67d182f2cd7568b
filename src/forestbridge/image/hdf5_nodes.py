"""Guarded reading of HDF5: names in, texts and arrays out; nothing is unpickled, and no link leads out of the file.

An HDF5 file can name other files (external links, external storage, virtual datasets), hold Python objects, and claim sizes it does
not have. Members are therefore looked up link by link, and a dataset is read only when its kind and size are what was asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ForestbridgeError
from forestbridge.image.source import shown

if TYPE_CHECKING:
    import h5py

MAX_TEXT = 2**20
"""Largest text in bytes: a name, a path, the tags of the axes."""

MAX_MEMBERS = 100_000
"""Most members of a group: datasets, blocks of labels, trees."""


class Kind(NamedTuple):
    """What a file should be: for messages, with the error that they are raised as, and what the user does about damage."""

    name: str
    error: type[ForestbridgeError]
    remedy: str


class Node:
    """A group of an HDF5 file, with the file's name for messages."""

    def __init__(self, group: "h5py.Group", file: str, kind: Kind) -> None:
        self._group = group
        self.file = file
        self.kind = kind

    @property
    def name(self) -> str:
        """Path inside the file."""
        return str(self._group.name)

    @property
    def address(self) -> int:
        """Where it lies in the file: the same for two names of one group."""
        import h5py

        return int(h5py.h5o.get_info(self._group.id).addr)  # pyright: ignore[reportAttributeAccessIssue]  (compiled)

    def members(self, prefix: str = "") -> list[str]:
        """Return the names of the members that begin so, in the order of their names.

        Raises
        ------
        ForestbridgeError
            If there are more than `MAX_MEMBERS`.
        """
        if len(self._group) > MAX_MEMBERS:
            raise self.kind.error(
                f"{self.file}: expected at most {MAX_MEMBERS} members in {self.name}, found {len(self._group)}; the file is damaged"
            )
        return sorted(name for name in map(str, self._group) if name.startswith(prefix))

    def has(self, path: str) -> bool:
        """Whether there is a member of this path."""
        return self._find(path) is not None

    def is_link(self, name: str) -> bool:
        """Whether a member is a link to another place or file."""
        import h5py

        return not isinstance(self._group.get(name, getlink=True), h5py.HardLink)

    def is_group(self, path: str) -> bool:
        """Whether a member of this path is a group."""
        import h5py

        return isinstance(self._find(path), h5py.Group)

    def node(self, path: str) -> "Node | None":
        """Return a group, or None if there is none.

        Raises
        ------
        ForestbridgeError
            If it is a dataset, or a link.
        """
        import h5py

        found = self._find(path)
        if found is None:
            return None
        if not isinstance(found, h5py.Group):
            raise self._damaged(path, "a group", type(found).__name__.lower())
        return Node(found, self.file, self.kind)

    def dataset(self, path: str) -> "h5py.Dataset | None":
        """Return a dataset of this file's own numbers or texts, or None if there is none.

        Raises
        ------
        ForestbridgeError
            If it is a group or a link, or its values lie in another file.
        """
        import h5py

        found = self._find(path)
        if found is None:
            return None
        if not isinstance(found, h5py.Dataset):
            raise self._damaged(path, "a dataset", "a group")
        if found.is_virtual or found.external:
            raise self._damaged(path, "values inside the file", "a dataset whose values lie in another file")
        return found

    def text(self, path: str, default: str | None = None) -> str:
        """Return a text.

        Raises
        ------
        ForestbridgeError
            If there is none and no default, or it is no text.
        """
        dataset = self.dataset(path)
        if dataset is None:
            if default is None:
                raise self._damaged(path, "a text", "nothing")
            return default
        if dataset.shape != () or dataset.dtype.itemsize > MAX_TEXT:
            raise self._damaged(path, "one text", f"values of the shape {dataset.shape}")
        return self._decoded(path, self._read(path, dataset))

    def texts(self, path: str) -> list[str]:
        """Return a list of texts; empty if there is none.

        Raises
        ------
        ForestbridgeError
            If it is no list of texts.
        """
        dataset = self.dataset(path)
        if dataset is None:
            return []
        if len(dataset.shape) != 1 or int(dataset.size or 0) > MAX_MEMBERS or dataset.dtype.itemsize > MAX_TEXT:
            raise self._damaged(path, "a list of texts", f"values of the shape {dataset.shape}")
        if dataset.attrs.get("isEmpty", False):
            return []
        return [self._decoded(path, value) for value in self._read(path, dataset)]

    def array(self, path: str, *, kinds: str, ndim: int, most: int = 2**28) -> NDArray:
        """Return numbers.

        Parameters
        ----------
        kinds
            Kinds of numpy dtypes that will do: "iu", "f", "b".
        ndim
            Number of dimensions.
        most
            Largest number of values.

        Raises
        ------
        ForestbridgeError
            If there is nothing, or something else.
        """
        dataset = self.dataset(path)
        if dataset is None:
            raise self._damaged(path, f"numbers of {ndim} dimension(s)", "nothing")
        if dataset.dtype.kind not in kinds or len(dataset.shape) != ndim or int(dataset.size or 0) > most:
            found = f"{dataset.dtype} of the shape {dataset.shape}"
            raise self._damaged(path, f"at most {most} numbers of {ndim} dimension(s)", found)
        return self._read(path, dataset)

    def scalar(self, path: str, default: float | None = None) -> float:
        """Return one number, stored as such or as an array of one.

        Raises
        ------
        ForestbridgeError
            If it is none, or there is none and no default.
        """
        dataset = self.dataset(path)
        if dataset is None and default is not None:
            return default
        if dataset is None or dataset.size != 1 or dataset.dtype.kind not in "iufb":
            raise self._damaged(path, "one number", "nothing" if dataset is None else str(dataset.dtype))
        return float(np.asarray(self._read(path, dataset)).ravel()[0])

    def attribute_text(self, path: str, name: str) -> str | None:
        """Return a text beside a dataset or group; None if there is none, or it is something else."""
        found = self._find(path)
        value = None if found is None else found.attrs.get(name)
        if isinstance(value, np.void):
            value = value.tobytes()
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, str) else None

    def attribute_number(self, name: str, default: float) -> float:
        """Return a number beside this group; the default if there is none."""
        value = np.asarray(self._group.attrs.get(name, default))
        return float(value.ravel()[0]) if value.dtype.kind in "iuf" and value.size == 1 else default

    def attribute(self, name: str) -> str | float | None:
        """Return a text or a number beside this group; None if there is none, or it is something else."""
        value = self._group.attrs.get(name)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, str) or value is None:
            return value
        number = np.asarray(value)
        return number.ravel()[0].item() if number.dtype.kind in "iufb" and number.size == 1 else None

    def _find(self, path: str) -> Any:
        """Return what a path leads to without following a link."""
        import h5py

        found: Any = self._group
        for name in path.strip("/").split("/"):
            link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise self._damaged(path, "what the file holds itself", "a link to another place or file")
            try:
                found = found[name]
            except (KeyError, OSError, RuntimeError, ValueError) as error:
                raise self._damaged(path, "something readable", f"damage ({error})") from error
        return found

    def _read(self, path: str, dataset: "h5py.Dataset") -> Any:
        try:
            return dataset[()]
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise self._damaged(path, "readable values", f"damaged ones ({error})") from error

    def _decoded(self, path: str, value: Any) -> str:
        if isinstance(value, np.void):
            value = value.tobytes()
        if not isinstance(value, bytes | str):
            raise self._damaged(path, "a text", type(value).__name__)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def _damaged(self, path: str, expected: str, found: str) -> ForestbridgeError:
        place = shown(f"{self.name.rstrip('/')}/{path.strip('/')}")
        return self.kind.error(f"{self.file}: expected {expected} at {place}, found {found}; {self.kind.remedy}")


@contextmanager
def open_hdf5(path: Path, kind: Kind) -> Iterator[Node]:
    """Open an HDF5 file for reading.

    Raises
    ------
    ForestbridgeError
        The kind's, if it is missing or no HDF5 file, is cut off, or turns out to be damaged while it is open.
    """
    import h5py

    name = shown(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise kind.error(f"expected {kind.name}, found {found} at {name}; check the path")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise kind.error(
            f"{name}: expected {kind.name} (an HDF5 file), found a file that cannot be opened as such ({error}); copy it again"
        ) from error
    with file:
        try:
            yield Node(file, name, kind)
        except (
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
            KeyError,
        ) as error:  # what h5py raises in damaged structures
            raise kind.error(f"{name}: expected {kind.name}, found a damaged file ({error}); copy it again") from error
