"""From a zip file to its members: names, sizes and hashes, with limits; nothing is written to disk.

The directory at the end of a zip, the header in front of each member and the data itself may contradict each other, and
programs differ in which of them they believe. A zip in which they do is refused, so that what is inspected here is what
every other program reads.
"""

import hashlib
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from forestbridge.errors import PackageError


@dataclass(frozen=True)
class Limits:
    """How much a package may hold; bytes unless said otherwise.

    Attributes
    ----------
    members
        Number of files and folders.
    directory_bytes
        The zip's own listing.
    file_bytes, total_bytes
        One file and all files, unpacked.
    ratio, ratio_floor
        A file larger than `ratio_floor` may be at most `ratio` times its compressed size.
    yaml_bytes, yaml_depth
        rdf.yaml: its size, and how deep lists and mappings may nest.
    """

    members: int = 1000
    directory_bytes: int = 2**20
    file_bytes: int = 4 * 2**30
    total_bytes: int = 16 * 2**30
    ratio: int = 100
    ratio_floor: int = 8 * 2**20
    yaml_bytes: int = 2**20
    yaml_depth: int = 32


LIMITS = Limits()
"""The largest encoders have 2.6 GB of weights, in two formats."""


@dataclass(frozen=True)
class Member:
    """A file in the zip.

    Attributes
    ----------
    name
        With "/" between folders.
    bytes, compressed
        Size unpacked and in the zip.
    sha256
        Of the unpacked bytes, computed.
    """

    name: str
    bytes: int
    compressed: int
    sha256: str


# What zipfile and zlib raise on damaged input, besides their own errors.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
CHUNK = 2**20
REMEDY = "get the package again from its source, or export it again"

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}


def name_fault(name: str) -> str | None:
    """Return why a file name may not stand in a package, None for a good one.

    Good names are relative, with "/" between folders, and mean the same file on every operating system.
    """
    if not name or len(name) > 255:
        return "it has no or more than 255 characters"
    if not name.isprintable():
        return "it has control characters"
    if "\\" in name:
        return "it has a backslash"
    if ":" in name:
        return "it has a colon (a drive or an address)"
    if name.startswith("/"):
        return "it is absolute"
    for part in name.removesuffix("/").split("/"):
        if part in ("", ".", ".."):
            return f"it has the part {part!r}"
        if part.endswith((".", " ")) or part.split(".")[0].casefold() in _WINDOWS_DEVICES:
            return f"Windows cannot have the name {part!r}"
    return None


