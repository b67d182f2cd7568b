"""From a package to everything that can be known without running it: `inspect_package`."""

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from forestbridge.archive.description import Description, parse_description
from forestbridge.archive.members import LIMITS, Limits, Member, hash_file, list_files, open_archive, read_file
from forestbridge.archive.npy import HEADER_BYTES, read_header
from forestbridge.archive.onnx_graph import OnnxFacts, onnx_facts
from forestbridge.archive.references import PROGRAM_SUFFIXES, Code, Reference, find_code, find_references
from forestbridge.archive.tensors import TensorInfo, read_tensors
from forestbridge.errors import PackageError
from forestbridge.spec import EncoderSpec

PACKAGE_FORMAT = 1
"""Number of what stands under ``config.forestbridge``; raised when a key there changes its meaning."""

KINDS = ("fused", "encoder", "forest")

_RDF_NAMES = re.compile(r"(.*[./])?(rdf|bioimageio|model)\.ya?ml", re.IGNORECASE)
_ONNX_BYTES = 2**31 - 1  # what protobuf can hold


@dataclass(frozen=True)
class WeightsInfo:
    """One weights format of a package.

    Attributes
    ----------
    format
        As rdf.yaml names it: "onnx", "torchscript", ...
    source
        The member of the zip; the address where the weights are not in it.
    bytes, sha256
        Of the member; None for an address.
    declared_sha256
        What rdf.yaml says; None where it says nothing.
    parent
        Format that these weights were converted from; None for the original.
    details
        The other keys of the entry: ``opset_version``, ``pytorch_version``, ...
    """

    format: str
    source: str
    bytes: int | None
    sha256: str | None
    declared_sha256: str | None
    parent: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True)
