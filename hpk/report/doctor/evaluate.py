"""Facts to findings. Pure: the same facts give the same report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hpk.report.doctor.exchange_checks import judge_job
from hpk.report.doctor.facts import Facts
from hpk.report.doctor.findings import Finding, Place, Status
from hpk.report.doctor.login_checks import judge_login
from hpk.report.doctor.parsing import shown
from hpk.report.doctor.slurm_checks import judge_slurm

_HEADINGS = {
    Place.LOGIN: "Login node",
    Place.BOTH: "Login node and compute node",
    Place.NODE: "Compute node",
}


def evaluate(facts: Facts) -> tuple[Finding, ...]:
    """Every check's finding, in the order they are shown."""
    return (*judge_slurm(facts.login.slurm), *judge_login(facts.login), *judge_job(facts))


def is_fit(findings: Iterable[Finding]) -> bool:
    """Whether nothing that HPK needs is known to be missing."""
    return not any(f.status is Status.FAILED and f.essential for f in findings)


def as_text(facts: Facts, findings: Iterable[Finding]) -> str:
    """What people read; anything that is not well has its lines below."""
    known = tuple(findings)
    lines: list[str] = []
    report = facts.job.report
    names = {Place.LOGIN: facts.login.host, Place.NODE: report.host if report else ""}
    for place, heading in _HEADINGS.items():
        name = shown(names.get(place, ""), 60)
        lines.append(f"{heading} {name}".rstrip())
        for one in (finding for finding in known if finding.place is place):
            lines.append(f"  {one.status.value:<8} {one.title}: {one.seen}")
            if one.costs:
                lines.append(f"             costs: {one.costs}")
            if one.ask:
                lines.append(f"             try:   {one.ask}")
    counts = Counter(one.status for one in known)
    lines.append(", ".join(f"{counts[status]} {status.value}" for status in Status))
    return "\n".join(lines)
