"""`kubectl logs`: what a container wrote, all of it, as it wrote it, while it writes it."""

from __future__ import annotations

import hashlib
import re
import threading

import pytest

from tests.e2e.cluster import BUSYBOX, Cluster, eventually, pod

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")

LINES = "for n in 1 2 3 4 5 6 7 8 9 10; do echo line $n; done"
BOTH = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
STRANGE = r"printf 'no newline at the end, a NUL \000, bytes \377\376, é 漢字 \033[31m\r, tab\t.'"
LONG_LINE = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo after"
NUMBERS = "seq 1 100000"
ROTATED = "seq 1 300000"
"""With its timestamps more than the 10 MiB after which a log is rotated, upstream's default."""
LONG = "echo first; sleep 2; seq 1 1000000"
SLOW = "echo early; sleep 3; echo late"


@pytest.fixture(scope="module")
def written(shared: Cluster) -> Cluster:
    """A namespace with Pods that have written their logs."""
    scripts = {
        "lines": LINES,
        "both": BOTH,
        "strange": STRANGE,
        "long-line": LONG_LINE,
        "numbers": NUMBERS,
        "rotated": ROTATED,
        "slow": SLOW,
        "silent": "true",
        "empty-lines": "echo; echo; echo x",
    }
    shared.create(*(pod(name, "sh", "-c", script) for name, script in scripts.items()))
    found = shared.wait_pods(scripts)
    assert {item["status"]["phase"] for item in found.values()} == {"Succeeded"}
    return shared


def test_a_log_is_what_was_written_byte_for_byte(written: Cluster) -> None:
    strange = b"no newline at the end, a NUL \0, bytes \xff\xfe, "
    strange += "é 漢字 \033[31m\r, tab\t.".encode()
    assert written.log_bytes("strange") == strange
    assert written.log_bytes("long-line") == b"x" * 100_000 + b"\nafter\n"
    assert written.log_bytes("silent") == b""
    assert written.log_bytes("empty-lines") == b"\n\nx\n"
    numbers = b"".join(b"%d\n" % n for n in range(1, 100_001))
    shown = written.log_bytes("numbers")
    assert len(shown) == len(numbers)
    assert hashlib.sha256(shown).digest() == hashlib.sha256(numbers).digest()


def test_of_a_rotated_log_the_newest_lines_are_shown_without_a_gap(written: Cluster) -> None:
    shown = [int(line) for line in written.logs("rotated").splitlines()]
    assert shown == list(range(shown[0], 300_001))
    assert written.logs("rotated", "--tail=1") == "300000\n"


def test_both_streams_are_there_each_in_its_order(written: Cluster) -> None:
    lines = written.logs("both").splitlines()
    assert [line for line in lines if line.startswith("out")] == ["out 1", "out 2", "out 3"]
    assert [line for line in lines if line.startswith("err")] == ["err 1", "err 2", "err 3"]
    assert len(lines) == 6


def test_tail_limit_container_and_timestamps(written: Cluster) -> None:
    whole = "".join(f"line {n}\n" for n in range(1, 11))
    assert written.logs("lines") == whole
    assert written.logs("lines", "--tail=3") == "line 8\nline 9\nline 10\n"
    assert written.logs("lines", "--tail=0") == ""
    assert written.logs("lines", "--tail=1000") == whole
    assert written.logs("lines", "--limit-bytes=9") == "line 1\nli"
    assert written.logs("lines", "-c", "main") == whole
    assert written.logs("numbers", "--tail=2") == "99999\n100000\n"
    stamped = written.logs("lines", "--timestamps").splitlines()
    assert [TIMESTAMP.sub("", line) for line in stamped] == whole.splitlines()
    assert all(TIMESTAMP.match(line) for line in stamped)
    stamps = [line.split()[0] for line in stamped]
    assert stamps == sorted(stamps)
    wrong = written.kubectl("logs", "lines", "-c", "other", check=False)
    assert "container other is not valid for pod lines" in wrong.stderr


def test_since_leaves_out_what_is_older(written: Cluster) -> None:
    stamps = [line.split()[0] for line in written.logs("slow", "--timestamps").splitlines()]
    assert written.logs("slow", f"--since-time={stamps[1]}") == "late\n"
    assert written.logs("slow", f"--since-time={stamps[0]}") == "early\nlate\n"
    assert written.logs("slow", "--since=1h") == "early\nlate\n"
    assert written.logs("slow", "--since-time=2100-01-01T00:00:00Z") == ""


