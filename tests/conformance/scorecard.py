"""Writes docs/conformance.md: what passed, and of what did not, why.

``verdicts.toml`` says of specs that cannot pass which refusal is behind it; it excuses nothing that
passes, and what it does not name has failed.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap.components import KUBERNETES_VERSION
from tests.conformance.specs import PASSED, SKIPPED, Result, group

VERDICTS = Path(__file__).parent / "verdicts.toml"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
FAILED = "failed"
IMPOSSIBLE = "impossible"
NETWORK = "network"
_SHORT = 200
_COLUMNS = (PASSED, FAILED, IMPOSSIBLE, NETWORK, SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why specs do not pass.

    :param kind: ``impossible`` or ``network``.
    :param why: the system call or the permission that is refused, or what the network lacks.
    :param specs: their full texts.
    """

    kind: str
    why: str
    specs: tuple[str, ...]


def load_verdicts(path: Path = VERDICTS) -> tuple[Verdict, ...]:
    """The verdicts of the file.

    :raises ValueError: one is malformed.
    """
    found = []
    for table in tomllib.loads(path.read_text())["verdict"]:
        verdict = Verdict(kind=table["kind"], why=table["why"], specs=tuple(table["specs"]))
        if verdict.kind not in (IMPOSSIBLE, NETWORK):
            raise ValueError(f"{path}: kind {verdict.kind!r}")
        found.append(verdict)
    return tuple(found)


def outcome(spec: str, result: Result, verdicts: Iterable[Verdict]) -> str:
    """One of the scorecard's columns."""
    if result.state in (PASSED, SKIPPED):
        return result.state
    return next((verdict.kind for verdict in verdicts if spec in verdict.specs), FAILED)


def needless(results: Mapping[str, Result], verdicts: Iterable[Verdict]) -> list[str]:
    """Specs that pass though a verdict says they cannot: the verdict has to go."""
    return sorted(
        spec
        for verdict in verdicts
        for spec in verdict.specs
        if spec in results and results[spec].state == PASSED
    )


def render(
    results: Mapping[str, Result], verdicts: Sequence[Verdict], not_run: Sequence[str] = ()
) -> str:
    """The document.

    :param not_run: specs without a result.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    by_outcome: dict[str, list[str]] = defaultdict(list)
    for spec, result in sorted(results.items()):
        column = outcome(spec, result, verdicts)
        by_outcome[column].append(spec)
        for row in (group(spec), "all"):
            counts[row][column] += 1
    parts = [
        "# Kubernetes' conformance tests\n",
        f"Written by `make conformance`: the specs of Kubernetes {KUBERNETES_VERSION}'s own "
        "`e2e.test`, run against a control plane of an ordinary user in the lab, on images made of "
        "Debian packages. No spec is special-cased anywhere. Each result is in "
        "[conformance.tsv](conformance.tsv).\n",
        _table(counts),
        _reach(counts["all"]),
        "## Failed: ours to mend\n",
        _list(f"- {spec}: {_short(results[spec])}" for spec in by_outcome[FAILED]),
    ]
    for kind, title in (
        (IMPOSSIBLE, "## Impossible for an ordinary user\n"),
        (NETWORK, "## Waiting for the pod network\n"),
    ):
        parts.append(title)
        parts += _reasons(kind, by_outcome[kind], verdicts)
    if by_outcome[SKIPPED]:
        parts += [
            "## Skipped by the specs themselves\n",
            _list(f"- {spec}: {results[spec].message}" for spec in by_outcome[SKIPPED]),
        ]
    if not_run:
        parts += ["## Not run\n", _list(f"- {spec}" for spec in sorted(not_run))]
    return "\n".join(parts)


def _short(result: Result) -> str:
    text = result.message or result.state
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _table(counts: Mapping[str, Counter[str]]) -> str:
    rows = [
        "| | run | passed | failed | impossible | pod network | skipped |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(counts, key=lambda row: (row == "all", row)):
        count = counts[name]
        cells = (count.total(), *(count[column] for column in _COLUMNS))
        rows.append(f"| {name} | {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _reach(count: Counter[str]) -> str:
    needs_none = count[PASSED] + count[FAILED] + count[IMPOSSIBLE]
    possible = count[PASSED] + count[FAILED]
    if not possible:
        return ""
    return (
        f"Of those that need no pod network {count[PASSED]} of {needs_none} pass "
        f"({100 * count[PASSED] / needs_none:.1f} %); of those that are possible for an ordinary "
        f"user as well, {100 * count[PASSED] / possible:.1f} %.\n"
    )


def _reasons(kind: str, specs: Sequence[str], verdicts: Sequence[Verdict]) -> list[str]:
    parts = []
    for verdict in verdicts:
        named = [spec for spec in specs if verdict.kind == kind and spec in verdict.specs]
        if named:
            parts.append(f"{verdict.why}\n")
            parts.append(_list(f"- {spec}" for spec in named))
    return parts or ["None.\n"]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n" or "None.\n"
