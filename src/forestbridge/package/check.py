"""Does a package do what it says: every weight format by name against its own test tensors, the specification, the consumers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import (
    PackageInfo,
    WeightsInfo,
    check_graph_against_rdf,
    inspect_package,
    load_tensor,
    onnx_session,
    read_member,
    require_trust,
)
from forestbridge.consumers import (
    JAVA_ENGINES,
    ConsumerVerdict,
    JavaEngine,
    JavaTools,
    consumer_report,
    engine_libraries,
    find_java,
    run_in_java,
    validate_with_spec,
)
from forestbridge.errors import MissingExtraError, PackageError, TrustError
from forestbridge.graphs.torchscript import require_torch
from forestbridge.package.reference import core_version, run_core_test


class Tolerance(NamedTuple):
    """How far an output may be from the test output: a value is mismatched beyond ``absolute + relative·|expected|``."""

    absolute: float = 1e-3
    relative: float = 1e-3
    per_million: float = 100
    """Mismatched values of a million that are allowed."""


DEFAULT_TOLERANCE = Tolerance()
"""bioimageio.core's own, which hold unless the package says otherwise."""

_STEPS = "the package has steps before or after the model, which only bioimageio.core does"


@dataclass(frozen=True)
class FormatCheck:
    """How one weight format did in one engine.

    Attributes
    ----------
    weights, engine
        "onnx" or "torchscript"; the program that ran it.
    status
        "not run" has a reason: code without trust, or a format that this check or this engine cannot run.
    max_abs
        Largest difference from the test output; None when not run.
    mismatched, elements
        Values that differ by more than the tolerance, of how many.
    reason
        Why it failed or was not run.
    """

    weights: str
    engine: str
    status: Literal["passed", "failed", "not run"]
    max_abs: float | None = None
    mismatched: int = 0
    elements: int = 0
    reason: str = ""


@dataclass(frozen=True)
class CheckReport:
    """The result of `check_package`."""

    path: Path
    sha256: str
    formats: tuple[FormatCheck, ...]
    spec_errors: tuple[str, ...]
    consumers: tuple[ConsumerVerdict, ...]

    @property
    def good(self) -> bool:
        """Whether nothing failed, something ran, and the description is valid."""
        statuses = {f.status for f in self.formats}
        return "failed" not in statuses and "passed" in statuses and not self.spec_errors

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "good": self.good,
            "formats": [asdict(f) for f in self.formats],
            "spec_errors": list(self.spec_errors),
            "consumers": [asdict(c) for c in self.consumers],
        }


def check_package(path: str | Path, *, trust: str | None = None, java: bool = False) -> CheckReport:
    """Check a package; TorchScript and other code runs only with trust.

    Parameters
    ----------
    trust
        "sha256:<hash of the zip>", as the report and `TrustError` print it.
    java
        Whether the engines inside deepImageJ and QuPath run it as well: ``report.formats`` has a row more for each of
        `JAVA_ENGINES`. Maven fetches them the first time.

    Returns
    -------
    report
        ``report.good`` says whether all is well.

    Raises
    ------
    PackageError
        If the package cannot even be inspected, or has no test tensors.
    TrustError
        If `trust` is the hash of another file.
    MissingExtraError
        If onnxruntime is not installed.
    ResourceError
        With `java`, if Java or Maven is missing, or the engines cannot be fetched.
    """
    info = inspect_package(path)
    tools = find_java() if java else None
    formats = _check_formats(info, trust)
    if tools is not None:
        formats += [_check_in_java(info, engine, tools, trust) for engine in JAVA_ENGINES]
    return CheckReport(
        path=info.path,
        sha256=info.sha256,
        formats=tuple(formats),
        spec_errors=tuple(validate_with_spec(info.path)),
        consumers=consumer_report(info),
    )


def _check_formats(info: PackageInfo, trust: str | None) -> list[FormatCheck]:
    checks = []
    for entry in info.weights:
        if reason := _reason_not_to_run(info, entry, trust) or _reason_without_torch(entry):
            checks.append(FormatCheck(entry.format, "none", "not run", reason=reason))
            continue
        if entry.format == "onnx":
            checks.append(_check_onnx(info, entry))
        checks.append(_check_in_core(info, entry.format))
    return checks


