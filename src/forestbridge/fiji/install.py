"""The Fiji commands into a Fiji or ImageJ folder, out of it again, and onto an update site.

What is written: ``plugins/ForestBridge`` (macros, which every ImageJ from 1.53t on runs), in a Fiji also ``scripts/Plugins/ForestBridge``
(scripts for Appose and for Fiji's Python mode), ``lib/python.txt`` with the Python that forestbridge is installed in, and
``lib/installed.json`` with the version and a hash of each file, so that nothing else is ever removed or replaced.
"""

import gzip
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

from forestbridge.errors import OutputExistsError, ResourceError
from forestbridge.files import check_output, new_file

LIB = "plugins/ForestBridge/lib"
RECORD = f"{LIB}/installed.json"
CONFIGURATION = f"{LIB}/python.txt"

DTD = """<!DOCTYPE pluginRecords [
<!ELEMENT pluginRecords (plugin*)>
<!ELEMENT plugin (version?, previous-version*)>
<!ELEMENT version (description?, link*, author*)>
<!ELEMENT previous-version EMPTY>
<!ELEMENT description (#PCDATA)>
<!ELEMENT link (#PCDATA)>
<!ELEMENT author (#PCDATA)>
<!ATTLIST plugin filename CDATA #REQUIRED>
<!ATTLIST version timestamp CDATA #REQUIRED>
<!ATTLIST version checksum CDATA #REQUIRED>
<!ATTLIST version filesize CDATA #REQUIRED>
<!ATTLIST previous-version timestamp CDATA #REQUIRED>
<!ATTLIST previous-version timestamp-obsolete CDATA #IMPLIED>
<!ATTLIST previous-version checksum CDATA #REQUIRED>]>
"""


@dataclass(frozen=True)
class Installation:
    """What a Fiji folder has of forestbridge.

    Attributes
    ----------
    folder
        The Fiji or ImageJ folder.
    version
        Version of forestbridge that the commands came from; None if there are none.
    python
        The Python that they call, as `install` wrote it; None without.
    files
        Those that were installed, relative to the folder.
    missing, changed
        Those of them that are gone, or were changed since.
    """

    folder: Path
    version: str | None
    python: str | None
    files: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    def to_json_dict(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "fiji": str(self.folder),
            "version": self.version,
            "python": self.python,
            "files": list(self.files),
            "missing": list(self.missing),
            "changed": list(self.changed),
        }


def command_files(*, scripts: bool = True) -> dict[str, bytes]:
    """Return the content of each file of the commands, by its place in a Fiji folder.

    Parameters
    ----------
    scripts
        Whether to take those that need Fiji, not only ImageJ.
    """
    here = Path(str(files("forestbridge"))) / "fiji"
    found = {f"{LIB}/client.py": (here / "client.py").read_bytes()}
    for part in ("plugins", "scripts") if scripts else ("plugins",):
        for path in sorted((here / part).rglob("*")):
            if path.suffix in (".ijm", ".groovy", ".py"):
                found[path.relative_to(here).as_posix()] = path.read_bytes()
    return dict(sorted(found.items()))


def install(fiji: str | Path, *, python: str | Path | None = None, overwrite: bool = False) -> Installation:
    """Copy the commands into a Fiji or ImageJ folder, and tell them which Python to call.

    Parameters
    ----------
    fiji
        The folder that has ``plugins`` in it.
    python
        Path of a Python with forestbridge; this one by default.
    overwrite
        Whether to replace files of these names that we did not write, or that were changed since.

    Raises
    ------
    ResourceError
        If it is no such folder, it cannot be written, or there is no such Python.
    OutputExistsError
        If files of these names are there that we did not write.
    """
    folder = check_fiji(fiji)
    python = Path(os.path.abspath(python or sys.executable))  # noqa: PTH100  (a link to the Python of an environment must stay one)
    if not python.is_file():
        raise ResourceError(f"expected a Python at {python}, found none; give its path with --python")
    content = command_files(scripts=is_fiji(folder))
    before = read_installation(folder)
    strange = [name for name in content if (folder / name).exists() and name not in before.files]
    if not overwrite and (refused := [*strange, *before.changed]):
        raise OutputExistsError(
            f"expected only files of ours in {folder}, found {', '.join(refused)} made or changed by somebody else; save "
            "them elsewhere, then give --overwrite"
        )
    for name in set(before.files) - set(content):
        (folder / name).unlink(missing_ok=True)  # commands of an older version that are no more
    content[CONFIGURATION] = f"{python}\n".encode()
    for name, data in content.items():
        _write(folder / name, data)
    _write(folder / RECORD, _record(content))
    return read_installation(folder)


