"""From an inspected package to a verdict for each program, and to the table people read."""

from collections.abc import Sequence
from dataclasses import dataclass

from forestbridge.archive import PackageInfo
from forestbridge.consumers.data_rules import data_findings
from forestbridge.consumers.rules import CONSUMERS, Finding
from forestbridge.consumers.text_rules import text_findings
from forestbridge.consumers.weights_rules import weights_findings


@dataclass(frozen=True)
class ConsumerVerdict:
    """Whether one program can run a package.

    Attributes
    ----------
    name
        One of `CONSUMERS`.
    ok
        Whether its rules are kept; nothing was run.
    reasons
        Every rule that is not kept: which key, and what to change.
    notes
        What works and is worth knowing.
    """

    name: str
    ok: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()


def consumer_report(info: PackageInfo) -> tuple[ConsumerVerdict, ...]:
    """Return one verdict per program, in the order of `CONSUMERS`.

    These are the rules that the programs apply to files, as far as they are known; whether the numbers agree is for
    running the package to say.
    """
    findings: list[Finding] = [*text_findings(info), *data_findings(info), *weights_findings(info)]
    verdicts = []
    for name in CONSUMERS:
        reasons = tuple(finding.text for finding in findings if name in finding.consumers and not finding.note)
        notes = tuple(finding.text for finding in findings if name in finding.consumers and finding.note)
        verdicts.append(ConsumerVerdict(name, not reasons, reasons, notes))
    return tuple(verdicts)


def format_consumer_table(report: Sequence[ConsumerVerdict]) -> str:
    """Return the verdicts as text: one line for all programs, then the reasons and notes of each.

    ::

        runs in: Python ✓ · ilastik ✓ · deepImageJ ✓ · QuPath ✗ · bioimage.io ✓
          QuPath ✗ inputs[0].axes: QuPath is 2D only; train on planes for QuPath
    """
    lines = ["runs in: " + " · ".join(f"{verdict.name} {'✓' if verdict.ok else '✗'}" for verdict in report)]
    lines += [f"  {verdict.name} ✗ {reason}" for verdict in report for reason in verdict.reasons]
    lines += [f"  {verdict.name}: {note}" for verdict in report for note in verdict.notes]
    return "\n".join(lines)
