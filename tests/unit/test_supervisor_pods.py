"""The supervisor as a process, running pods of many containers."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpk.model import frames
from hpk.model.bundle import Bundle, ContainerBundle
from hpk.model.layout import AttemptLayout
from hpk.model.plan import (
    ContainerPlan,
    EmptyDirVolume,
    HostPathVolume,
    ProjectedVolume,
    RestartPolicy,
    VolumeMount,
)
from hpk.model.record import ContainerPhase, ContainerRecord, PodPhase, StopCause, SupervisorRecord
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, env, log_texts, read_record, volume

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")

LOOP = "while :; do sleep 0.01; done"


def shell(name: str, script: str, **changes: Any) -> ContainerPlan:
    return container(("sh", "-c", script), "/image.sif", name=name, **changes)


def sidecar(name: str, script: str, **changes: Any) -> ContainerPlan:
    return shell(name, script, restart_always=True, **changes)


def find(record: SupervisorRecord, name: str) -> ContainerRecord:
    (found,) = (c for c in (*record.init_containers, *record.containers) if c.name == name)
    return found


def text(layout: AttemptLayout, record: SupervisorRecord, name: str) -> str:
    path = Path(layout.root) / find(record, name).log_path
    return log_texts(path.read_bytes()).decode()


def test_init_containers_one_after_the_other_then_all_others_together(bench: Bench) -> None:
    order = bench.directory / "order"
    meet = bench.directory / "meet"
    meet.mkdir()
    both = "touch '{0}/{1}'; while [ ! -e '{0}/{2}' ]; do sleep 0.01; done; echo met"
    layout = bench.attempt_of(
        shell("a", both.format(meet, "a", "b")),
        shell("b", both.format(meet, "b", "a")),
        init_containers=(
            shell("first", f"sleep 0.3; echo first >> '{order}'"),
            shell("second", f"echo second >> '{order}'"),
        ),
    )
    process = bench.start(layout)
    early = bench.peer.wait_record(lambda r: find(r, "first").state.phase is ContainerPhase.RUNNING)
    for name in ("second", "a", "b"):
        state = find(early, name).state
        assert (state.phase, state.reason) == (ContainerPhase.WAITING, "PodInitializing")
    assert process.wait(30) == 0
    record = read_record(layout)
    assert order.read_text() == "first\nsecond\n"
    assert [text(layout, record, name) for name in "ab"] == ["met\n", "met\n"]
    assert {c.state.exit_code for c in (*record.init_containers, *record.containers)} == {0}


def test_an_init_container_that_fails_fails_the_pod(bench: Bench) -> None:
    layout = bench.attempt_of(
        shell("main", f"touch '{bench.directory}/canary'"),
        init_containers=(shell("first", "exit 7"), shell("second", "true")),
    )
    assert bench.start(layout).wait(30) == 7
    record = read_record(layout)
    assert (record.phase, record.stop_cause) == (PodPhase.FINISHED, StopCause.COMPLETED)
    assert find(record, "first").state.exit_code == 7
    for name in ("second", "main"):
        assert find(record, name).state.reason == "PodInitializing"
    assert not (bench.directory / "canary").exists()


def test_an_init_container_is_tried_again(bench: Bench) -> None:
    layout = bench.attempt_of(
        shell("main", "true"),
        init_containers=(shell("first", "exit 7"),),
        restart_policy=RestartPolicy.ALWAYS,
    )
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: find(r, "first").state.reason == "CrashLoopBackOff")
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) == 7
    assert find(read_record(layout), "main").state.reason == "PodInitializing"


def test_sidecars_go_last_in_reverse_order(bench: Bench) -> None:
    order = bench.directory / "order"
    said = "trap \"echo {0} >> '{1}'; exit 3\" TERM; echo up {0} >> '{1}'; " + LOOP
    layout = bench.attempt_of(
        shell("main", f"echo main >> '{order}'"),
        init_containers=(
            sidecar("one", said.format("one", order)),
            shell("between", f"while ! grep -q one '{order}'; do sleep 0.01; done"),
            sidecar("two", said.format("two", order)),
            shell("last", f"while ! grep -q two '{order}'; do sleep 0.01; done"),
        ),
    )
    assert bench.start(layout).wait(30) == 0
    assert order.read_text() == "up one\nup two\nmain\ntwo\none\n"
    record = read_record(layout)
    assert find(record, "one").state.exit_code == 3
    assert record.stop_cause is StopCause.COMPLETED


def test_a_stubborn_sidecar_has_the_grace_period(bench: Bench) -> None:
    layout = bench.attempt_of(
        shell("main", "true"),
        init_containers=(sidecar("side", "trap '' TERM; " + LOOP),),
        grace_period_s=1,
    )
    assert bench.start(layout).wait(30) == 0
    assert find(read_record(layout), "side").state.signal == signal.SIGKILL


def test_a_sidecar_is_started_again_whatever_the_policy(bench: Bench) -> None:
    layout = bench.attempt_of(shell("main", LOOP), init_containers=(sidecar("side", "exit 0"),))
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: find(r, "side").state.reason == "CrashLoopBackOff")
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) in (137, 143)


def test_a_stop_ends_sidecars_after_the_others(bench: Bench) -> None:
    order = bench.directory / "order"
    script = "trap \"sleep {2}; echo {0} >> '{1}'; exit 0\" TERM; touch '{1}.{0}'; " + LOOP
    layout = bench.attempt_of(
        shell("main", script.format("main", order, 0.5)),
        init_containers=(sidecar("side", script.format("side", order, 0)),),
    )
    process = bench.start(layout)
    wait_until(lambda: all(Path(f"{order}.{name}").exists() for name in ("main", "side")))
    bench.peer.send(frames.Stop(60))
    assert process.wait(30) == 0
    assert order.read_text() == "main\nside\n"


def test_the_pod_ends_when_all_have_ended_and_one_failure_is_its_code(bench: Bench) -> None:
    layout = bench.attempt_of(shell("a", "exit 0"), shell("b", "sleep 0.3; exit 4"))
    assert bench.start(layout).wait(30) == 4


def test_a_late_container_waits_for_what_it_lacks(bench: Bench) -> None:
    missing = ContainerBundle(
        "main", (), (), 'configmap "c" not found', "CreateContainerConfigError"
    )
    bench.peer.bundle = Bundle((), (), (missing,))
    layout = bench.attempt_of(shell("main", "exit 9", late=True), shell("beside", "true"))
    process = bench.start(layout)
    waiting = bench.peer.wait_record(
        lambda r: (
            find(r, "main").state.reason == "CreateContainerConfigError"
            and find(r, "beside").state.phase is ContainerPhase.TERMINATED
        )
    )
    assert find(waiting, "main").state.message == 'configmap "c" not found'
    found = ContainerBundle("main", env(PATH="/usr/bin:/bin", V="v"), ("sh", "-c", 'echo "$V"'))
    bench.peer.send(frames.BundleReply(0, Bundle((), (), (found,))))
    assert process.wait(30) == 0
    assert text(layout, read_record(layout), "main") == "v\n"


def test_a_host_path_of_another_type_is_waited_for(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = tmp_path_factory.mktemp("elsewhere") / "not yet"
    layout = bench.attempt_of(
        shell("main", "true", mounts=(VolumeMount("h", "/h", False),)),
        host_paths=(HostPathVolume("h", str(wanted), "Directory"),),
    )
    process = bench.start(layout)
    record = bench.peer.wait_record(lambda r: bool(find(r, "main").state.message))
    state = find(record, "main").state
    assert state.reason == "ContainerCreating"
    assert f"hostPath type check failed, {wanted} is not a directory" in state.message
    wanted.mkdir()
    assert process.wait(30) == 0


def test_what_cannot_be_mounted_now_is_tried_again(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outer = tmp_path_factory.mktemp("elsewhere")
    (outer / "in").write_text("no place for a directory")
    layout = bench.attempt_of(
        shell(
            "main", "true", mounts=(VolumeMount("h", "/h", False), VolumeMount("e", "/h/in", False))
        ),
        host_paths=(HostPathVolume("h", str(outer), "Directory"),),
        empty_dirs=(EmptyDirVolume("e", False, None),),
    )
    process = bench.start(layout)
    record = bench.peer.wait_record(lambda r: bool(find(r, "main").state.message))
    state = find(record, "main").state
    assert state.reason == "CreateContainerConfigError"
    assert "at in within another volume: mount" in state.message
    (outer / "in").unlink()
    assert process.wait(30) == 0
    assert (outer / "in").is_dir()


def test_a_host_path_of_ours_starts_nothing(bench: Bench) -> None:
    (bench.directory / "link").symlink_to(bench.directory)
    layout = bench.attempt_of(
        shell("main", "true", mounts=(VolumeMount("h", "/h", False),)),
        host_paths=(HostPathVolume("h", str(bench.directory / "link" / "x"), ""),),
    )
    assert bench.start(layout).wait(30) == 128
    assert "HPK's own" in find(read_record(layout), "main").state.message


_SYSCTL = "/proc/sys/kernel/shm_rmid_forced"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Uri", "sh", "-c", f"echo 1 > {_SYSCTL}"]).returncode != 0,
    reason="this kernel lets no other root than the node's set it",
)
def test_a_sysctl_is_the_pods_own(bench: Bench) -> None:
    before = Path(_SYSCTL).read_text()
    other = "0" if before.strip() == "1" else "1"
    layout = bench.attempt_of(
        shell("main", f"cat {_SYSCTL}"), sysctls=(("kernel.shm_rmid_forced", other),)
    )
    assert bench.start(layout).wait(30) == 0
    assert text(layout, read_record(layout), "main") == f"{other}\n"
    assert Path(_SYSCTL).read_text() == before


def test_a_sysctl_that_cannot_be_set_fails_the_setup(bench: Bench) -> None:
    layout = bench.attempt_of(shell("main", "true"), sysctls=(("kernel.no_such", "1"),))
    assert bench.start(layout).wait(30) == 1
    record = read_record(layout)
    assert record.stop_cause is StopCause.SETUP_FAILED
    assert "cannot set sysctl kernel.no_such on this node" in record.message


def test_a_sub_path_made_of_variables_is_waited_for(bench: Bench) -> None:
    mount = VolumeMount("v", "/mnt", False, sub_path_expr="$(WHERE)")
    plan = shell("main", "unexpanded", late=True, mounts=(mount,))
    error = ContainerBundle("main", (), (), "missing value", "CreateContainerConfigError")
    bench.peer.bundle = Bundle((), (), (error,))
    layout = bench.attempt_of(plan, empty_dirs=(EmptyDirVolume("v", False, None),))
    process = bench.start(layout)
    waiting = bench.peer.wait_record(lambda r: bool(find(r, "main").state.message))
    assert find(waiting, "main").state.reason == "CreateContainerConfigError"
    directory = bench.directory / f"hpk-{os.getuid()}" / "77" / "empty-dirs" / "0"
    assert not any(directory.iterdir())
    part = ContainerBundle("main", (), ("sleep", "1000"), sub_paths=("a/b",))
    bench.peer.send(frames.BundleReply(0, Bundle((), (), (part,))))
    bench.peer.wait_running()
    assert (directory / "a" / "b").is_dir()
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) != 0


def test_a_missing_sub_path_of_a_config_map_is_waited_for(bench: Bench) -> None:
    bench.peer.bundle = Bundle((volume("c", other="x"),), ())
    layout = bench.attempt_of(
        shell("main", "true", mounts=(VolumeMount("c", "/f", True, "key"),)),
        volumes=(ProjectedVolume("c", 0o644, (), (), ()),),
    )
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: find(r, "main").state.reason == "CreateContainerConfigError")
    bench.peer.send(frames.BundleReply(0, Bundle((volume("c", key="x"),), ())))
    assert process.wait(30) == 0


def test_an_empty_dir_that_outgrows_its_limit_evicts_the_pod(bench: Bench) -> None:
    layout = bench.attempt_of(
        shell("main", LOOP), empty_dirs=(EmptyDirVolume("e", False, 1 << 20),)
    )
    process = bench.start(layout)
    bench.peer.wait_running()
    directory = bench.directory / f"hpk-{os.getuid()}" / "77" / "empty-dirs" / "0"
    (directory / "f").write_bytes(bytes(4 << 20))
    assert process.wait(60) != 0
    record = read_record(layout)
    assert record.stop_cause is StopCause.EVICTED
    assert record.message == 'Usage of EmptyDir volume "e" exceeds the limit "1Mi".'


def test_one_dead_container_is_kept_on_the_disk(bench: Bench) -> None:
    # The third start stays, so that no fourth comes before this test has looked.
    ends_twice = f"cd {bench.directory}; [ -d 2 ] && exec sleep 1000; mkdir 1 || mkdir 2; exit 1"
    layout = bench.attempt_of(shell("main", ends_twice), restart_policy=RestartPolicy.ALWAYS)
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: find(r, "main").restart_count == 2)
    work = bench.directory / f"hpk-{os.getuid()}" / "77"

    def numbered() -> list[str]:
        return sorted(path.name for path in work.iterdir() if path.name.isdigit())

    # Which numbers they have depends on how soon the first was removed.
    wait_until(lambda: len(numbered()) == 2)
    process.terminate()
    process.wait(60)
    assert not work.exists()
