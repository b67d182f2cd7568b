"""The cache of weights: each file is read once as its authors wrote it, and then kept as safetensors, in which nothing can run.

weights/mobile_sam.pt                          downloaded, or put there by the user; removed when it has been converted
weights/mobile_sam-6dbb90523a35330f.safetensors   the encoder's part of it; named by its sha256, which also stands in the header
weights/pinned.json                            sha256 of files without a published one, as they came first
"""

import json
import logging
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from forestbridge.errors import MissingExtraError, ResourceError, WeightsError
from forestbridge.files import new_file
from forestbridge.weights.checkpoints import Checkpoint, checkpoint_of
from forestbridge.weights.download import Progress, check_file, download, file_sha256, refuse_web_page

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

Convert = Callable[[Any], "dict[str, Tensor]"]
"""From what a file holds to the tensors of the encoder; ValueError says why it is none."""

HASH = "source_sha256"
"""Key in the header of a converted file."""


class WeightsFile(NamedTuple):
    """Weights that are ready.

    Attributes
    ----------
    path
        A safetensors file in the cache.
    sha256
        Of the original file.
    """

    path: Path
    sha256: str


def weights_folder() -> Path:
    """Return the folder of all weights, in FORESTBRIDGE_CACHE or the user's own cache folder."""
    if os.environ.get("FORESTBRIDGE_CACHE"):
        return Path(os.environ["FORESTBRIDGE_CACHE"]) / "weights"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "forestbridge" / "weights"


def is_offline(offline: bool | None) -> bool:
    """Return what was asked for, and otherwise what FORESTBRIDGE_OFFLINE says."""
    return os.environ.get("FORESTBRIDGE_OFFLINE", "0") not in ("", "0") if offline is None else offline


def weights_file(
    name: str,
    file: str | Path | None = None,
    *,
    convert: Convert,
    sha256: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> WeightsFile:
    """Return the weights of an encoder, downloaded or converted if they were not yet.

    Parameters
    ----------
    name
        Of the encoder.
    file
        The user's own file; by default the published one.
    convert
        From what the file holds to the encoder's tensors.
    sha256
        Of the original file, if it must be this one.
    offline
        Whether nothing may be downloaded; by default as FORESTBRIDGE_OFFLINE says.
    progress
        Told of a download.

    Raises
    ------
    WeightsError
        If the file is damaged, a web page, or of another network.
    ResourceError
        If the file is not there and cannot be downloaded.
    """
    if file is not None:
        return _from_user(name, Path(file), convert, sha256)
    if sha256 is not None and (found := _converted(name, sha256)):
        return found
    checkpoint = checkpoint_of(name)
    expected = checkpoint.sha256 or _pinned().get(checkpoint.file)
    if sha256 is not None and expected is not None and sha256 != expected:
        raise ResourceError(
            f"expected the weights of {name} with sha256 {sha256}, found none in {weights_folder()}; they are not the published "
            f"ones: name the file once with: forestbridge encoders download {name} --weights FILE, or give it here: --weights FILE "
            "(weights=FILE)"
        )
    if expected is not None and (found := _converted(name, expected)):
        return found
    return _published(checkpoint, convert, sha256 or expected, offline=is_offline(offline), progress=progress)


def published_sha256(name: str) -> str | None:
    """Return the hash of an encoder's published weights: as its authors say, or as the file came the first time; None before."""
    checkpoint = checkpoint_of(name)
    return checkpoint.sha256 or _pinned().get(checkpoint.file)


def weights_status(name: str) -> WeightsFile | None:
    """Return an encoder's published weights if they are in the cache; reads no tensor and downloads nothing."""
    expected = published_sha256(name)
    return _converted(name, expected) if expected else None


def converted_weights(name: str) -> list[WeightsFile]:
    """Return all weights of an encoder that are in the cache, the newest first."""
    paths = sorted(weights_folder().glob(f"{name}-*.safetensors"), key=lambda p: -p.stat().st_mtime)
    return [WeightsFile(path, found) for path in paths if (found := _source_hash(path))]


def check_own_file(name: str, path: Path, *, sha256: str | None) -> str:
    """Return the hash of a user's own file; writes nothing.

    Raises
    ------
    WeightsError
        If it is a web page, or must be another file.
    ResourceError
        If it is not there.
    """
    if not path.is_file():
        raise ResourceError(f"expected a weight file at {path}, found none; check the path")
    refuse_web_page(path)
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path}: expected the weights of {name} with sha256 {sha256}, found {found}; give the file that the features were "
            "made with, or extract them again"
        )
    return found


