"""From an inspected package to its bytes and arrays, and the question whether its code may run."""

import hashlib
import re

from numpy.typing import NDArray

from forestbridge.archive.info import PackageInfo
from forestbridge.archive.members import LIMITS, open_archive, read_file
from forestbridge.archive.npy import read_array
from forestbridge.errors import PackageError, TrustError


def read_member(info: PackageInfo, name: str) -> bytes:
    """Return the bytes of a file of the package, after checking that they are those that were inspected.

    Raises
    ------
    PackageError
        If the package has no such file, or was changed since it was inspected.
    """
    known = next((member for member in info.files if member.name == name), None)
    if known is None:
        names = ", ".join(member.name for member in info.files)
        raise PackageError(
            f"{info.path}: expected one of the files {names}, found a question for {name!r}; check the name"
        )
    with open_archive(info.path) as (_, archive):
        entry = archive.NameToInfo.get(name)
        data = b"" if entry is None else read_file(archive, entry, info.path, most=min(known.bytes, LIMITS.file_bytes))
    found = hashlib.sha256(data).hexdigest()
    if entry is None or found != known.sha256:
        raise PackageError(
            f"{info.path}: expected {name} with the sha256 {known.sha256} that was inspected, found {found}; the "
            "file was changed "
            "meanwhile: open the package again"
        )
    return data


def load_tensor(info: PackageInfo, name: str) -> NDArray:
    """Return the array of a .npy file of the package, in the axis order of rdf.yaml, in this machine's byte order.

    Raises
    ------
    PackageError
        If there is no such file, or it holds anything but plain numbers of the length its header says.
    """
    return read_array(read_member(info, name), f"{info.path}: {name}")


def require_trust(info: PackageInfo, trust: str | None, *, weights: str | None = None) -> None:
    """Refuse to run code of a package that was not trusted by the hash of the whole file.

    Parameters
    ----------
    trust
        "sha256:" and 64 hexadecimal digits; None if nothing was said.
    weights
        The format that is going to run. A package with TorchScript and ONNX needs no trust to run as "onnx".
        None asks for all formats.

    Raises
    ------
    TrustError
        If the package carries code on this way and `trust` is not the hash of the file, or if the code is not in the
        file.
    """
    code = [c for c in info.code if weights is None or c.weights in (None, weights)]
    if not code:
        return
    reasons = "; ".join(map(str, code))
    wanted = f"sha256:{info.sha256}"
    if trust is None:
        raise TrustError(
            f"{info.path}: expected a package that is data only, found one that carries code ({reasons}); if you "
            "trust who gave "
            f"it to you, say so with: --trust {wanted}"
        )
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", trust):
        raise TrustError(
            f"expected --trust with sha256: and 64 hexadecimal digits, found {trust!r}; use --trust {wanted}"
        )
    if trust != wanted:
        raise TrustError(
            f"{info.path}: expected the file with the hash that was trusted, {trust}, found {wanted}; it is another "
            "file: look at "
            "where it came from before you trust it"
        )
    outside = [key for key in info.addresses if any(key.startswith((f"{c.key}.", f"{c.key}[")) for c in code)]
    if outside:
        raise TrustError(
            f"{info.path}: expected all code inside of the file, whose hash was trusted, found addresses at "
            f"{', '.join(outside)}; "
            "ask for a package that holds its files"
        )
