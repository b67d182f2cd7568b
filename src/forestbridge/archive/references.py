"""From a description to the files it names, the addresses it names, and the code that running it would execute."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forestbridge.archive.description import Description, Key, show_key
from forestbridge.archive.members import name_fault

KNOWN_PROCESSING = (
    "binarize",
    "clip",
    "ensure_dtype",
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "scale_mean_variance",
    "scale_range",
    "sigmoid",
    "softmax",
    "zero_mean_unit_variance",
)
"""Steps before and after a model that are plain arithmetic."""

CODE_WEIGHTS = {
    "torchscript": "TorchScript is a program",
    "pytorch_state_dict": "a state dict runs the Python of its architecture",
    "keras_hdf5": "Keras layers may carry Python",
    "keras_v3": "Keras layers may carry Python",
    "tensorflow_js": "a TensorFlow graph may read and write files",
    "tensorflow_saved_model_bundle": "a TensorFlow graph may read and write files",
}
"""Weights formats that carry code, and why; an unknown format is code, ONNX with known operators is data."""

PROGRAM_SUFFIXES = (
    *(
        ".bat",
        ".class",
        ".cmd",
        ".dll",
        ".dylib",
        ".exe",
        ".groovy",
        ".ijm",
        ".jar",
        ".joblib",
        ".js",
        ".pickle",
        ".pkl",
    ),
    *(".ps1", ".py", ".pyc", ".pyd", ".sh", ".so"),
)

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A file that rdf.yaml names.

    Attributes
    ----------
    key
        Where it is named.
    name
        The member of the zip.
    sha256
        As declared there; None where none is.
    """

    key: Key
    name: str
    sha256: str | None


def find_references(description: Description) -> tuple[tuple[Reference, ...], dict[str, str]]:
    """Return the files and the addresses (by key) that a description names.

    Files are named by ``source`` wherever it stands, and by the keys that hold plain names; `config` belongs to the
    programs that write there and is not searched.

    Raises
    ------
    PackageError
        If a name is no relative name inside of the zip, or a hash is no sha256.
    """
    files: list[Reference] = []
    addresses: dict[str, str] = {}
    for key, name, declared in _named(description):
        if name.startswith(("http://", "https://")):
            addresses[show_key(key)] = name
            continue
        name = name.removeprefix("./")
        if _ADDRESS.match(name) or (fault := name_fault(name)):
            why = "it is an address of another kind" if _ADDRESS.match(name) else fault
            raise description.fault(key, "the relative name of a file inside of the zip", f"{name!r}: {why}")
        if declared is not None and not _SHA256.fullmatch(declared):
            raise description.fault(key, "a sha256 of 64 hexadecimal digits in small letters", repr(declared[:80]))
        files.append(Reference(key, name, declared))
    return tuple(files), addresses


def _named(description: Description) -> Iterator[tuple[Key, str, str | None]]:
    data = description.data
    for key in ("documentation", "icon", "license", "rdf_source"):
        value = data.get(key)
        if value is not None and not isinstance(value, str | dict):  # a mapping is found by its `source`
            raise description.fault((key,), "text or a mapping with a source", repr(value)[:40])
        if isinstance(value, str) and (key not in ("icon", "license") or _looks_like_file(value)):
            yield (key,), value, None
    for key in ("covers", "test_inputs", "test_outputs", "sample_inputs", "sample_outputs"):
        for n, value in enumerate(description.get(key, kind=list, default=[])):
            if not isinstance(value, dict):
                yield (key, n), description.need(key, n, kind=str), None
    attachments = data.get("attachments")
    if isinstance(attachments, dict):  # format 0.4
        for n in range(len(description.get("attachments", "files", kind=list, default=[]))):
            yield ("attachments", "files", n), description.need("attachments", "files", n, kind=str), None
    else:
        for n, value in enumerate(description.get("attachments", kind=list, default=[])):
            if not isinstance(value, dict):
                yield ("attachments", n), description.need("attachments", n, kind=str), None
    for name, entry in description.get("weights", kind=dict, default={}).items():
        if isinstance(entry, dict):
            yield from _named_by_weights(description, ("weights", name))
    yield from _sources({k: v for k, v in data.items() if k != "config"}, description, ())


