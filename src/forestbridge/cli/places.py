"""Where outputs go: one file, or a folder with one for each input; refused before anything is computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from forestbridge.errors import ImageError, OutputExistsError
from forestbridge.files import check_output
from forestbridge.image import base_name, check_distinct_names, is_image_folder, is_named_like_image
from forestbridge.image.hdf5 import split_internal
from forestbridge.image.source import shown
from forestbridge.image.writers import result_format

FILES = (".tif", ".tiff", ".zarr", ".h5", ".hdf5", ".npy", ".nrrd", ".png")
"""An output named so is one file (or one .zarr), whatever is there."""


def files_of(sources: Sequence[Path], match: str | None) -> list[Path]:
    """Return the sources, with the images in it in place of each plain folder, in the order of their names.

    Parameters
    ----------
    match
        Pattern of the names to take from folders, such as "*_DAPI.tif"; by default all that are named like images.

    Raises
    ------
    ImageError
        If a folder has no such file.
    ValueError
        If a pattern is given and no folder.
    """
    folders = [path for path in sources if path.is_dir() and not is_image_folder(path)]
    if match is not None and not folders:
        raise ValueError(
            f"expected --match with a folder of images, found {', '.join(map(shown, sources))}; leave it out"
        )
    found: list[Path] = []
    for path in sources:
        inside = sorted(p for p in path.iterdir() if _is_match(p, match)) if path in folders else [path]
        if not inside:
            wanted = "images" if match is None else f"images named {match}"
            raise ImageError(
                f"expected {wanted} in the folder {shown(path)}, found none; check the folder, or give --match"
            )
        found += inside
    return found


def _is_match(path: Path, match: str | None) -> bool:
    if path.name.startswith(".") or (path.is_dir() and not is_image_folder(path)):
        return False
    return is_named_like_image(path) if match is None else fnmatch(path.name, match)


class Places(NamedTuple):
    """The output of each input, and the folder they lie in; None where the one output was named itself."""

    paths: list[Path]
    folder: Path | None


def places_for(sources: Sequence[Path], output: Path, suffix: str, *, in_folder: bool = False) -> Places:
    """Return `output` itself for one source, a file in the folder `output` for several, or where that folder is there.

    Parameters
    ----------
    in_folder
        Whether `output` is a folder for one source, too.

    Raises
    ------
    ImageError
        If two sources would give an output of the same name.
    ValueError
        If `output` must be a folder and is a file, or is named like one.
    """
    named_as_file = output.suffix.lower() in FILES
    if len(sources) == 1 and not in_folder and (named_as_file or not output.is_dir()):
        return Places([output], None)
    if named_as_file or (output.exists() and not output.is_dir()):
        raise ValueError(
            f"expected a folder for the outputs of {len(sources)} inputs, found the file name {shown(output)}; "
            "give a folder with -o, it is made if it is not there"
        )
    check_distinct_names(sources)
    return Places([output / f"{base_name(path)}{suffix}" for path in sources], output)


def result_places(
    files: Sequence[Path],
    output: Path,
    suffix: str,
    *,
    in_folder: bool,
    format: str | None,
    overwrite: bool,
    beside: Sequence[Path] = (),
) -> Places:
    """Return `places_for` files whose results are images, checked: the places as `check_places` does, and that there is such a format.

    Parameters
    ----------
    beside
        Other inputs, which no result may replace.
    """
    places = places_for(files, output, suffix, in_folder=in_folder)
    check_places([*files, *beside], places, overwrite=overwrite)
    for place in places.paths:
        result_format(place, format)
    return places


def check_places(sources: Sequence[Path], places: Places, *, overwrite: bool) -> None:
    """Refuse outputs that are there already, that are inputs, or whose folder cannot be written.

    Raises
    ------
    OutputExistsError
        With all outputs that exist, unless `overwrite`.
    ResourceError
        If the folder does not exist or is not writable.
    ValueError
        If an output is one of the inputs.
    """
    inputs = {Path(split_internal(path)[0]).resolve() for path in sources}
    if same := [shown(place) for place in places.paths if place.resolve() in inputs]:
        raise ValueError(
            f"expected outputs apart from the inputs, found that {', '.join(same)} is both; give another name with -o"
        )
    if places.folder is None:
        check_output(places.paths[0], overwrite=overwrite)
        return
    there = [shown(place) for place in places.paths if place.exists()]
    if there and not overwrite:
        raise OutputExistsError(
            f"expected new outputs, found {len(there)} that exist: {', '.join(there)}; give another folder or --overwrite"
        )
    check_output(places.paths[0] if places.folder.is_dir() else places.folder, overwrite=True)


@contextmanager
def made_folder(folder: Path | None) -> Iterator[None]:
    """Make the folder of several outputs; if it was made here and nothing came into it, take it away again."""
    if folder is None or folder.is_dir():
        yield
        return
    folder.mkdir()
    try:
        yield
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()