@contextmanager
def open_archive(path: Path, limits: Limits = LIMITS) -> Iterator[tuple[BufferedReader, zipfile.ZipFile]]:
    """Open a zip and check its directory against the limits before anything else is read.

    Raises
    ------
    PackageError
        If the file cannot be opened, is no zip, or its directory is damaged, contradicts itself or passes a limit.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise PackageError(f"expected a package at {path}, found none that can be read ({error.strerror})") from error
    with file:
        entries = _count_entries(file, path, limits)
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise PackageError(f"{path}: expected a zip with an intact directory, found: {error}; {REMEDY}") from error
        with archive:
            if len(archive.infolist()) != entries:
                raise PackageError(
                    f"{path}: expected the {entries} members that the zip announces, found {len(archive.infolist())}; "
                    f"{REMEDY}"
                )
            yield file, archive


def _count_entries(file: BufferedReader, path: Path, limits: Limits) -> int:
    """Return the number of members that the end of the zip announces, without reading the directory."""
    size = file.seek(0, 2)
    file.seek(0)
    if size < 22 or file.read(4) != b"PK\x03\x04":
        raise PackageError(f"{path}: expected a zip, found a file that does not begin like one; {REMEDY}")
    file.seek(size - 22)
    end = file.read(22)
    if end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise PackageError(
            f"{path}: expected a zip that ends with its directory, found one that is truncated or followed by other "
            f"bytes; {REMEDY}"
        )
    entries, directory, offset = struct.unpack("<10xHII2x", end)
    end_position = size - 22
    if size >= 42 + 56 and (file.seek(size - 42), file.read(4))[1] == b"PK\x06\x07":
        (position,) = struct.unpack("<4xQ4x", file.read(16))
        if position + 56 > size:
            raise PackageError(
                f"{path}: expected the zip64 directory inside of the file, found it at {position}; {REMEDY}"
            )
        file.seek(position)
        record = file.read(56)
        long = struct.unpack("<24x8xQQQ", record)
        if record[:4] != b"PK\x06\x06" or any(
            a not in (b, top) for a, b, top in zip((entries, directory, offset), long, (0xFFFF, 2**32 - 1, 2**32 - 1))
        ):
            raise PackageError(
                f"{path}: expected one directory, found two in the zip that contradict each other; {REMEDY}"
            )
        entries, directory, offset = long
        end_position = position
    if offset + directory != end_position:
        raise PackageError(
            f"{path}: expected the zip's directory to end at byte {offset + directory}, found its end at byte "
            f"{end_position}; {REMEDY}"
        )
    if entries > limits.members or directory > limits.directory_bytes:
        raise PackageError(
            f"{path}: expected at most {limits.members} members listed in {limits.directory_bytes} bytes, found "
            f"{entries} "
            f"in {directory}; this is no package for people"
        )
    return entries


def list_files(
    file: BufferedReader, archive: zipfile.ZipFile, path: Path, limits: Limits = LIMITS
) -> list[zipfile.ZipInfo]:
    """Check every member of an open zip and return those that are files, in the order of their names.

    Raises
    ------
    PackageError
        If a member passes a limit, is encrypted, a link, compressed in an unusual way, has a name that is not the
        same file everywhere, comes twice, or contradicts its own header.
    """
    seen: dict[str, str] = {}
    total = 0
    for entry in archive.infolist():
        name = entry.orig_filename
        where = f"{path}: member {name!r}"
        if fault := name_fault(name):
            raise PackageError(f"{where}: expected a relative name inside of the zip, but {fault}; {REMEDY}")
        key = unicodedata.normalize("NFC", name.removesuffix("/")).casefold()
        if key in seen:
            raise PackageError(f"{where}: expected every name once, found also {seen[key]!r}; {REMEDY}")
        seen[key] = name
        if entry.flag_bits & 0x2041:
            raise PackageError(f"{where}: expected no encryption, found an encrypted member; ask for a package without")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackageError(f"{where}: expected a file, found a link or a device; {REMEDY}")
        if entry.compress_type not in METHODS:
            raise PackageError(
                f"{where}: expected it {' or '.join(METHODS.values())}, found compression method "
                f"{entry.compress_type}; "
                "zip the files again without special options"
            )
        if name.endswith("/") and entry.file_size:
            raise PackageError(f"{where}: expected an empty folder entry, found {entry.file_size} bytes; {REMEDY}")
        total += entry.file_size
        if entry.file_size > limits.file_bytes or total > limits.total_bytes:
            raise PackageError(
                f"{where}: expected at most {limits.file_bytes} bytes per file and {limits.total_bytes} in all, found "
                f"{entry.file_size} and {total}; leave data out of packages"
            )
        if entry.file_size > limits.ratio_floor and entry.file_size > limits.ratio * entry.compress_size:
            raise PackageError(
                f"{where}: expected at most {limits.ratio} times its compressed size, found {entry.file_size} bytes in "
                f"{entry.compress_size}; a zip bomb, or a constant array that should be stored uncompressed"
            )
    folders = {"/".join(key.split("/")[:n]) for key in seen for n in range(1, key.count("/") + 1)}
    if both := sorted(name for key, name in seen.items() if key in folders and not name.endswith("/")):
        raise PackageError(f"{path}: member {both[0]!r}: expected a file or a folder, found both; {REMEDY}")
    _check_headers(file, archive, path)
    return sorted((e for e in archive.infolist() if not e.is_dir()), key=lambda e: e.filename)


def _check_headers(file: BufferedReader, archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse members whose own header disagrees with the directory, or whose bytes overlap."""
    end = 0
    for entry in sorted(archive.infolist(), key=lambda e: e.header_offset):
        where = f"{path}: member {entry.orig_filename!r}"
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise PackageError(f"{where}: expected its header at byte {entry.header_offset}, found none; {REMEDY}")
        flags, method, crc, packed, unpacked, name_length, extra = struct.unpack("<6xHH4xIIIHH", header)
        try:
            name = file.read(name_length).decode("utf-8" if flags & 0x800 else "cp437")
        except UnicodeDecodeError as error:
            raise PackageError(f"{where}: expected its header to name it in UTF-8: {error}; {REMEDY}") from error
        listed = (entry.orig_filename, entry.compress_type, entry.flag_bits & 0x809)
        found = (name, method, flags & 0x809)
        if not flags & 8:  # bit 3: sizes and checksum follow the data, the header has zeros
            listed += (entry.CRC, entry.compress_size, entry.file_size)
            found += (
                crc,
                entry.compress_size if packed == 2**32 - 1 else packed,
                entry.file_size if unpacked == 2**32 - 1 else unpacked,
            )
        if listed != found:
            raise PackageError(
                f"{where}: expected its header as the directory has it {listed}, found {found}; {REMEDY}"
            )
        if entry.header_offset < end or (end == 0 and entry.header_offset):
            raise PackageError(
                f"{where}: expected its bytes after those of the member before, found an overlap; {REMEDY}"
            )
        end = entry.header_offset + 30 + name_length + extra + entry.compress_size
    if end > archive.start_dir:
        raise PackageError(f"{path}: expected the members before the directory, found an overlap; {REMEDY}")


def hash_file(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Member:
    """Read a member once, in pieces, and return its size and sha256.

    Raises
    ------
    PackageError
        If the data are damaged (checksum) or have another length than announced.
    """
    digest, length = hashlib.sha256(), 0
    try:
        with archive.open(entry) as stream:
            while piece := stream.read(CHUNK):
                digest.update(piece)
                length += len(piece)
    except ZIP_ERRORS as error:
        raise PackageError(
            f"{path}: member {entry.filename!r}: expected intact data, found: {error}; {REMEDY}"
        ) from error
    if length != entry.file_size:
        raise PackageError(
            f"{path}: member {entry.filename!r}: expected {entry.file_size} bytes as announced, found {length}; "
            f"{REMEDY}"
        )
    return Member(entry.filename, length, entry.compress_size, digest.hexdigest())


def read_file(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, *, most: int) -> bytes:
    """Return the bytes of a member that has at most `most` of them.

    Raises
    ------
    PackageError
        If it is larger, or damaged.
    """
    if entry.file_size > most:
        raise PackageError(
            f"{path}: member {entry.filename!r}: expected at most {most} bytes, found {entry.file_size}; {REMEDY}"
        )
    try:
        data = archive.read(entry)
    except ZIP_ERRORS as error:
        raise PackageError(
            f"{path}: member {entry.filename!r}: expected intact data, found: {error}; {REMEDY}"
        ) from error
    if len(data) != entry.file_size:
        raise PackageError(
            f"{path}: member {entry.filename!r}: expected {entry.file_size} bytes as announced, found {len(data)}; "
            f"{REMEDY}"
        )
    return data
