"""Progress where there is no terminal: what long steps print."""

from __future__ import annotations

import io

from rich.console import Console

from bootstrap.progress import StepProgress
from tests.waiting import eventually


def lines(output: io.StringIO) -> list[str]:
    """What was printed, each line as its name and text."""
    found = []
    for line in output.getvalue().splitlines():
        name, _, text = line.partition(" s  ")
        found.append(f"{name.split()[0]}: {text}")
    return found


def test_a_count_is_no_new_line_of_its_own() -> None:
    output = io.StringIO()
    with StepProgress(Console(file=output)) as progress:
        progress.step("etcd", "building: 0 packages compiled")
        progress.step("etcd", "building: 1 packages compiled")
        progress.done("etcd", "built")
        progress.done("etcd", "built")
    assert lines(output) == ["etcd: building: 0 packages compiled", "etcd: done: built"]


def test_a_long_step_says_how_far_it_has_come() -> None:
    output = io.StringIO()
    with StepProgress(Console(file=output), remind_s=0.01) as progress:
        progress.step("programs", "verifying")
        progress.step("etcd", "building: 0 packages compiled")
        progress.step("etcd", "building: 7 packages compiled")
        eventually(lambda: "etcd: building: 7 packages compiled" in lines(output))
        progress.done("etcd", "built")
        eventually(
            lambda: lines(output).count("programs: verifying") > 1, what="it is at work again"
        )
        progress.done("programs", "all there")
    built = lines(output).index("etcd: done: built")
    counts = {"etcd: building: 0 packages compiled", "etcd: building: 7 packages compiled"}
    assert set(lines(output)[1:built]) <= {"programs: verifying"} | counts
    assert set(lines(output)[built + 1 : -1]) == {"programs: verifying"}
    assert lines(output)[-1] == "programs: done: all there"