def _reason_not_to_run(info: PackageInfo, entry: WeightsInfo, trust: str | None) -> str:
    if entry.format not in ("onnx", "torchscript"):
        return "forestbridge checks onnx and torchscript weights"
    if entry.sha256 is None:
        return f"the weights are at {entry.source}, and packages are only read offline"
    try:
        require_trust(info, trust, weights=entry.format)
    except TrustError as error:
        if trust not in (None, f"sha256:{info.sha256}"):
            raise
        return str(error)
    return ""


def _reason_without_torch(entry: WeightsInfo) -> str:
    try:
        if entry.format == "torchscript":
            require_torch()
    except MissingExtraError as error:
        return str(error)
    return ""


def _check_onnx(info: PackageInfo, entry: WeightsInfo) -> FormatCheck:
    """Run the ONNX weights in our own session."""
    if any(tensor.steps for tensor in (*info.inputs, *info.outputs)):
        return FormatCheck("onnx", "forestbridge", "not run", reason=_STEPS)
    inputs, outputs = _test_tensors(info)
    try:
        if info.onnx is not None:
            check_graph_against_rdf(info, info.onnx)
        session = onnx_session(read_member(info, entry.source))
    except PackageError as error:
        return FormatCheck("onnx", "forestbridge", "failed", reason=str(error))
    import onnxruntime.capi.onnxruntime_pybind11_state as state  # pyright: ignore[reportMissingImports]

    feeds = {node.name: inputs[tensor.id] for node, tensor in zip(session.get_inputs(), info.inputs, strict=True)}
    try:
        results = session.run(None, feeds)
    except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
        reason = f"expected the graph to run on its test input, found: {error}"
        return FormatCheck("onnx", "forestbridge", "failed", reason=reason)
    found = dict(zip((o.id for o in info.outputs), map(np.asarray, results), strict=True))
    return _compare(info, "onnx", "forestbridge", found, outputs)


def _check_in_core(info: PackageInfo, weights: str) -> FormatCheck:
    """Run bioimageio.core's test, and compare the outputs that it computed."""
    engine = f"bioimageio.core {core_version()}"
    _, outputs = _test_tensors(info)
    test = run_core_test(info, weights)
    if len(test.outputs) < len(outputs):
        return FormatCheck(weights, engine, "failed", reason=test.said)
    check = _compare(info, weights, engine, test.outputs, outputs)
    return check if test.passed else replace(check, status="failed", reason=check.reason or test.said)


def _check_in_java(info: PackageInfo, engine: JavaEngine, tools: JavaTools, trust: str | None) -> FormatCheck:
    """Run the weights in the engine of a Java program, and compare the outputs of the run that differs most."""
    inputs, outputs = _test_tensors(info)
    if reason := _reason_not_in_java(info, engine, tools, trust, {**inputs, **outputs}):
        return FormatCheck(engine.weights, engine.name, "not run", reason=reason)
    libraries = engine_libraries(engine, tools)
    try:
        runs = run_in_java(info, engine, list(inputs.values()), java=tools.java, libraries=libraries, trust=trust)
    except PackageError as error:
        return FormatCheck(engine.weights, engine.name, "failed", reason=str(error))
    checks = [_compare(info, engine.weights, engine.name, found, outputs) for found in runs]
    return max(checks, key=lambda check: (check.status == "failed", check.mismatched, check.max_abs or 0))


def _reason_not_in_java(
    info: PackageInfo, engine: JavaEngine, tools: JavaTools, trust: str | None, tensors: Mapping[str, NDArray]
) -> str:
    entry = info.weights_of(engine.weights)
    if entry is None:
        return f"the package has no {engine.weights} weights"
    if reason := _reason_not_to_run(info, entry, trust):
        return reason
    if any(tensor.steps for tensor in (*info.inputs, *info.outputs)):
        return _STEPS
    if other := [f"{name} is {array.dtype}" for name, array in tensors.items() if array.dtype != np.float32]:
        return f"the check in Java takes and gives float32, {', '.join(other)}"
    if tools.platform not in engine.platforms:
        return f"there is none for {tools.platform}; it runs on {', '.join(engine.platforms)}"
    return ""


