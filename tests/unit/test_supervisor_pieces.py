"""The supervisor's pieces that need no process: log lines, volumes, restarts, cgroups, messages."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.bundle import Bundle, BundleFile, BundleVolume
from hpk.model.errors import ParseError
from hpk.model.plan import MpiPlan, RestartPolicy
from hpk.mpi.base import LaunchRequest, crossing_environment
from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.base import BindMount, HoldRequest, NodeFacts
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor.base import termination
from hpk.supervisor.container import crilog, line_former, output, restart
from hpk.supervisor.container.start_orders import PodContext, step_signal_message, stop_signal
from hpk.supervisor.inside import environment, memory, volumes
from hpk.supervisor.main import parse_options
from hpk.supervisor.process import pause
from hpk.supervisor.ranks import rank_files
from hpk.supervisor_zipapp import build_zipapp
from tests.supervisor_peer import container, env, log_texts, volume

NASTY = "a b'c\"d $(touch /canary) `touch /canary` \n#SBATCH é漢 \\ ${HOME} ,=:"


@given(st.lists(st.binary(max_size=40_000), max_size=6))
def test_log_lines_give_back_every_byte(chunks: list[bytes]) -> None:
    former = line_former.LineFormer("stdout")
    out = b"".join(former.feed(chunk, 1) for chunk in chunks) + former.finish(2)
    assert log_texts(out) == b"".join(chunks)
    longest = max((len(line) for line in out.split(b"\n")), default=0)
    assert longest <= line_former.MAX_LINE_BYTES + 64


def test_timestamp_has_nine_digits_and_is_utc() -> None:
    assert line_former.timestamp(1_000_000_007) == "1970-01-01T00:00:01.000000007Z"


def test_log_offsets_go_on_through_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(crilog, "MAX_FILES", 3)
    path = tmp_path / "logs" / "0.log"
    writer = crilog.LogWriter(str(path), lambda: None)
    whole = b""
    for number in range(12):
        line = b"%d" % number + b"x" * 499 + b"\n"
        whole += line
        writer.append(line)
        while writer.end < len(whole):
            os.sched_yield()
    writer.close()
    writer.join(10)
    assert writer.closed
    assert len(list(path.parent.iterdir())) == 3
    start, data = writer.read(0, 1 << 20)
    assert start > 0
    while start + len(data) < len(whole):
        data += writer.read(start + len(data), 1 << 20)[1]
    assert whole[start:] == data
    assert path.read_bytes() in whole


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a directory")
    writer = crilog.LogWriter(str(tmp_path / "logs" / "0.log"), lambda: None)
    writer.append(b"x\n")
    writer.close()
    writer.join(10)
    assert writer.closed


def test_volume_is_laid_out_and_replaced_as_upstream_does(tmp_path: Path) -> None:
    volumes.write_volume(str(tmp_path), volume("v", **{"token": "one", "ns/a": "b"}))
    first = (tmp_path / "..data").readlink()
    assert (tmp_path / "token").readlink() == Path("..data/token")
    assert (tmp_path / "token").read_text() == "one"
    assert (tmp_path / "ns" / "a").read_text() == "b"
    volumes.write_volume(str(tmp_path), volume("v", token="two"))
    assert (tmp_path / "token").read_text() == "two"
    assert not (tmp_path / "ns").is_symlink()
    assert not (tmp_path / first).exists()


def test_volume_files_have_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        volumes.write_volume(str(tmp_path), BundleVolume("v", (BundleFile("f", "eA==", 0o444),)))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o444


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "..data", "", "a//b", "a\0b"])
def test_volume_paths_that_leave_the_volume_are_refused(tmp_path: Path, path: str) -> None:
    bad = BundleVolume("v", (BundleFile(path, "eA==", 0o644),))
    with pytest.raises(ParseError, match="v"):
        volumes.write_volume(str(tmp_path), bad)
    assert not list(tmp_path.iterdir())


def test_restart_policies_and_backoff() -> None:
    assert restart.should_restart(RestartPolicy.ALWAYS, 0)
    assert restart.should_restart(RestartPolicy.ON_FAILURE, 3)
    assert not restart.should_restart(RestartPolicy.ON_FAILURE, 0)
    assert not restart.should_restart(RestartPolicy.NEVER, 3)
    waits: list[float] = []
    for _ in range(8):
        waits.append(restart.next_backoff_s(waits[-1] if waits else None, ran_s=1))
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert restart.next_backoff_s(300, ran_s=600) == 0


def test_memory_cgroup_is_found_in_both_versions() -> None:
    v1 = "9:memory:/slurm/uid_1/job_2/step_batch\n0::/x\n"
    mounts1 = "30 20 0:1 / /cg/memory rw - cgroup cg rw,memory\n31 20 0:2 / /c rw - cgroup2 c rw\n"
    assert memory.counter_path(v1, mounts1) == ("/cg/memory/slurm/uid_1/job_2/step_batch", True)
    v2 = "0::/system.slice/slurmstepd.scope/job_2/step_batch/user/task_0\n"
    mounts2 = "31 20 0:2 / /sys/fs/cgroup rw - cgroup2 c rw\n"
    expected = "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_2/step_batch/user/task_0"
    assert memory.counter_path(v2, mounts2) == (expected, False)
    assert memory.counter_path("", "") is None
    assert memory.counter_path(v1, "garbage\n\n") is None


def test_states_of_an_ended_container() -> None:
    def state(status: int, oom: bool = False) -> tuple[str, int | None, int]:
        found = termination.ended(status, message="", oom=oom, started_at_s=1.0, finished_at_s=2.0)
        return found.reason, found.exit_code, found.signal

    assert state(0) == ("Completed", 0, 0)
    assert state(3 << 8) == ("Error", 3, 0)
    assert state(9) == ("Error", 137, 9)
    assert state(9, oom=True) == ("OOMKilled", 137, 9)
    assert state(0, oom=True) == ("Completed", 0, 0)


def test_message_from_the_end_of_a_log() -> None:
    lines = b"".join(b"T stdout F line %d\n" % n for n in range(100))
    text = termination.message_from_log(lines + b"T stdout P par\nT stdout F tial\n")
    assert text.endswith("line 99\npartial\n")
    assert len(text.splitlines()) == termination.MAX_LOG_MESSAGE_LINES
    long = termination.message_from_log(b"T stdout F " + b"x" * 5000 + b"\n")
    assert len(long) == termination.MAX_LOG_MESSAGE_BYTES


def test_a_containers_environment_puts_the_pods_last() -> None:
    plan = container(
        ("x",), "img", env=env(PATH="/image", A="image") + env(A="pod", NASTY=NASTY), uid=1000
    )
    made = environment.container_environment(plan, Bundle((), env(A="bundle", B="b")), "host")
    assert made == {
        "PATH": "/image",
        "HOSTNAME": "host",
        "A": "pod",
        "B": "b",
        "NASTY": NASTY,
        "HOME": "/",
    }


def test_user_files_know_the_containers_user() -> None:
    assert "user1000:x:1000:5::/:/bin/sh" in environment.passwd_with("", 1000, 5)
    known = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:5::/srv:/bin/sh\n"
    assert environment.passwd_with(known, 1000, 5) == known
    assert environment.home_of(known, 1000) == "/srv"
    assert environment.home_of("broken\n::::\n", 7) == "/"
    assert "group5:x:5:" in environment.group_with("root:x:0:\n", 5)


def test_apptainer_never_sees_what_the_pod_runs() -> None:
    facts = NodeFacts((("apptainer", "/opt/a/apptainer"),), True, True, False)
    mount = BindMount('/s,p"a ce', "/d,st", True)
    request = HoldRequest("/i.sif", "/scratch", (mount,), gpus=True)
    argv = RUNTIMES["apptainer"].hold_argv(facts, request)
    assert argv[0] == "/opt/a/apptainer"
    assert argv[-2:] == ("/i.sif", "/.hpk/pause")
    assert "--nv" in argv
    assert "--rocm" not in argv
    option = argv[argv.index("--mount") + 1]
    assert option == '"type=bind","source=/s,p""a ce","destination=/d,st","ro"'


def test_a_node_without_apptainer_says_what_to_do() -> None:
    runtime = RUNTIMES["apptainer"]
    assert "install" in runtime.unusable(NodeFacts((), True, False, False))
    assert "/dev/fuse" in runtime.unusable(NodeFacts((("apptainer", "/a"),), False, False, False))
    assert runtime.unusable(NodeFacts((("singularity", "/a"),), True, False, False)) == ""


def test_srun_gets_the_cpus_again_and_the_pods_options_last() -> None:
    request = LaunchRequest(
        MpiPlan("pmix", ("--cpu-bind=cores", "-n", "8")),
        ("python3", "rank"),
        (("SLURM_CPUS_PER_TASK", "2"), ("SRUN_DEBUG", "1"), ("SLURM_EXPORT_ENV", "NIL")),
        "solver",
    )
    argv = LAUNCHERS["pmix"].argv(request)
    assert "--job-name=solver" in argv
    assert argv[:2] == ("srun", "--mpi=pmix")
    assert argv[argv.index("--cpus-per-task=2") + 1 :] == (
        *("--cpu-bind=cores", "-n", "8", "--"),
        *("python3", "rank"),
    )
    made = dict(LAUNCHERS["pmix"].environment(request))
    assert made["SLURM_EXPORT_ENV"] == "ALL"
    assert "SRUN_DEBUG" not in made


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"srun: error: n2: task 2: Exited with exit code 3", 3),
        (b"srun: error: n2: tasks 2-3,7: Exited with exit code 128", 128),
        (b"srun: error: n1: task 0: Aborted (core dumped)", 0),
        (b"srun: job 1 has been allocated resources", None),
        (b"error: n2: task 2: Exited with exit code 3", None),
    ],
)
def test_the_first_failed_rank_is_heard(line: bytes, code: int | None) -> None:
    assert LAUNCHERS["pmix"].first_failure(line) == code


def test_only_the_launchers_variables_cross_into_the_container() -> None:
    found = crossing_environment(
        {"PMIX_RANK": "1", "SLURM_PROCID": "1", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/h",
         "LD_LIBRARY_PATH": "/l", "PMI_FD": "3", "FISH": "x"}
    )  # fmt: skip
    assert set(found) == {"PMIX_RANK", "SLURM_PROCID", "CUDA_VISIBLE_DEVICES", "PMI_FD"}


def test_the_bundle_crosses_standard_input_to_the_byte() -> None:
    bundle = Bundle((volume("v", token=NASTY),), env(X=NASTY))
    fd = rank_files.bundle_stdin(bundle)
    try:
        assert rank_files.read_bundle(fd) == bundle
        assert os.read(fd, 1) == b""
    finally:
        os.close(fd)


@pytest.mark.parametrize("text", [b"", b"short", b"notanumber!!{}", b"000000000099{}"])
def test_a_broken_bundle_is_an_error(text: bytes) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, text)
    os.close(write_fd)
    try:
        with pytest.raises(ParseError, match="standard input"):
            rank_files.read_bundle(read_fd)
    finally:
        os.close(read_fd)


def test_stop_signals() -> None:
    assert [stop_signal(name) for name in ("", "SIGQUIT", "quit", "3", "nonsense", "999")] == [
        15, 3, 3, 3, 15, 15,
    ]  # fmt: skip


def test_options_of_the_command_line() -> None:
    assert parse_options(["--a", "b c", "--d=e=f"]) == {"a": "b c", "d": "e=f"}
    with pytest.raises(ValueError, match="x"):
        parse_options(["x"])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_pause_is_an_elf_for_its_machine(machine: str) -> None:
    data = pause.pause_elf(machine)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == {"x86_64": 62, "aarch64": 183}[machine]
    assert int.from_bytes(data[64 + 32 : 64 + 40], "little") == len(data)


def test_the_zipapp_is_the_same_each_time_and_holds_only_the_jobs_rooms() -> None:
    import io
    import zipfile

    first = build_zipapp()
    assert first == build_zipapp()
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = set(archive.namelist())
    assert {"__main__.py", "hpk/supervisor/main.py", "hpk/model/plan/pod.py"} <= names
    rooms = {name.split("/")[1] for name in names if name.startswith("hpk/")}
    single = ("__init__", "durable", "flock", "trees")
    assert rooms == {"model", "mpi", "runtimes", "supervisor"} | {f"{name}.py" for name in single}


def test_the_zipapp_runs_from_its_table_and_from_its_sources(tmp_path: Path) -> None:
    """What it was not built for has no use for its byte code."""
    import zipfile

    built, plain = tmp_path / "built.pyz", tmp_path / "plain.pyz"
    built.write_bytes(build_zipapp())
    with zipfile.ZipFile(built) as whole, zipfile.ZipFile(plain, "w") as part:
        for name in whole.namelist():
            if not name.endswith(".pyc"):
                part.writestr(name, whole.read(name))
    for path in (built, plain):
        argv = [sys.executable, "-I", "-S", str(path), "rank"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "usage: run --attempt-dir DIR" in done.stderr


def test_a_supervisor_starts_without_what_is_dear_and_hardly_ever_needed() -> None:
    """Each of these costs a pod of `true` a hundredth or more of all it takes."""
    dear = {"dataclasses", "inspect", "traceback", "shutil", "hashlib", "ssl", "glob", "pathlib"}
    code = "import sys; sys.path.append(sys.argv[1]); import hpk.supervisor.main as _; "
    code += "print(*sys.modules)"
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-I", "-S", "-c", code, root]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert not dear & set(done.stdout.split())


def wait_for(gate: threading.Event) -> None:
    gate.wait(30)


class SelectorWatcher:
    """A loop of its own for one Output."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self.selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(fd)

    def turn(self) -> None:
        if self.selector.get_map():
            for key, _ in self.selector.select(0.01):
                key.data()


