"""What may change of a pod while it runs: its deadline, and containers that are added to it."""

from __future__ import annotations

from dataclasses import replace

from hpk.model import frames
from hpk.model.bundle import Bundle, ContainerBundle
from hpk.model.plan import ContainerPlan, EnvVar
from hpk.model.record import ContainerPhase, ContainerRecord, StopCause, SupervisorRecord
from tests.supervisor_bench import Bench
from tests.supervisor_bench import bench as bench
from tests.supervisor_bench import zipapp as zipapp
from tests.supervisor_peer import container

LOOP = "while :; do sleep 0.01; done"


def shell(bench: Bench, name: str, script: str) -> ContainerPlan:
    plan = replace(container(("sh", "-c", script), "/image.sif"), name=name)
    return replace(plan, image=replace(plan.image, path=str(bench.directory / "image.sif")))


def added(record: SupervisorRecord, name: str) -> ContainerRecord | None:
    return next((c for c in record.ephemeral_containers if c.name == name), None)


def test_a_deadline_may_be_set_while_the_pod_runs(bench: Bench) -> None:
    process = bench.start(bench.attempt("sleep", "1000", grace_period_s=1))
    bench.peer.wait_running()
    bench.peer.send(frames.PodUpdate(active_deadline_s=1))
    finished = bench.peer.wait_finished()
    assert finished.stop_cause is StopCause.DEADLINE
    assert process.wait(30) != 0


def test_a_deadline_may_be_put_off(bench: Bench) -> None:
    process = bench.start(bench.attempt("sleep", "1000", active_deadline_s=3600))
    bench.peer.wait_running()
    bench.peer.send(frames.PodUpdate(active_deadline_s=None))
    bench.peer.send(frames.Stop(0))
    assert bench.peer.wait_finished().stop_cause is StopCause.REQUESTED
    assert process.wait(30) != 0


def test_a_container_is_added_once_and_its_end_is_its_own(bench: Bench) -> None:
    done = bench.directory / "done"
    script = f"while ! [ -e '{done}' ]; do sleep 0.01; done"
    layout = bench.attempt("sh", "-c", script, grace_period_s=1)
    process = bench.start(layout)
    bench.peer.wait_running()
    runs = bench.directory / "runs"
    update = frames.PodUpdate(None, (shell(bench, "debugger", f"echo >> '{runs}'; exit 3"),))
    bench.peer.send(update)

    def has_ended(record: SupervisorRecord) -> bool:
        found = added(record, "debugger")
        return found is not None and found.state.phase is ContainerPhase.TERMINATED

    record = bench.peer.wait_record(has_ended)
    found = added(record, "debugger")
    assert found is not None and (found.state.exit_code, found.restart_count) == (3, 0)
    assert record.containers[0].state.phase is ContainerPhase.RUNNING
    # Told again, as in a later session: it is there, and another comes.
    bench.peer.send(
        replace(
            update,
            ephemeral_containers=(*update.ephemeral_containers, shell(bench, "more", LOOP)),
        )
    )
    bench.peer.wait_record(
        lambda r: (c := added(r, "more")) is not None and c.state.phase is ContainerPhase.RUNNING
    )
    assert runs.read_text() == "\n"
    # The one that still runs keeps no pod alive, nor decides how it ended.
    done.touch()
    assert process.wait(30) == 0
    last = bench.peer.wait_finished()
    found = added(last, "more")
    assert found is not None and found.state.phase is ContainerPhase.TERMINATED
    assert last.stop_cause is StopCause.COMPLETED


def test_a_container_is_added_though_an_init_container_never_ends(bench: Bench) -> None:
    layout = bench.attempt_of(
        shell(bench, "main", "true"), init_containers=(shell(bench, "stuck", LOOP),)
    )
    process = bench.start(layout)
    bench.peer.wait_record(
        lambda r: any(c.state.phase is ContainerPhase.RUNNING for c in r.init_containers)
    )
    bench.peer.send(frames.PodUpdate(None, (shell(bench, "debugger", LOOP),)))
    bench.peer.wait_record(
        lambda r: (
            (c := added(r, "debugger")) is not None and c.state.phase is ContainerPhase.RUNNING
        )
    )
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) != 0


def test_a_late_container_that_is_added_waits_for_its_variables(bench: Bench) -> None:
    process = bench.start(bench.attempt("sleep", "1000"))
    bench.peer.wait_running()
    told = bench.directory / "told"
    late = replace(shell(bench, "debugger", ""), late=True)
    bench.peer.send(frames.PodUpdate(None, (late,)))
    bench.peer.wait_record(
        lambda r: (
            (c := added(r, "debugger")) is not None and c.state.phase is ContainerPhase.WAITING
        )
    )
    part = ContainerBundle(
        "debugger", (EnvVar("SAID", "hello"),), ("sh", "-c", f'echo "$SAID" > "{told}"')
    )
    bench.peer.send(frames.BundleReply(0, Bundle((), (), (part,))))
    bench.peer.wait_record(
        lambda r: (
            (c := added(r, "debugger")) is not None and c.state.phase is ContainerPhase.TERMINATED
        )
    )
    assert told.read_text() == "hello\n"
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) != 0
