"""Which specs the suite has, which of them are chosen, and what became of each.

A spec is known by its full text: the texts of its containers and its own, as ginkgo joins them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSED = "passed"
SKIPPED = "skipped"
_MESSAGE_CHARACTERS = 400
_HEADER = "spec\tresult\tseconds\tmessage\n"
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a spec.

    :param state: ginkgo's word: passed, failed, skipped, panicked, timedout, …
    :param message: first line of the failure, "" where there is none.
    """

    state: str
    seconds: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which specs are wanted.

    :param focus: literal texts; a spec that holds any of them is chosen.
    :param skip: literal texts; a spec that holds any of them is not.
    :param conformance_only: leave out what does not belong to Kubernetes' conformance.
    """

    focus: tuple[str, ...]
    skip: tuple[str, ...] = ()
    conformance_only: bool = True

    def __contains__(self, spec: str) -> bool:
        return (
            any(text in spec for text in self.focus)
            and not any(text in spec for text in self.skip)
            and not (self.conformance_only and "[Conformance]" not in spec)
        )


def spec_text(report: dict[str, Any]) -> str:
    """A spec's full text from ginkgo's report of it."""
    return " ".join([*(report["ContainerHierarchyTexts"] or []), report["LeafNodeText"]])


def is_serial(spec: str) -> bool:
    """Whether nothing may run beside it."""
    return "[Serial]" in spec or "[Disruptive]" in spec


def group(spec: str) -> str:
    """The special interest group that owns the spec: ``sig-node``."""
    found = re.search(r"\[(sig-[\w-]+)\]", spec)
    return found[1] if found else "other"


def parse_listing(report: str) -> list[str]:
    """Every spec of the suite, from the JSON report of a dry run."""
    return [
        spec_text(spec)
        for suite in json.loads(report)
        for spec in suite["SpecReports"] or ()
        if spec["LeafNodeType"] == "It"
    ]


def parse_report(report: str, wanted: Sequence[str]) -> dict[str, Result]:
    """What became of these specs; those that were not reached are left out."""
    found = {}
    for suite in json.loads(report):
        for spec in suite["SpecReports"] or ():
            name, state = spec_text(spec), spec["State"]
            failure = (spec.get("Failure") or {}).get("Message") or ""
            # What the focus left out counts as skipped as well, without saying why.
            is_left_out = state == SKIPPED and not failure
            if name not in wanted or is_left_out or state in ("pending", "interrupted"):
                continue
            lines = [line.strip() for line in failure.splitlines() if line.strip()]
            message = " ".join(lines)[:_MESSAGE_CHARACTERS].replace("\t", " ")
            found[name] = Result(state=state, seconds=spec["RunTime"] / 1e9, message=message)
    return found


def focus_of(specs: Iterable[str]) -> str:
    """The regular expression (Go's) that these specs alone match.

    What it is held against begins with the suite's own name.
    """
    return "|".join(_SPECIAL.sub(r"\\\1", spec) + "$" for spec in specs)


def read_results(path: Path) -> dict[str, Result]:
    """The results of earlier runs; none where there is no file."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text().splitlines()[1:]:
        spec, state, seconds, message = line.split("\t")
        found[spec] = Result(state=state, seconds=float(seconds), message=message)
    return found


def format_results(results: dict[str, Result]) -> str:
    """The results as a table of tab-separated values, by spec."""
    return _HEADER + "".join(
        f"{spec}\t{result.state}\t{result.seconds:.1f}\t{result.message}\n"
        for spec, result in sorted(results.items())
    )
