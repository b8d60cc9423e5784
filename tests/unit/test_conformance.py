"""The conformance suite's pure parts: which specs run, what became of them, what the card says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.scorecard import Verdict, load_verdicts, needless, outcome, render
from tests.conformance.specs import (
    Choice,
    Result,
    focus_of,
    format_results,
    group,
    is_serial,
    parse_listing,
    parse_report,
    read_results,
)

NODE = '[sig-node] Pods (a|b) "x" should $(run) [Conformance]'
SLOW = "[sig-node] Pods wait [Serial]"
API = "[sig-api-machinery] Watchers [Conformance]"


def spec(text: str, state: str = "passed", message: str = "", kind: str = "It") -> dict[str, Any]:
    first, _, rest = text.partition(" ")
    failure = {"Failure": {"Message": message}} if message else {}
    return {
        "ContainerHierarchyTexts": [first],
        "LeafNodeText": rest,
        "LeafNodeType": kind,
        "State": state,
        "RunTime": 1_500_000_000,
        **failure,
    }


def report(*specs: dict[str, Any]) -> str:
    return json.dumps([{"SpecReports": list(specs)}, {"SpecReports": None}])


def test_the_listing_names_specs_alone() -> None:
    text = report(spec(NODE), spec("x", kind="BeforeSuite"), spec(API))
    assert parse_listing(text) == [NODE, API]


def test_a_choice_takes_texts_as_they_are_written() -> None:
    conformance = Choice(focus=("[sig-node]", "[sig-cli]"))
    assert [s for s in (NODE, SLOW, API) if s in conformance] == [NODE]
    everything = Choice(focus=("[sig-",), skip=("(a|b)",), conformance_only=False)
    assert [s for s in (NODE, SLOW, API) if s in everything] == [SLOW, API]
    assert [is_serial(s) for s in (NODE, SLOW)] == [False, True]
    assert [group(s) for s in (NODE, API, "x")] == ["sig-node", "sig-api-machinery", "other"]


def test_the_focus_matches_these_specs_alone() -> None:
    focus = re.compile(focus_of([NODE, API]))
    assert all(focus.search(f"Kubernetes e2e suite {text}") for text in (NODE, API))
    assert not any(focus.search(text) for text in (SLOW, f"{API} more", "[sig-node] Pods a"))


def test_a_report_tells_of_what_was_reached() -> None:
    text = report(
        spec(NODE, "failed", "first\nsecond\tpart"),
        spec(API, "skipped"),
        spec(SLOW, "skipped", "needs two nodes"),
        spec("other [x]", "passed"),
    )
    assert parse_report(text, [NODE, API, SLOW]) == {
        NODE: Result(state="failed", seconds=1.5, message="first second part"),
        SLOW: Result(state="skipped", seconds=1.5, message="needs two nodes"),
    }


def test_results_come_back(tmp_path: Path) -> None:
    results = {
        NODE: Result(state="passed", seconds=2.0),
        API: Result(state="failed", seconds=0.1, message="it did not"),
    }
    path = tmp_path / "results.tsv"
    assert read_results(path) == {}
    path.write_text(format_results(results))
    assert read_results(path) == results


def test_the_card_tells_failures_from_what_cannot_be() -> None:
    verdicts = (
        Verdict(kind="network", why="no Services yet", specs=(API, "gone")),
        Verdict(kind="impossible", why="bind(2)", specs=(NODE,)),
    )
    results = {
        NODE: Result(state="passed", seconds=1),
        API: Result(state="timedout", seconds=1, message="m"),
        SLOW: Result(state="failed", seconds=1, message="it broke"),
    }
    assert [outcome(s, r, verdicts) for s, r in results.items()] == ["passed", "network", "failed"]
    assert needless(results, verdicts) == [NODE]
    text = render(results, verdicts)
    assert "| sig-node | 2 | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| all | 3 | 1 | 1 | 0 | 1 | 0 |" in text
    assert f"- {SLOW}: it broke" in text
    assert "no Services yet\n\n- " + API in text
    assert "1 of 2 pass (50.0 %)" in text


def test_the_verdicts_are_well_formed(tmp_path: Path) -> None:
    specs = [spec for verdict in load_verdicts() for spec in verdict.specs]
    assert len(specs) == len(set(specs))
    path = tmp_path / "verdicts.toml"
    path.write_text('[[verdict]]\nkind = "excused"\nwhy = ""\nspecs = []\n')
    with pytest.raises(ValueError, match="excused"):
        load_verdicts(path)
