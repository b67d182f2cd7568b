"""Rules about the words of rdf.yaml: versions, names, covers, licence, ids."""

import re
from collections.abc import Iterator
from typing import Any

from forestbridge.archive import PackageInfo
from forestbridge.consumers.rules import GRAPHICAL, OLD_SPEC, SPEC, Finding

NEWEST = (0, 5, 10)
"""Newest format version that every program reads."""


def text_findings(info: PackageInfo) -> Iterator[Finding]:
    """Yield the findings about versions, names, covers, licence and ids."""
    yield from _version(info)
    yield from _plain_text(info)
    yield from _required(info)
    yield from _ids(info)
    yield from _wishes(info)


def _version(info: PackageInfo) -> Iterator[Finding]:
    version = tuple(int(part) for part in info.format_version.split("."))
    if version > NEWEST:
        text = f"format_version: {info.format_version} is newer than 0.5.10, the newest it reads; write 0.5.9"
        yield Finding((*GRAPHICAL, "bioimage.io"), text)
        if isinstance(info.rdf.get("documentation"), str) or _plain_covers(info):
            text = f"format_version: {info.format_version} needs covers and documentation as mappings; write 0.5.9"
            yield Finding(("Python",), text)
    elif version == (0, 5, 0):
        yield Finding(("QuPath",), "format_version: QuPath takes 0.5.0 for format 0.4; write 0.5.9")


def _plain_covers(info: PackageInfo) -> bool:
    return any(isinstance(cover, str) for cover in info.rdf.get("covers") or ())


def _plain_text(info: PackageInfo) -> Iterator[Finding]:
    if any(not isinstance(cover, str) for cover in info.rdf.get("covers") or ()):
        yield Finding(OLD_SPEC, "covers: expected plain file names, found mappings; write each cover as its name only")
    if isinstance(info.rdf.get("documentation"), dict):
        text = "documentation: expected a plain file name, found a mapping; write the file's name only"
        yield Finding((*GRAPHICAL, "bioimage.io"), text)
    if isinstance(info.rdf.get("license"), dict):
        text = "license: expected the name of a licence (CC-BY-4.0), found a mapping; write a name of the SPDX list"
        yield Finding((*GRAPHICAL, "bioimage.io"), text)


def _required(info: PackageInfo) -> Iterator[Finding]:
    for key in ("authors", "description", "documentation", "license"):
        if not info.rdf.get(key):
            yield Finding(("QuPath", "bioimage.io"), f"{key}: expected it, found nothing; fill it in")
    if not re.fullmatch(r"[A-Za-z0-9_+\- ()]{5,128}", info.name):
        text = (
            f"name: expected 5 to 128 of the characters A-Z a-z 0-9 _ + - ( ) and space, found {info.name!r}; choose "
            "another name"
        )
        yield Finding(SPEC, text)
    if len(info.description) > 1024:
        text = f"description: expected at most 1024 characters, found {len(info.description)}; shorten it"
        yield Finding(SPEC, text)


def _ids(info: PackageInfo) -> Iterator[Finding]:
    nickname = _nickname(info)
    if not info.id and "config" in info.rdf and not nickname:
        # JDLL then looks for an id that is not there: NullPointerException
        yield Finding(
            ("deepImageJ",), "id: expected an id, since config has no bioimageio.nickname, found neither; write id"
        )
    elif "config" in info.rdf and not nickname:
        text = (
            "config.bioimageio.nickname: some versions look for it where config is present; write the id there as well"
        )
        yield Finding(("deepImageJ",), text, note=True)
    elif not info.id:
        yield Finding(("deepImageJ",), "id: without one it shows a name of its own making; write id", note=True)


def _nickname(info: PackageInfo) -> Any:
    config = info.rdf.get("config")
    section = config.get("bioimageio") if isinstance(config, dict) else None
    return section.get("nickname") if isinstance(section, dict) else None


def _wishes(info: PackageInfo) -> Iterator[Finding]:
    if not info.rdf.get("covers"):
        yield Finding(("bioimage.io",), "covers: reviewers expect a picture of at most 500 kB; add one", note=True)
    if any(tensor.sample is None for tensor in info.inputs + info.outputs):
        text = "sample_tensor: reviewers expect a sample image for each input and output; add TIFF files"
        yield Finding(("bioimage.io",), text, note=True)
    people = [
        person for key in ("authors", "maintainers") if isinstance(info.rdf.get(key), list) for person in info.rdf[key]
    ]
    if not any(isinstance(person, dict) and person.get("github_user") for person in people):
        text = "authors: reviewers expect one author or maintainer with a github_user; add it before you upload"
        yield Finding(("bioimage.io",), text, note=True)
