"""Hostile packages by their zip: name → (what writes it, what the message must say)."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packages import build, good_files, members, write_zip

Maker = Callable[[Path], Any]
CASES: dict[str, tuple[Maker, str]] = {}


def case(match: str) -> Callable[[Maker], Maker]:
    """Name a hostile package after its function; `match` is what the message must say."""

    def add(maker: Maker) -> Maker:
        CASES[maker.__name__] = (maker, match)
        return maker

    return add


def patch(path: Path, old: bytes, new: bytes, *, last: bool = False) -> None:
    """Replace the first (or last) occurrence of some bytes by as many others."""
    data = path.read_bytes()
    assert len(old) == len(new)
    at = data.rindex(old) if last else data.index(old)
    path.write_bytes(data[:at] + new + data[at + len(old) :])


def with_member(path: Path, name: str, data: bytes = b"x", **attributes: int) -> None:
    """Write a good package with one more member, whose name is not checked by zipfile."""
    build(path)
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = entry.orig_filename = name
        for key, value in attributes.items():
            setattr(entry, key, value)
        archive.writestr(entry, data)


@case(r"expected a zip, found a file that does not begin like one")
def empty_file(path: Path) -> None:
    path.write_bytes(b"")


@case(r"expected a zip, found a file that does not begin like one")
def no_zip(path: Path) -> None:
    path.write_bytes(b"hello " * 100)


@case(r"truncated or followed by other bytes")
def truncated(path: Path) -> None:
    data = build(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


@case(r"truncated or followed by other bytes")
def bytes_behind_the_end(path: Path) -> None:
    path.write_bytes(build(path).read_bytes() + b"more")


@case(r"expected the zip's directory to end at byte 0, found its end at byte")
def comment(path: Path) -> None:
    build(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(18)


@case(r"does not begin like one")
def bytes_before_the_beginning(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" + build(path).read_bytes())


@case(r"expected the zip's directory to end at byte")
def second_zip_behind(path: Path) -> None:
    data = build(path).read_bytes()
    path.write_bytes(data + data)


@case(r"member 'README.md': expected intact data")
def bad_crc(path: Path) -> None:
    build(path)
    patch(path, b"# Nuclei\n", b"# Nuklei\n")


@case(r"'README.md': expected intact data, found: .*Error -3")
def bad_deflate(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members().items():
            archive.writestr(name, data)
        at = archive.getinfo("README.md").header_offset + 30 + len("README.md")
    data = path.read_bytes()
    path.write_bytes(data[:at] + b"\xff\xff\xff" + data[at + 3 :])


@case(r"member 'secret': expected no encryption")
def encrypted(path: Path) -> None:
    with_member(path, "secret")
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(signature) + flags] |= 1
    path.write_bytes(data)


@case(r"compression method 12")
def bzip2(path: Path) -> None:
    with_member(path, "a.txt", compress_type=zipfile.ZIP_BZIP2)


@case(r"compression method 14")
def lzma(path: Path) -> None:
    with_member(path, "a.txt", compress_type=zipfile.ZIP_LZMA)


@case(r"it is absolute")
def absolute_name(path: Path) -> None:
    with_member(path, "/etc/passwd")


@case(r"it has the part '\.\.'")
def slip(path: Path) -> None:
    with_member(path, "../../evil.py")


@case(r"it has a backslash")
def backslash(path: Path) -> None:
    with_member(path, "..\\evil.py")


@case(r"it has a colon")
def drive(path: Path) -> None:
    with_member(path, "C:evil.py")


@case(r"it has control characters")
def escape_sequence(path: Path) -> None:
    with_member(path, "a\x1b[2J.txt")


@case(r"it has control characters")
def right_to_left_name(path: Path) -> None:
    with_member(path, "a\u202eyp.txt")


@case(r"more than 255 characters")
def long_name(path: Path) -> None:
    with_member(path, "a" * 300)


@case(r"Windows cannot have the name 'aux\.txt'")
def windows_device(path: Path) -> None:
    with_member(path, "aux.txt")


@case(r"found a link or a device")
def symlink(path: Path) -> None:
    with_member(path, "link", b"/etc/passwd", external_attr=0o120777 << 16, create_system=3)


@case(r"expected every name once, found also 'README.md'")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def duplicate(path: Path) -> None:
    build(path)
    data = path.read_bytes().replace(b"cover.png", b"README.md")
    path.write_bytes(data)


@case(r"member 'readme.MD': expected every name once, found also 'README.md'")
def case_duplicate(path: Path) -> None:
    with_member(path, "readme.MD")


@case(r"'README.md': expected a file or a folder, found both")
def file_and_folder(path: Path) -> None:
    with_member(path, "README.md/evil.txt")


@case(r"'folder/': expected an empty folder entry, found 1 bytes")
def folder_with_data(path: Path) -> None:
    with_member(path, "folder/")


@case(r"at most 100 times its compressed size, found 16777216 bytes")
def bomb(path: Path) -> None:
    build(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**24))


@case(r"expected at most 1000 members .* found 1508")
def many_members(path: Path) -> None:
    write_zip(path, members(**{f"{n}.txt": b"" for n in range(1500)}) | {"last": b""})


@case(r"expected at most 4294967296 bytes per file and 17179869184 in all, found 4294967299")
def announces_too_much(path: Path) -> None:
    with_member(path, "a" * 20, b"x")
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    # a zip64 field in place of the last 16 letters of the name
    header = bytearray(data[at:])
    struct.pack_into("<I", header, 24, 2**32 - 1)
    struct.pack_into("<HH", header, 28, 8, 12)
    header[46 + 8 : 46 + 20] = struct.pack("<HHQ", 1, 8, 2**32 + 3)
    path.write_bytes(data[:at] + header)


@case(r"expected its header as the directory has it")
def size_lies(path: Path) -> None:
    build(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 7)
    path.write_bytes(data)


@case(r"'weights.pt': expected 30 bytes as announced, found 23|'weights.pt': expected intact data")
def stream_shorter_than_announced(path: Path) -> None:
    build(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, 30)
    struct.pack_into("<I", data, data.rindex(b"PK\x03\x04") + 22, 30)
    path.write_bytes(data)


@case(r"expected its header as the directory has it .*'README.md'.* found .*'readme.md'")
def header_names_another_file(path: Path) -> None:
    build(path)
    data = path.read_bytes()
    at = data.index(b"README.md# Nuclei")
    path.write_bytes(data[:at] + b"readme.md" + data[at + 9 :])


@case(r"'weights.pt': expected its header at byte")
def header_missing(path: Path) -> None:
    build(path)
    patch(path, b"PK\x03\x04", b"PKxx", last=True)


@case(
    r"expected its bytes after those of the member before, found an overlap|expected its header as the directory has it"
)
def overlap(path: Path) -> None:
    build(path, files={"b.txt": b"b", "c.txt": b"b"})
    data = bytearray(path.read_bytes())
    for name in (b"b.txt", b"c.txt"):
        at = data.rindex(name) - 46
        first = data.rindex(b"b.txt") - 46 if name == b"c.txt" else at
        struct.pack_into("<I", data, at + 42, struct.unpack_from("<I", data, first + 42)[0])
    path.write_bytes(data)


@case(r"expected the 9 members that the zip announces, found 7")
def wrong_count(path: Path) -> None:
    data = bytearray(build(path).read_bytes())
    struct.pack_into("<HH", data, len(data) - 14, 9, 9)
    path.write_bytes(data)


@case(r"found two in the zip that contradict each other")
def zip64_contradiction(path: Path) -> None:
    data = build(path).read_bytes()
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 46, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(data) - 22, 1)
    path.write_bytes(data[:-22] + record + locator + data[-22:])


@case(r"expected the zip64 directory inside of the file")
def zip64_outside(path: Path) -> None:
    data = build(path).read_bytes()
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**40, 1)
    path.write_bytes(data[:-22] + bytes(56) + locator + data[-22:])


@case(r"exactly one description, rdf.yaml, .* found none \(the zip holds: README.md, .*weights.pt\)")
def no_description(path: Path) -> None:
    write_zip(path, good_files())


@case(r"found model/rdf.yaml \(the zip holds: model/README.md")
def nested_folder(path: Path) -> None:
    write_zip(path, {f"model/{name}": data for name, data in members().items()})


@case(r"found model.yaml, rdf.yaml")
def two_descriptions(path: Path) -> None:
    write_zip(path, members(**{"model.yaml": b"a: 1"}))


@case(r"found RDF.YML, rdf.yaml")
def second_description_in_capitals(path: Path) -> None:
    write_zip(path, members(**{"RDF.YML": b"a: 1"}))


@case(r"expected a zip, found the folder")
def folder(path: Path) -> None:
    path.mkdir()


@case(r"expected a package at .*case.zip, found no such file; an id of bioimage.io is not looked up")
def not_there(path: Path) -> None:
    pass