def test_output_waits_for_a_slow_log_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "MAX_QUEUED_BYTES", 100_000)
    gate = threading.Event()
    path = tmp_path / "0.log"
    writer = crilog.LogWriter(str(path), lambda: wait_for(gate))
    watcher = SelectorWatcher()
    ended: list[bool] = []
    errors: list[bytes] = []
    made = output.Output(watcher, writer, errors.append, lambda: ended.append(True))
    out_fd, error_fd = made.open()
    os.write(error_fd, b"wrong\n")
    os.close(error_fd)
    lines = b"".join(b"line %d\n" % number for number in range(50_000))

    def write() -> None:
        with os.fdopen(out_fd, "wb") as pipe:
            pipe.write(lines)

    container_process = threading.Thread(target=write)
    container_process.start()
    while made.wake_mono_s is None:
        watcher.turn()
    gate.set()
    while not ended:
        watcher.turn()
        made.tick()
    container_process.join()
    writer.close()
    writer.join(30)
    assert log_texts(path.read_bytes()) == lines
    assert b"".join(errors) == b"wrong\n"
    assert not made.is_open


def test_output_of_a_container_that_has_ended_is_read_whatever_the_log_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "MAX_QUEUED_BYTES", 1)
    gate = threading.Event()
    writer = crilog.LogWriter(str(tmp_path / "0.log"), lambda: wait_for(gate))
    writer.append(b"T stdout F before\n")
    watcher = SelectorWatcher()
    ended: list[bool] = []
    made = output.Output(watcher, writer, None, lambda: ended.append(True))
    for fd in made.open():
        os.write(fd, b"x")
        os.close(fd)
    while made.wake_mono_s is None:
        watcher.turn()
    made.drain()
    while not ended:
        watcher.turn()
    gate.set()
    writer.close()
    writer.join(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGWINCH, 34, 40, 64])
def test_a_step_can_be_sent_every_signal(number: int) -> None:
    pod = cast(PodContext, SimpleNamespace(tool_env={}))
    message = step_signal_message(pod, "7.0", number, 1)
    assert message.argv == ("scancel", f"--signal={number:d}", "7.0")


@pytest.mark.parametrize("text", ["\u00b2", "\u0663", "9" * 5000, "0", "65"])
def test_what_is_no_signal_of_an_image_is_sigterm(text: str) -> None:
    assert stop_signal(text) == 15
