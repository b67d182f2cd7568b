"""Rules about the weights: formats, versions of ONNX, parents, hashes, tolerances."""

from collections.abc import Iterator
from typing import Any

from forestbridge.archive import PackageInfo, check_graph_against_rdf
from forestbridge.consumers.rules import SPEC, Finding
from forestbridge.errors import PackageError

JAVA_ONNX = {"opset": 17, "ml": 3, "ir": 8}
"""What the ONNX Runtime of deepImageJ loads (1.12 and 1.13)."""
SITE_ONNX = {"opset": 21, "ml": 5, "ir": 10}
"""What the ONNX Runtime of bioimage.io's test run loads (1.20)."""


def weights_findings(info: PackageInfo) -> Iterator[Finding]:
    """Yield the findings about weights and tolerances."""
    yield from _formats(info)
    yield from _entries(info)
    yield from _onnx(info)
    yield from _tolerances(info)


def _formats(info: PackageInfo) -> Iterator[Finding]:
    present = {entry.format for entry in info.weights}
    if not present & {"torchscript", "pytorch_state_dict"}:
        yield Finding(
            ("ilastik",), "weights.torchscript: ilastik has PyTorch only, found none; export TorchScript as well"
        )
    if not present & {"torchscript", "tensorflow_saved_model_bundle"}:
        yield Finding(
            ("QuPath",), "weights.torchscript: QuPath comes without ONNX, found no TorchScript; export it as well"
        )
    if not present & {"onnx", "torchscript", "tensorflow_saved_model_bundle"}:
        yield Finding(("deepImageJ",), "weights: expected onnx or torchscript, found neither; export one of them")
    if "onnx" not in present:
        text = "weights.onnx: without it the package runs only in bioimageio.core, with its own framework; export ONNX"
        yield Finding(("Python",), text, note=True)


def _entries(info: PackageInfo) -> Iterator[Finding]:
    present = {entry.format for entry in info.weights}
    originals = [entry.format for entry in info.weights if entry.parent is None]
    if len(originals) != 1:
        text = (
            f"weights: expected exactly one entry without parent, found {len(originals)}; name the format it came from"
        )
        yield Finding(("bioimage.io",), text)
    for entry in info.weights:
        key = f"weights.{entry.format}"
        if entry.parent is not None and entry.parent not in present - {entry.format}:
            text = f"{key}.parent: expected another format of the package, found {entry.parent}; correct it"
            yield Finding(SPEC, text)
        if entry.format in ("torchscript", "pytorch_state_dict") and not entry.details.get("pytorch_version"):
            text = f"{key}.pytorch_version: expected the version of PyTorch, found nothing; write it"
            yield Finding((*SPEC, "deepImageJ"), text)
        if entry.format == "onnx" and not isinstance(entry.details.get("opset_version"), int):
            text = f"{key}.opset_version: expected the opset as a whole number, found none; write it"
            yield Finding((*SPEC, "deepImageJ"), text)
        if entry.declared_sha256 is None:
            text = f"{key}.sha256: expected the hash of the file, found nothing; write {entry.sha256 or 'it'}"
            yield Finding(("bioimage.io",), text)


def _onnx(info: PackageInfo) -> Iterator[Finding]:
    entry = info.weights_of("onnx")
    if entry is None:
        return
    if entry.details.get("external_data") is not None:
        text = "weights.onnx.external_data: expected one file, found two; save the graph as one file"
        yield Finding(("deepImageJ",), text)
    facts = info.onnx
    if facts is None:  # the weights are not in the zip
        return
    for consumer, most in (("deepImageJ", JAVA_ONNX), ("bioimage.io", SITE_ONNX)):
        for key, name, found in (
            ("opset", "opset", facts.opsets.get("ai.onnx", 0)),
            ("ml", "ai.onnx.ml opset", facts.opsets.get("ai.onnx.ml", 0)),
            ("ir", "IR version", facts.ir_version),
        ):
            if found > most[key]:
                text = f"{entry.source}: expected {name} of at most {most[key]}, found {found}; use {JAVA_ONNX[key]}"
                yield Finding((consumer,), text)
    declared = entry.details.get("opset_version")
    if isinstance(declared, int) and declared != facts.opsets.get("ai.onnx"):
        text = f"weights.onnx.opset_version: expected {facts.opsets.get('ai.onnx')} as in the file, found {declared}"
        yield Finding(("deepImageJ",), f"{text}; correct it")
    if len(facts.outputs) > len(info.outputs):
        text = f"{entry.source}: expected {len(info.outputs)} output as in rdf.yaml, found {len(facts.outputs)}"
        yield Finding(("deepImageJ",), f"{text}; remove the others from the graph")
    try:
        check_graph_against_rdf(info, facts)
    except PackageError as error:
        yield Finding(("Python", "deepImageJ", "bioimage.io"), f"{entry.source}: {error}")


def _tolerances(info: PackageInfo) -> Iterator[Finding]:
    section: Any = info.rdf.get("config")
    for key in ("bioimageio", "reproducibility_tolerance"):
        section = section.get(key) if isinstance(section, dict) else None
    entries = [entry for entry in section if isinstance(entry, dict)] if isinstance(section, list) else []
    found = [entry.get("mismatched_elements_per_million", 0) for entry in entries]
    worst = max((n for n in found if isinstance(n, int)), default=0)
    key = "config.bioimageio.reproducibility_tolerance.mismatched_elements_per_million"
    if worst > 1000:
        yield Finding(("ilastik",), f"{key}: expected at most 1000, found {worst}; use at most 1000")
    elif worst > 100:
        text = f"{key}: releases of 2025 accept at most 100, found {worst}; use 100 if they matter"
        yield Finding(("ilastik",), text, note=True)
    if worst > 5000:
        yield Finding(("bioimage.io",), f"{key}: expected at most 5000, found {worst}; use at most 1000")