def uninstall(fiji: str | Path) -> Installation:
    """Remove what `install` wrote; files that were changed since stay. Returns what was there.

    Raises
    ------
    ResourceError
        If it is no Fiji folder, or has no commands of ours.
    """
    folder = check_fiji(fiji)
    before = read_installation(folder)
    if before.version is None:
        raise ResourceError(f"expected commands of forestbridge in {folder}, found none; nothing is removed")
    for name in before.files:
        if name not in before.changed:
            (folder / name).unlink(missing_ok=True)
    (folder / RECORD).unlink()
    for path in (folder / LIB, (folder / LIB).parent, folder / "scripts" / "Plugins" / "ForestBridge"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return before


def read_installation(fiji: str | Path) -> Installation:
    """Return what a Fiji folder has of forestbridge.

    Raises
    ------
    ResourceError
        If it is no Fiji folder, or the record of the files is damaged.
    """
    folder = check_fiji(fiji)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made_by, hashes = str(record["version"]), dict(record["files"])
    except FileNotFoundError:
        return Installation(folder, None, None, (), (), ())
    except (ValueError, KeyError, TypeError) as error:
        raise ResourceError(
            f"expected the record of installed files in {folder / RECORD}, found a damaged one ({error}); remove "
            f"{folder / LIB} and install again"
        ) from error
    there = {name: folder / name for name in hashes if (folder / name).is_file()}
    changed = tuple(name for name, path in there.items() if _sha256(path.read_bytes()) != hashes[name])
    missing = tuple(name for name in hashes if name not in there)
    python = there[CONFIGURATION].read_text(encoding="utf-8").strip() if CONFIGURATION in there else None
    return Installation(folder, made_by, python, tuple(hashes), missing, changed)


def check_fiji(fiji: str | Path) -> Path:
    """Return the folder, after a look whether it is one of Fiji or ImageJ.

    Raises
    ------
    ResourceError
        If it is not.
    """
    folder = Path(fiji)
    if not folder.is_dir():
        raise ResourceError(
            f"expected the folder of a Fiji or ImageJ, found none at {folder}; give the folder with plugins in it"
        )
    inside = next(
        (p for p in (folder, folder / "Fiji.app", folder / "Fiji", folder / "ImageJ") if (p / "plugins").is_dir()), None
    )
    if inside is None:
        raise ResourceError(
            f"expected the folder of a Fiji or ImageJ, with a folder plugins in it, found {folder} without; give the folder that has it"
        )
    return inside


def is_fiji(folder: Path) -> bool:
    """Whether a folder is one of Fiji, which has its libraries in jars, not only of ImageJ."""
    return (folder / "jars").is_dir()


def write_update_site(site: str | Path) -> list[str]:
    """Write the folder that an ImageJ update site serves, or bring it up to date. Returns the files that are new in it.

    Files that the folder's index names in an older version become previous versions, by which the updater knows that a user's
    file is old and not changed.

    Parameters
    ----------
    site
        A folder; made if it is not there.

    Raises
    ------
    ResourceError
        If the folder cannot be written, or has an index that cannot be read.

    References
    ----------
    imagej-updater: XMLFileWriter, UpdaterUtil.getDigest (SHA-1 over the name, then the content)
    """
    folder = Path(site)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "db.xml.gz"
    check_output(index, overwrite=True)
    old = _read_index(index)
    now = _now()
    root, new = ElementTree.Element("pluginRecords"), []
    content = command_files()
    for name in sorted({*content, *old}):
        current, previous = old.get(name, (None, []))
        plugin = ElementTree.SubElement(root, "plugin", filename=name)
        checksum = hashlib.sha1(name.encode() + content[name]).hexdigest() if name in content else None
        if current is not None and current[0] != checksum:
            previous = [current, *previous]
        if checksum is not None:
            stamp = current[1] if current is not None and current[0] == checksum else now
            if current is None or current[0] != checksum:
                _write(folder / f"{name}-{stamp}", content[name])
                new.append(name)
            facts = {"checksum": checksum, "timestamp": stamp, "filesize": str(len(content[name]))}
            ElementTree.SubElement(plugin, "version", facts)
        for old_checksum, stamp in previous:
            facts = {"timestamp": stamp, "timestamp-obsolete": now, "checksum": old_checksum}
            ElementTree.SubElement(plugin, "previous-version", facts)
    ElementTree.indent(root)
    text = '<?xml version="1.0" encoding="UTF-8"?>\n' + DTD + ElementTree.tostring(root, encoding="unicode") + "\n"
    with new_file(index, overwrite=True) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
    return new


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S")


Version = tuple[str, str]
"""(checksum, timestamp) of a file on an update site."""


def _read_index(index: Path) -> dict[str, tuple[Version | None, list[Version]]]:
    """Return for each file the version that is served, if any, and the older ones."""
    if not index.exists():
        return {}
    try:
        root = ElementTree.fromstring(gzip.decompress(index.read_bytes()))
        found = {}
        for plugin in root.iter("plugin"):
            current = [_version(e) for e in plugin.findall("version")]
            previous = [_version(e) for e in plugin.findall("previous-version")]
            found[plugin.attrib["filename"]] = (current[0] if current else None, previous)
        return found
    except (OSError, EOFError, KeyError, ElementTree.ParseError) as error:
        raise ResourceError(
            f"expected the index of an update site in {index}, found a file that cannot be read ({error}); give an empty folder"
        ) from error


def _version(element: ElementTree.Element) -> Version:
    return element.attrib["checksum"], element.attrib["timestamp"]


def _record(content: dict[str, bytes]) -> bytes:
    hashes = {name: _sha256(data) for name, data in content.items()}
    return (json.dumps({"version": version("forestbridge"), "files": hashes}, indent=1) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, overwrite=True) as temporary:
            temporary.write_bytes(data)
    except PermissionError as error:
        raise ResourceError(
            f"expected to write {path}, found no permission ({error.strerror}); run it as the user who installed Fiji"
        ) from error