def _named_by_weights(description: Description, key: Key) -> Iterator[tuple[Key, str, str | None]]:
    entry = description.get(*key, kind=dict, default={})
    # format 0.4: "file.py:Class" and "conda:environment.yaml"
    architecture, dependencies = entry.get("architecture"), entry.get("dependencies")
    if isinstance(architecture, str) and ":" in architecture:
        declared = description.get(*key, "architecture_sha256", kind=str)
        yield (*key, "architecture"), architecture.rpartition(":")[0], declared
    if isinstance(entry.get("attachments"), dict):
        for n in range(len(description.get(*key, "attachments", "files", kind=list, default=[]))):
            yield (*key, "attachments", "files", n), description.need(*key, "attachments", "files", n, kind=str), None
    if isinstance(dependencies, str):
        manager, _, name = dependencies.partition(":")
        yield (*key, "dependencies"), name if name and manager.isalpha() else dependencies, None


def _sources(value: Any, description: Description, key: Key) -> Iterator[tuple[Key, str, str | None]]:
    if isinstance(value, list):
        for n, item in enumerate(value):
            yield from _sources(item, description, (*key, n))
    elif isinstance(value, dict):
        if value.get("source") is not None:
            yield (
                (*key, "source"),
                description.need(*key, "source", kind=str),
                description.get(*key, "sha256", kind=str),
            )
        for name, item in value.items():
            if name != "kwargs":  # arguments of a function, whatever they are called
                yield from _sources(item, description, (*key, name))


def _looks_like_file(text: str) -> bool:
    return "/" in text or "\\" in text or bool(re.search(r"\.(png|jpe?g|gif|svg|tiff?|md|txt)$", text, re.IGNORECASE))


@dataclass(frozen=True)
class Code:
    """A place where running the package would execute code that it brings or names.

    Attributes
    ----------
    key
        Where rdf.yaml says so.
    why
        In words.
    weights
        The weights format that brings it; None where every way of running the package does.
    """

    key: str
    why: str
    weights: str | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


def find_code(description: Description) -> tuple[Code, ...]:
    """Return every place that executes code when the package runs."""
    found: list[Code] = []
    for name, entry in description.get("weights", kind=dict, default={}).items():
        if name == "onnx":
            continue
        why = CODE_WEIGHTS.get(name, "this weights format is not known here")
        if isinstance(entry, dict) and isinstance(architecture := entry.get("architecture"), dict):
            if (module := architecture.get("import_from")) is not None:
                why += f"; imports {architecture.get('callable')!r} from {module!r}"
            else:
                why += f" in {architecture.get('source')!r}"
        found.append(Code(f"weights.{name}", why, name))
    rest = {k: v for k, v in description.data.items() if k not in ("weights", "config")}
    found.extend(_steps(rest, ()))
    if description.data.get("run_mode") is not None:
        found.append(Code("run_mode", "a run mode names code of another program"))
    return tuple(found)


def _steps(value: Any, key: Key) -> Iterator[Code]:
    if isinstance(value, list):
        for n, item in enumerate(value):
            yield from _steps(item, (*key, n))
    elif isinstance(value, dict):
        if len(key) >= 2 and key[-2] in ("preprocessing", "postprocessing"):
            step = value.get("id", value.get("name"))
            if step not in KNOWN_PROCESSING:
                yield Code(show_key(key), f"the step {step!r} is not plain arithmetic")
        if named := [k for k in ("callable", "import_from") if k in value]:
            yield Code(show_key((*key, named[0])), f"names Python code: {value[named[0]]!r}")
        for name, item in value.items():
            yield from _steps(item, (*key, name))