def test_a_follower_of_a_log_that_has_ended_ends(written: Cluster) -> None:
    assert written.logs("lines", "-f", "--tail=1") == "line 10\n"
    assert written.logs("slow", "--follow") == "early\nlate\n"


class Follower:
    """`kubectl logs -f` and what it has shown so far."""

    def __init__(self, cluster: Cluster, name: str, *args: str) -> None:
        command = ["kubectl", "--namespace", cluster.namespace, "logs", "-f", name, *args]
        self._process = cluster.start(command)

    def next_line(self) -> str:
        """The next line; "" at the end of the log. Waits a minute at most."""
        assert self._process.stdout is not None
        alarm = threading.Timer(60, self._process.kill)
        alarm.start()
        try:
            return self._process.stdout.readline()
        finally:
            alarm.cancel()

    def rest(self) -> str:
        """All lines to the end of the log. Waits five minutes at most."""
        assert self._process.stdout is not None
        alarm = threading.Timer(300, self._process.kill)
        alarm.start()
        try:
            return self._process.stdout.read()
        finally:
            alarm.cancel()

    def end(self) -> int:
        """Its exit code, after its last line."""
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_lines_arrive_while_the_container_runs_and_the_follower_ends_with_it(
    cluster: Cluster,
) -> None:
    """The last line is written on SIGTERM, which is sent when the first has been read."""
    script = "trap 'echo two; exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    cluster.create(pod("followed", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 60}))
    cluster.wait_phase("followed", "Running")
    follower = Follower(cluster, "followed")
    second = Follower(cluster, "followed", "--tail=0")
    try:
        assert follower.next_line() == "ready\n"
        cluster.kubectl("delete", "pod", "followed", "--timeout=90s")
        assert follower.next_line() == "two\n"
        assert follower.next_line() == ""
        assert follower.end() == 0
        assert second.next_line() == "two\n"
        assert second.next_line() == ""
        assert second.end() == 0
    finally:
        follower.close()
        second.close()


def test_containers_of_all_kinds_and_runs_have_their_logs(cluster: Cluster) -> None:
    """Of init containers, of a sidecar, of the run before the last."""
    several = pod("several", "sh", "-c", "echo main")
    several["spec"]["initContainers"] = [
        {"name": "first", "image": BUSYBOX, "command": ["echo", "init"]},
        {
            "name": "sidecar",
            "image": BUSYBOX,
            "command": ["sh", "-c", "echo side; exec sleep 3600"],
            "restartPolicy": "Always",
        },
    ]
    again = pod("again", "sh", "-c", "date +%N; exit 1", restart_policy="Always")
    cluster.create(several, again)
    cluster.wait_phase("several", "Succeeded")
    assert cluster.logs("several", "-c", "first") == "init\n"
    assert sorted(cluster.logs("several", "--all-containers", "--prefix").splitlines()) == [
        "[pod/several/first] init",
        "[pod/several/main] main",
        "[pod/several/sidecar] side",
    ]

    def restarts() -> int:
        (status,) = cluster.get("pod", "again")["status"]["containerStatuses"]
        return int(status["restartCount"]) if "waiting" in status["state"] else 0

    eventually(lambda: restarts() >= 2, what="two restarts")
    # Between two runs, the last that ended is the current and the previous one.
    assert cluster.logs("again", "--previous") == cluster.logs("again")
    none = cluster.kubectl("logs", "several", "--previous", check=False)
    assert 'previous terminated container "main" in pod "several" not found' in none.stderr


def test_a_follower_misses_and_repeats_nothing_while_the_log_is_rotated(cluster: Cluster) -> None:
    """47 MB of lines with their times, in five files of 10 MiB."""
    cluster.create(pod("rotating", "sh", "-c", LONG))
    cluster.wait_phase("rotating", "Running")
    follower = Follower(cluster, "rotating")
    try:
        assert follower.next_line() == "first\n"
        numbers = [int(line) for line in follower.rest().splitlines()]
        assert numbers == list(range(1, 1_000_001))
        assert follower.end() == 0
    finally:
        follower.close()


def test_output_and_errors_can_be_had_apart(written: Cluster) -> None:
    path = f"/api/v1/namespaces/{written.namespace}/pods/both/log?stream="
    assert written.kubectl("get", "--raw", path + "Stdout").stdout == "out 1\nout 2\nout 3\n"
    assert written.kubectl("get", "--raw", path + "Stderr").stdout == "err 1\nerr 2\nerr 3\n"