class PackageInfo:
    """What a package is, found without running it.

    Attributes
    ----------
    path, bytes, sha256
        Of the zip.
    format_version, id, name, description, authors, license
        As rdf.yaml says; None or empty where it does not.
    kind
        What forestbridge wrote it as; "foreign" for packages of other programs.
    weights
        Every weights format.
    inputs, outputs
        Axes, dtype and steps.
    metadata
        ``config.forestbridge`` as it stands.
    spec
        The encoder's spec, where the metadata have it.
    code
        Every place where running the package would execute code.
    files
        Every file of the zip with size and computed sha256.
    hashes
        Every file that rdf.yaml names, with its sha256; equal to the declared one where there is one.
    undeclared
        Those whose sha256 rdf.yaml does not declare.
    addresses
        Every address among the file references, by key; never opened.
    warnings
        What is allowed and still worth a look.
    rdf
        The whole description as plain values.
    onnx
        Facts of the ONNX file, where there is one in the zip.
    """

    path: Path
    bytes: int
    sha256: str
    format_version: str
    id: str | None
    name: str
    description: str
    authors: tuple[str, ...]
    license: str | None
    kind: Literal["fused", "encoder", "forest", "foreign"]
    weights: tuple[WeightsInfo, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, Any]
    spec: EncoderSpec | None
    code: tuple[Code, ...]
    files: tuple[Member, ...]
    hashes: Mapping[str, str]
    undeclared: tuple[str, ...]
    addresses: Mapping[str, str]
    warnings: tuple[str, ...]
    rdf: Mapping[str, Any]
    onnx: OnnxFacts | None

    @property
    def carries_code(self) -> bool:
        """Whether some way of running the package executes code that it brings."""
        return bool(self.code)

    def weights_of(self, format: str) -> WeightsInfo | None:
        """Return the entry of a weights format, None where the package has none."""
        return next((entry for entry in self.weights if entry.format == format), None)

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything but the raw description as JSON values."""
        document = {key: value for key, value in asdict(self).items() if key not in ("rdf", "spec")}
        document |= {
            "path": str(self.path),
            "carries_code": self.carries_code,
            "code": [str(code) for code in self.code],
            "spec": None if self.spec is None else json.loads(self.spec.to_json()),
            "fingerprint": None if self.spec is None else self.spec.fingerprint(),
        }
        return _json_values(document)


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def inspect_package(path: Path | str, *, limits: Limits = LIMITS) -> PackageInfo:
    """Read everything about a package that can be known without running it.

    Nothing is executed, no network is opened and nothing is written. Every byte of the zip is read once and hashed.

    Raises
    ------
    PackageError
        If the zip is damaged or passes a limit, if its description is missing, damaged or contradicts the files, or if
        its
        ONNX file is not standard ONNX in one file. The message names file, line and key.
    """
    path = _local_path(path)
    with open_archive(path, limits) as (file, archive):
        entries = list_files(file, archive, path, limits)
        rdf = _find_rdf(entries, path)
        text = read_file(archive, rdf, path, most=limits.yaml_bytes)
        description = parse_description(text, source=f"{path}: rdf.yaml", limits=limits)
        _check_head(description)
        inputs, outputs = read_tensors(description)
        references, addresses = find_references(description)
        members = {entry.filename: hash_file(archive, entry, path) for entry in entries}
        _check_references(description, references, members)
        _check_tensor_files(archive, inputs + outputs, path)
        weights = _read_weights(description, references, members)
        facts = _onnx_facts(archive, weights, path)
        size, digest = _hash_whole(file)
    metadata, kind, spec = _own_metadata(description)
    code = find_code(description)
    hashes = {reference.name: members[reference.name].sha256 for reference in references}
    declared = {reference.name for reference in references if reference.sha256 is not None}
    return PackageInfo(
        path=path,
        bytes=size,
        sha256=digest,
        format_version=description.data["format_version"],
        id=description.get("id", kind=str),
        name=description.need("name", kind=str),
        description=description.get("description", kind=str, default=""),
        authors=_authors(description),
        license=_license(description),
        kind=kind,
        weights=weights,
        inputs=inputs,
        outputs=outputs,
        metadata=metadata,
        spec=spec,
        code=code,
        files=tuple(members.values()),
        hashes=hashes,
        undeclared=tuple(name for name in hashes if name not in declared),
        addresses=addresses,
        warnings=_warnings(inputs + outputs, weights, members, references, addresses),
        rdf=description.data,
        onnx=facts,
    )


def _local_path(path: Path | str) -> Path:
    text = str(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise PackageError(
            f"expected a package on this machine, found the address {text}; packages are only read offline: download "
            "it and "
            "give the file"
        )
    path = Path(path)
    if not path.exists():
        raise PackageError(
            f"expected a package at {path}, found no such file; an id of bioimage.io is not looked up, since "
            "packages are only "
            "read offline: download the package and give the file"
        )
    if path.is_dir():
        raise PackageError(f"expected a zip, found the folder {path}; zip its content, with rdf.yaml at the top")
    return path


def _find_rdf(entries: list[zipfile.ZipInfo], path: Path) -> zipfile.ZipInfo:
    found = [entry for entry in entries if _RDF_NAMES.fullmatch(entry.filename)]
    if [entry.filename for entry in found] != ["rdf.yaml"]:
        names = ", ".join(entry.filename for entry in found) or "none"
        listing = ", ".join(entry.filename for entry in entries[:20]) + (", ..." if len(entries) > 20 else "")
        raise PackageError(
            f"{path}: expected exactly one description, rdf.yaml, at the top of the zip, found {names} (the zip holds: "
            f"{listing or 'nothing'}); zip the files themselves, not their folder, with one rdf.yaml"
        )
    return found[0]


def _check_head(description: Description) -> None:
    version = description.need("format_version", kind=str)
    if not re.fullmatch(r"0\.[45]\.[0-9]{1,4}", version):
        raise description.fault(
            ("format_version",), "0.4.x or 0.5.x", repr(version), "update forestbridge, or export it again"
        )
    if (kind := description.need("type", kind=str)) != "model":
        raise description.fault(("type",), "'model'", repr(kind), "give a package that holds a model")


def _check_references(description: Description, references: tuple[Reference, ...], members: dict[str, Member]) -> None:
    for reference in references:
        if reference.name not in members:
            raise description.fault(
                reference.key,
                "a file in the zip",
                f"{reference.name}, which is not in it (it holds {', '.join(list(members)[:20])})",
                "add the file, or export the package again",
            )
        actual = members[reference.name].sha256
        if reference.sha256 is not None and reference.sha256 != actual:
            raise description.fault(
                reference.key,
                f"{reference.name} with the sha256 {reference.sha256}",
                actual,
                "the file was changed after the export: get the package again, or export it again",
            )


def _check_tensor_files(archive: zipfile.ZipFile, tensors: tuple[TensorInfo, ...], path: Path) -> None:
    for name in dict.fromkeys(tensor.test for tensor in tensors if tensor.test is not None):
        if name in archive.NameToInfo:  # else it is an address
            with archive.open(name) as stream:
                read_header(stream.read(HEADER_BYTES), archive.getinfo(name).file_size, f"{path}: {name}")


def _read_weights(
    description: Description, references: tuple[Reference, ...], members: dict[str, Member]
) -> tuple[WeightsInfo, ...]:
    by_key = {reference.key: reference for reference in references}
    weights = []
    for name, entry in description.need("weights", kind=dict).items():
        description.need("weights", name, kind=dict)
        source = description.need("weights", name, "source", kind=str)
        reference = by_key.get(("weights", name, "source"))
        member = None if reference is None else members[reference.name]
        weights.append(
            WeightsInfo(
                format=name,
                source=source if reference is None else reference.name,
                bytes=None if member is None else member.bytes,
                sha256=None if member is None else member.sha256,
                declared_sha256=description.get("weights", name, "sha256", kind=str),
                parent=description.get("weights", name, "parent", kind=str),
                details={k: v for k, v in entry.items() if k not in ("source", "sha256", "parent")},
            )
        )
    return tuple(weights)


def _onnx_facts(archive: zipfile.ZipFile, weights: tuple[WeightsInfo, ...], path: Path) -> OnnxFacts | None:
    entry = next((entry for entry in weights if entry.format == "onnx" and entry.sha256 is not None), None)
    if entry is None:
        return None
    data = read_file(archive, archive.getinfo(entry.source), path, most=_ONNX_BYTES)
    try:
        return onnx_facts(data)
    except PackageError as error:
        raise PackageError(f"{path}: {entry.source}: {error}") from error


def _hash_whole(file: BufferedReader) -> tuple[int, str]:
    size = file.seek(0, 2)
    file.seek(0)
    return size, hashlib.file_digest(file, "sha256").hexdigest()


def _own_metadata(
    description: Description,
) -> tuple[dict[str, Any], Literal["fused", "encoder", "forest", "foreign"], EncoderSpec | None]:
    metadata = description.get("config", "forestbridge", kind=dict)
    if metadata is None:
        return {}, "foreign", None
    number = description.need("config", "forestbridge", "format", kind=int)
    if number != PACKAGE_FORMAT:
        raise description.fault(
            ("config", "forestbridge", "format"), str(PACKAGE_FORMAT), str(number), "update forestbridge"
        )
    kind = description.need("config", "forestbridge", "kind", kind=str)
    if kind not in KINDS:
        raise description.fault(
            ("config", "forestbridge", "kind"), " or ".join(KINDS), repr(kind), "update forestbridge"
        )
    written = metadata.get("spec")
    if written is None:
        return metadata, kind, None
    try:
        spec = EncoderSpec.from_json(written if isinstance(written, str) else json.dumps(written))
        spec.to_json()  # refuses values that JSON does not have
    except (ValueError, AttributeError) as error:
        raise description.fault(("config", "forestbridge", "spec"), "an encoder's spec", str(error)) from error
    stated = description.get("config", "forestbridge", "fingerprint", kind=str, default=spec.fingerprint())
    if stated != spec.fingerprint():
        key = ("config", "forestbridge", "fingerprint")
        raise description.fault(key, f"that of the spec, {spec.fingerprint()}", repr(stated))
    return metadata, kind, spec


def _authors(description: Description) -> tuple[str, ...]:
    count = len(description.get("authors", kind=list, default=[]))
    return tuple(description.need("authors", n, "name", kind=str) for n in range(count))


def _license(description: Description) -> str | None:
    value = description.get("license", kind=object)
    if isinstance(value, dict):
        return description.need("license", "source", kind=str)
    return description.get("license", kind=str)


def _warnings(
    tensors: tuple[TensorInfo, ...],
    weights: tuple[WeightsInfo, ...],
    members: dict[str, Member],
    references: tuple[Reference, ...],
    addresses: dict[str, str],
) -> tuple[str, ...]:
    found = [
        f"{tensor.id}: no test tensor, so its numbers cannot be checked" for tensor in tensors if tensor.test is None
    ]
    found += [f"weights.{w.format}: the file is not in the zip but at {w.source}" for w in weights if w.bytes is None]
    found += [
        f"{key} is an address and was not opened: {address}"
        for key, address in addresses.items()
        if "weights" not in key
    ]
    named = {reference.name for reference in references} | {"rdf.yaml"}
    if programs := [name for name in members if name.lower().endswith(PROGRAM_SUFFIXES)]:
        found.append(f"files that other programs could run: {', '.join(programs)}")
    if spare := [name for name in members if name not in named]:
        found.append(f"files that rdf.yaml does not name: {', '.join(spare)}")
    return tuple(found)