def _test_tensors(info: PackageInfo) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    tensors = []
    for group in (info.inputs, info.outputs):
        for tensor in group:
            if tensor.test is None:
                raise PackageError(
                    f"{info.path}: expected a test tensor for {tensor.id}, found none; the package cannot be checked"
                )
        tensors.append({tensor.id: load_tensor(info, tensor.test) for tensor in group if tensor.test})
    return tensors[0], tensors[1]


def _compare(
    info: PackageInfo, weights: str, engine: str, found: Mapping[str, NDArray], expected: Mapping[str, NDArray]
) -> FormatCheck:
    """Compare outputs with the test outputs; each has its own tolerance."""
    largest, mismatched, elements, reasons = 0.0, 0, 0, []
    for tensor in info.outputs:
        a, b = found[tensor.id], expected[tensor.id]
        if a.shape != b.shape:
            reason = f"{tensor.id}: expected the shape {b.shape}, found {a.shape}"
            return FormatCheck(weights, engine, "failed", reason=reason)
        tolerance = _tolerance(info, weights, tensor.id)
        difference = np.abs(a.astype(np.float64) - b)
        over = int(np.count_nonzero(~(difference <= tolerance.absolute + tolerance.relative * np.abs(b))))  # NaN counts
        allowed = tolerance.per_million * b.size / 1e6
        if over > allowed:
            worst = "NaN" if np.isnan(difference).any() else f"{difference.max():.2g}"
            reasons.append(
                f"{tensor.id}: expected at most {allowed:.0f} of {b.size} values to differ by more than {tolerance.absolute:g}, "
                f"found {over}, the largest by {worst}; export the package again, or get it again from where it came from"
            )
        largest = max(largest, float(np.max(difference[~np.isnan(difference)], initial=0)))
        mismatched, elements = mismatched + over, elements + b.size
    status = "failed" if reasons else "passed"
    return FormatCheck(weights, engine, status, largest, mismatched, elements, "; ".join(reasons))


def _tolerance(info: PackageInfo, weights: str, output: str) -> Tolerance:
    """Return the first tolerance that the package declares for a format and output."""
    config = info.rdf.get("config")
    section = config.get("bioimageio") if isinstance(config, dict) else None
    entries = section.get("reproducibility_tolerance") if isinstance(section, dict) else None
    keys = ("absolute_tolerance", "relative_tolerance", "mismatched_elements_per_million")
    for n, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue  # the specification's check says so
        if weights not in (entry.get("weights_formats") or (weights,)) or output not in (
            entry.get("output_ids") or (output,)
        ):
            continue
        values = [entry.get(key, default) for key, default in zip(keys, DEFAULT_TOLERANCE, strict=True)]
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise PackageError(
                f"{info.path}: rdf.yaml: expected numbers in config.bioimageio.reproducibility_tolerance[{n}], found {values}; "
                "correct them"
            )
        return Tolerance(*map(float, values))
    return DEFAULT_TOLERANCE


def format_check(report: CheckReport) -> str:
    """Return the report as lines for people."""
    lines = []
    for f in report.formats:
        numbers = (
            ""
            if f.max_abs is None
            else f"  largest difference {f.max_abs:.1e}, {f.mismatched} of {f.elements} values beyond the tolerance"
        )
        lines.append(
            f"{'✓' if f.status == 'passed' else '✗' if f.status == 'failed' else '–'} {f.weights} in {f.engine}: {f.status}{numbers}"
        )
        if f.reason:
            lines.append(f"    {f.reason}")
    lines += [f"✗ specification: {error}" for error in report.spec_errors] or ["✓ specification: valid"]
    return "\n".join(lines)
