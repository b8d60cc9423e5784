"""`kubectl exec`, `attach` and `run -it`, on compute nodes, with both runtimes."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import BUSYBOX, RUNTIME, Cluster, Json, eventually, pod, terminated
from tests.e2e.test_mpi import mpi_pod

DRIVER = (Path(__file__).parent / "terminal_driver.py").read_text()
NASTY = ("a'b", 'c"d', "e\nf", "$(id)", "", "ü", "-n", "`true`", "\\", "--")
MIB = 1024 * 1024
SIZES = "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done"


def long_lived(name: str, runtime: str) -> Json:
    """A pod with an init container that has ended, a sidecar and a container that sleeps."""
    made = pod(name, "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")
    made["metadata"]["annotations"] = {RUNTIME: runtime}
    (main,) = made["spec"]["containers"]
    main |= {
        "env": [{"name": "WHO", "value": "me & 'you'"}],
        "workingDir": "/usr",
        "securityContext": {"runAsUser": 12, "runAsGroup": 34},
    }
    sleep = {"image": BUSYBOX, "command": ["sleep", "100000"]}
    made["spec"]["initContainers"] = [
        {"name": "side", "restartPolicy": "Always", **sleep},
        {"name": "init", "image": BUSYBOX, "command": ["true"]},
    ]
    return made


@pytest.fixture(scope="module", params=["apptainer", "podman"])
def target(shared: Cluster, request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, str]]:
    """A cluster and the name of a pod that runs."""
    name = f"exec-{request.param}"
    shared.create(long_lived(name, request.param))
    shared.wait_phase(name, "Running")
    yield shared, name
    shared.kubectl("delete", "pod", name, "--grace-period=1")


def on_terminal(
    cluster: Cluster, steps: list[tuple[str, Any]], *args: str
) -> subprocess.CompletedProcess[str]:
    """kubectl on a terminal, driven by steps (see terminal_driver)."""
    kubectl = ["kubectl", "--namespace", cluster.namespace, *args]
    argv = ["python3", "-c", DRIVER, json.dumps(steps), *kubectl]
    return cluster.run(argv, check=False, timeout_s=300)


def test_a_program_and_its_exit_code(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    tell = 'id -u; id -g; pwd; echo "$WHO"; echo wrong >&2; cat; exit 17'
    done = cluster.kubectl("exec", name, "-c", "main", "--", "sh", "-c", tell, check=False)
    assert done.stdout == "12\n34\n/usr\nme & 'you'\n"
    assert done.stderr == "wrong\ncommand terminated with exit code 17\n"
    assert done.returncode == 17
    done = cluster.kubectl("exec", name, "-c", "main", "--", "printf", "<%s>", *NASTY)
    assert done.stdout == "".join(f"<{word}>" for word in NASTY)
    killed = cluster.kubectl("exec", name, "--", "sh", "-c", "kill -9 $$", check=False)
    assert killed.returncode == 137


def test_a_program_that_is_missing(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    done = cluster.kubectl("exec", name, "-c", "main", "--", "no-such", check=False)
    assert done.returncode == 1
    assert 'exec: "no-such": executable file not found in $PATH' in done.stderr


def test_sidecars_are_entered_and_what_has_ended_is_not_found(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    assert cluster.kubectl("exec", name, "-c", "side", "--", "id", "-u").stdout == "0\n"
    done = cluster.kubectl("exec", name, "-c", "init", "--", "true", check=False)
    assert done.returncode == 1
    assert 'container not found ("init")' in done.stderr


def test_64_mib_through_a_program_and_back(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    script = (
        f"head -c {64 * MIB} /dev/urandom > big; sha256sum < big;"
        f" kubectl -n {cluster.namespace} exec -i {name} -c main -- cat < big | sha256sum; rm big"
    )
    first, second = cluster.run(["sh", "-c", f"cd $(mktemp -d); {script}"]).stdout.splitlines()
    assert first == second
    assert first.split()[0] != hashlib.sha256(b"").hexdigest()


def test_a_terminal_its_size_and_its_keys(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    in_main = ("exec", "-it", name, "-c", "main", "--")
    done = on_terminal(
        cluster, [("expect", "24 80"), ("size", [7, 55])], *in_main, "sh", "-c", SIZES
    )
    assert done.stdout.replace("\r", "") == ("24 80\n7 55\ncommand terminated with exit code 3\n")
    assert done.returncode == 3
    steps = [
        ("expect", "$ "),
        ("send", "tty; sleep 1000\n"),
        ("expect", "/dev/pts/"),
        ("send", "\x03"),
        ("expect", "$ "),
        ("send", "exit 5\n"),
    ]
    done = on_terminal(cluster, steps, *in_main, "sh")
    assert done.returncode == 5, done.stdout


def test_a_client_that_is_killed_hangs_up(target: tuple[Cluster, str]) -> None:
    cluster, name = target
    script = "echo up; trap 'echo hung up > /tmp/hup; exit' HUP; while :; do sleep 0.1; done"
    steps = [("expect", "up"), ("kill", "9")]
    on_terminal(cluster, steps, "exec", "-it", name, "-c", "main", "--", "sh", "-c", script)
    look = ("exec", name, "-c", "main", "--", "cat", "/tmp/hup")
    eventually(lambda: cluster.kubectl(*look, check=False).stdout == "hung up\n")


def test_a_container_that_ends_meanwhile(shared: Cluster) -> None:
    shared.create(pod("ends", "sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"))
    shared.wait_phase("ends", "Running")
    script = "touch /tmp/go; echo here; sleep 1000"
    done = shared.kubectl("exec", "ends", "--", "sh", "-c", script, check=False)
    assert done.stdout == "here\n"
    assert done.returncode == 137
    assert terminated(shared.wait_phase("ends", "Succeeded"))["exitCode"] == 0


def test_run_with_what_is_piped_to_it(shared: Cluster) -> None:
    argv = ("run", "piped", f"--image={BUSYBOX}", "-i", "--rm", "--restart=Never", "--")
    done = shared.kubectl(*argv, "sh", "-c", "cat; echo end; exit 4", stdin="a line\n", check=False)
    assert "a line\nend\n" in done.stdout
    assert done.returncode == 4, done.stderr
    assert "piped" not in shared.pods()


def test_run_and_attach_to_a_terminal(shared: Cluster) -> None:
    run = ("run", "repl", f"--image={BUSYBOX}", "-it", "--rm", "--restart=Never", "--", "sh")
    steps = [
        ("send", "\n"),
        ("expect", "# "),
        ("send", "tty; stty size\n"),
        ("expect", "/dev/pts/"),
        ("expect", "24 80"),
        ("send", "exit 6\n"),
    ]
    done = on_terminal(shared, steps, *run)
    assert done.returncode == 6, done.stdout
    assert "repl" not in shared.pods()


def test_attach_follows_and_types(shared: Cluster) -> None:
    made = pod("typed", "sh", "-c", "while read -r line; do echo got $line; done; echo end")
    made["spec"]["containers"][0] |= {"stdin": True, "stdinOnce": True}
    shared.create(made)
    shared.wait_phase("typed", "Running")
    done = shared.kubectl("attach", "-i", "typed", stdin="one\ntwo\n")
    assert "got one\ngot two\nend\n" in done.stdout
    shared.wait_phase("typed", "Succeeded")
    assert shared.logs("typed") == "got one\ngot two\nend\n"


def test_beside_the_first_rank_of_an_mpi_run(cluster: Cluster) -> None:
    """Ranks are nobody's process 1: what is sent to that is for all of them, on both nodes."""
    ready = "echo ready $SLURM_PROCID; while :; do sleep 0.2; done"
    made = mpi_pod("ranks", "sh", "-c", f"trap 'echo got $SLURM_PROCID; exit 7' TERM; {ready}")
    made["spec"]["containers"][0]["env"] = [{"name": "WHO", "value": "me"}]
    cluster.create(made)
    eventually(
        lambda: cluster.kubectl("logs", "ranks", check=False).stdout.count("ready") == 4,
        timeout_s=180,
    )
    others = 'for p in /proc/[0-9]*; do tr "\\0" " " <$p/cmdline; echo; done 2>/dev/null'
    beside = f'{others} | grep -c "[e]cho ready"'
    tell = f'echo "$WHO $SLURM_PROCID$PMIX_RANK"; cat; {beside}; exit 3'
    done = cluster.kubectl(
        "exec", "-i", "ranks", "--", "sh", "-c", tell, stdin="typed\n", check=False
    )
    assert done.stdout.splitlines()[:2] == ["me ", "typed"]
    assert int(done.stdout.splitlines()[2]) >= 2
    assert done.returncode == 3
    on = ("exec", "-it", "ranks", "--", "sh", "-c", "stty size; exit 4")
    assert on_terminal(cluster, [("expect", "24 80")], *on).returncode == 4
    cluster.kubectl("exec", "ranks", "--", "sh", "-c", "kill -TERM 1; true")
    cluster.wait_phase("ranks", "Failed")
    assert sorted(re.findall(r"got \d", cluster.logs("ranks"))) == [f"got {n}" for n in range(4)]