def _from_user(name: str, path: Path, convert: Convert, sha256: str | None) -> WeightsFile:
    """Return the converted form of a user's own file."""
    found = check_own_file(name, path, sha256=sha256)
    return _converted(name, found) or _convert(name, path, found, convert)


def _published(
    checkpoint: Checkpoint, convert: Convert, sha256: str | None, *, offline: bool, progress: Progress | None
) -> WeightsFile:
    """Return the converted form of a published file, which may lie in the cache as it was published."""
    folder = _made_folder()
    path = folder / checkpoint.file
    if path.is_file():
        found = check_file(path, checkpoint, sha256=sha256)
    elif offline:
        raise ResourceError(
            f"expected the weights of {checkpoint.name}, found none in {folder}, and nothing is downloaded (offline, or "
            f"FORESTBRIDGE_OFFLINE is set); fetch {checkpoint.url} on another machine and put it there as {path}"
        )
    else:
        _log.info("downloading %s, %d MB, licence: %s", checkpoint.url, checkpoint.megabytes, checkpoint.licence)
        found = download(checkpoint, path, sha256=sha256, progress=progress)
    try:
        ready = _convert(checkpoint.name, path, found, convert)
    except WeightsError:
        path.unlink()
        raise
    if checkpoint.sha256 is None:
        _pin(checkpoint, found)
    path.unlink()
    return ready


def _converted(name: str, sha256: str) -> WeightsFile | None:
    path = _converted_path(name, sha256)
    return WeightsFile(path, sha256) if path.is_file() and _source_hash(path) == sha256 else None


def _converted_path(name: str, sha256: str) -> Path:
    return weights_folder() / f"{name}-{sha256[:16]}.safetensors"


def _source_hash(path: Path) -> str | None:
    """Return the hash in the header of a converted file; None if it is damaged, and then it is made again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get(HASH)
    except (SafetensorError, OSError):
        return None


def _convert(name: str, path: Path, sha256: str, convert: Convert) -> WeightsFile:
    """Read a file once, and keep the encoder's part of it as safetensors.

    Raises
    ------
    WeightsError
        If it cannot be read, or is of another network.
    """
    from safetensors.torch import save_file

    try:
        tensors = convert(read_checkpoint(path))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    _made_folder()
    target = _converted_path(name, sha256)
    with new_file(target, overwrite=True) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={HASH: sha256, "encoder": name})
    return WeightsFile(target, sha256)


def read_checkpoint(path: Path) -> Any:
    """Return what a file of torch or safetensors holds; nothing in it is run.

    Raises
    ------
    WeightsError
        If it is neither, is damaged, or holds other things than tensors and plain values.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("reading weights", "torch") from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(
                f"{path}: expected a safetensors file, found: {error}; copy or download it again"
            ) from error
    broken = (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        pickle.UnpicklingError,
    )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except broken as error:
        first = str(error).split("\n", maxsplit=1)[0][:200]
        raise WeightsError(
            f"{path}: expected a weight file that torch reads with weights_only, found one that is damaged, no weight file, or "
            f"carries code ({first}); download it again from where its authors published it"
        ) from error


def load_tensors(weights: WeightsFile) -> "dict[str, Tensor]":
    """Return the encoder's tensors under their official names, in float32.

    Raises
    ------
    WeightsError
        If the converted file is damaged; it is removed then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(weights.path)
    except SafetensorError as error:
        weights.path.unlink()
        raise WeightsError(
            f"{weights.path}: expected converted weights, found: {error}; it was removed: call again with the original file"
        ) from error


def _made_folder() -> Path:
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pinned() -> Mapping[str, str]:
    path = weights_folder() / "pinned.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _pin(checkpoint: Checkpoint, sha256: str) -> None:
    """Remember the hash of a file without a published one: the next time it must be the same."""
    _log.info("%s: trusted as it came for the first time, sha256 %s", checkpoint.file, sha256)
    with new_file(weights_folder() / "pinned.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(dict(_pinned()) | {checkpoint.file: sha256}, indent=2), encoding="utf-8")
