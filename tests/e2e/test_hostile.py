"""What must not run is refused with its field; what is only data stays data.

All Pods of a test are created together and waited for together. A canary's file name stands in
every string that could reach a shell: were one of them executed, the file would be there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.cluster import (
    BUSYBOX,
    ENTRYPOINT,
    Cluster,
    Json,
    eventually,
    has_ended,
    main_status,
    pod,
    terminated,
)

FLAGS = "slurm-job.hpk.io/flags"
MPI_FLAGS = "slurm-job.hpk.io/mpi-flags"
FLAGS_FIELD = f"metadata.annotations[{FLAGS}]"
CANARY = "/home/alice/canary"
CANARY_FILES = f"{CANARY} /home/alice/canary* /tmp/canary* /canary*"

NASTY = (
    "",
    " ",
    "a b",
    "'",
    '"',
    "\\",
    "\\n",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"; touch {CANARY} #",
    f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "',
    f"\n#SBATCH --wrap='touch {CANARY}'\n",
    f"\r\n#SBATCH --output={CANARY}\r\n",
    "*",
    "~",
    "%j %x",
    "{{ canary }} {% raw %}",
    "a,b=c:d|e",
    "-rf",
    "--",
    "é",
    "漢字",
    "\u202egnp.exe",
    "\U0001f600",
    "\x01\x02\x07\x1b[31m\x7f",
    "\u0085\u2028\u2029",
    "\t\v\f",
)


@dataclass(frozen=True)
class Refusal:
    """A Pod that must be refused.

    :param field: the path its message must begin with.
    :param says: what the message must hold besides.
    """

    pod: Json
    reason: str
    field: str
    says: tuple[str, ...] = ()


@dataclass
class Refusals:
    """Refusals by their Pods' names."""

    all: dict[str, Refusal] = field(default_factory=dict)

    def flags(self, name: str, text: str, *says: str) -> None:
        self.annotation(name, FLAGS, text, *says)

    def annotation(self, name: str, key: str, text: str, *says: str) -> None:
        made = pod(name, "true", annotations={key: text})
        reason = "InvalidField" if "\0" in text else "InvalidAnnotation"
        self._add(name, made, reason, f"metadata.annotations[{key}]", says)

    def spec(self, name: str, path: str, spec: Json, reason: str = "UnsupportedField") -> None:
        self._add(name, pod(name, "true", spec=spec), reason, f"spec.{path}", ())

    def container(
        self, name: str, path: str, container: Json, reason: str = "UnsupportedField", *says: str
    ) -> None:
        made = pod(name, *(() if "command" in container else ("true",)), container=container)
        self._add(name, made, reason, f"spec.containers[0].{path}", says)

    def volume(self, name: str, source: Json) -> None:
        made = pod(f"volume-{name.lower()}", "true", spec={"volumes": [{"name": "v", **source}]})
        path = f"spec.volumes[0].{name}"
        self._add(made["metadata"]["name"], made, "UnsupportedField", path, ())

    def _add(self, name: str, made: Json, reason: str, path: str, says: tuple[str, ...]) -> None:
        # Bound by hand: the scheduler has opinions of its own about some of these fields.
        made["spec"].setdefault("nodeName", "main")
        self.all[name] = Refusal(made, reason, path, says)


def _refusals() -> dict[str, Refusal]:
    found = Refusals()
    _bad_flags(found)
    _bad_values(found)
    _bad_sizes(found)
    _unsupported_of_pod(found)
    _unsupported_of_container(found)
    _unsupported_volumes(found)
    return found.all


def _bad_flags(found: Refusals) -> None:
    found.flags("flag-unknown", "--no-such-flag=1", "unknown sbatch option --no-such-flag")
    found.flags("flag-near", "--ntask=2", "did you mean --ntasks?")
    found.flags("flag-short-unknown", "-Z", "unknown sbatch option -Z")
    for name, text in {
        "wrap": f'--wrap="touch {CANARY}"',
        "output": f"--output={CANARY}",
        "error": f"--error={CANARY}",
        "input": "--input=/etc/passwd",
        "export": "--export=ALL,LD_PRELOAD=/home/alice/canary.so",
        "export-file": "--export-file=/home/alice/canary",
        "get-user-env": "--get-user-env",
        "array": "--array=1-3",
        "uid": "--uid=0",
        "gid": "--gid=0",
        "chdir": "--chdir=/",
        "job-name": "--job-name=canary",
        "requeue": "--requeue",
        "no-requeue": "--no-requeue",
        "signal": "--signal=B:KILL@60",
        "propagate": "--propagate=ALL",
        "container": "--container=/home/alice/bundle",
        "clusters": "--clusters=all",
        "test-only": "--test-only",
        "wait": "--wait",
        "parsable": "--parsable",
        "help": "--help",
        "bbf": f"--bbf={CANARY}",
        "open-mode": "--open-mode=truncate",
        "nodefile": "--nodefile=/etc/passwd",
    }.items():
        found.flags(f"flag-{name}", text, f"sbatch option --{name} is not for Pods")
    for letter, name in {"o": "output", "D": "chdir", "a": "array", "J": "job-name"}.items():
        found.flags(f"flag-short-{name}", f"-{letter} {CANARY}", f"sbatch option -{letter} is not")
    found.flags("flag-abbreviated", f"--outp={CANARY}", "unknown sbatch option --outp")
    found.flags("flag-script", "/home/alice/canary.sh", "'/home/alice/canary.sh' is not an option")
    found.flags("flag-dashes", "-- /home/alice/canary.sh", "'--' is not an option")
    found.flags("flag-open-quote", '--comment="never closed', "No closing quotation")
    found.flags("flag-no-value", "--ntasks", "lacks a value")
    for name, text in {
        "semicolon": f"--mem=1G;touch${{IFS}}{CANARY}",
        "dollar": f"--mem=$(touch${{IFS}}{CANARY})",
        "backquote": f"--mem=`touch${{IFS}}{CANARY}`",
        "nothing": "--mem=",
        "option": "--mem=--wrap=canary",
    }.items():
        found.flags(f"value-{name}", text, "is not a value of sbatch option --mem")
    found.flags("value-zero", "--ntasks=0", "'0' is not a value of sbatch option --ntasks")
    found.flags("value-negative", "--ntasks=-1", "'-1' is not a value")
    found.flags("value-words", "--ntasks=two", "'two' is not a value")
    for name, char in {
        "newline": "\n",
        "return": "\r",
        "escape": "\x1b",
        "accent": "é",
        "han": "漢",
        "right-to-left": "\u202e",
        "line-separator": "\u2028",
    }.items():
        text = f"--ntasks=1 {char}#SBATCH --wrap=canary"
        found.flags(f"char-{name}", text, f"contains {char!a}: only printable ASCII")
    found.flags("char-nul", "--ntasks=1\0--uid=0", "contains a NUL byte")
    found.annotation("char-nul-elsewhere", "example.org/note", "a\0b", "contains a NUL byte")
    found.flags("flag-long", "--comment=" + "x" * 20_000, "is longer than 16384 characters")
    found.flags("flag-nodes", "--nodes=99", "asks for 99 nodes, but partition main has 4")
    found.flags("flag-time", "--time=99-0", "is more than partition main allows, 1-00:00:00")
    found.flags("flag-partition", "--partition=debug", "by nodeSelector instead")
    found.annotation("mpi-prolog", MPI_FLAGS, f"--task-prolog={CANARY}", "--task-prolog is not")
    found.annotation("mpi-program", MPI_FLAGS, f"-n 2 touch {CANARY}", "'touch' is not a launcher")
    found.annotation("mpi-newline", MPI_FLAGS, "-n 2\n--wrap", "contains '\\n'")
    found.annotation(
        "runtime-unknown",
        "slurm-job.hpk.io/runtime",
        f"sh -c 'touch {CANARY}'",
        "no container runtime",
    )
    found.annotation(
        "annotation-misspelt", "slurm-job.hpk.io/flgas", "--ntasks=1", "did you mean flags?"
    )
    both = pod("annotation-twice", "true", annotations={FLAGS: "-n1", "slurm.hpk.io/flags": "-n2"})
    path = "metadata.annotations[slurm.hpk.io/flags]"
    found._add("annotation-twice", both, "InvalidAnnotation", path, (f"contradicts {FLAGS_FIELD}",))


def _bad_values(found: Refusals) -> None:
    nul = "contains a NUL byte"
    found.container("nul-command", "command[1]", {"command": ["echo", "a\0b"]}, "InvalidField", nul)
    found.container("nul-args", "args[0]", {"args": ["\0"]}, "InvalidField", nul)
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "x\0y"}]
    found.container("nul-env", "env[1].value", {"env": env}, "InvalidField", nul)
    found.container("nul-dir", "workingDir", {"workingDir": "/a\0"}, "InvalidField", nul)
    found.container("nul-image", "image", {"image": f"{BUSYBOX}\0x"}, "InvalidField", nul)
    relative = {"workingDir": "relative"}
    found.container("dir-relative", "workingDir", relative, "InvalidField", "an absolute path")
    message = {"terminationMessagePath": "/dev/a\0"}
    found.container("nul-message", "terminationMessagePath", message, "InvalidField", nul)
    message = {"terminationMessagePath": "relative"}
    found.container("message-relative", "terminationMessagePath", message, "InvalidField")


def _bad_sizes(found: Refusals) -> None:
    def resources(name: str, kind: str, resource: str, amount: str, *says: str) -> None:
        asked: Json = {kind: {resource: amount}}
        path = f"resources.requests[{resource}]" if kind == "requests" else "resources.limits"
        container = {"resources": asked}
        found.container(name, path, container, f"OutOf{resource}", *says)

    resources("size-cpu", "requests", "cpu", "5", "requested: 5, used: 0, capacity: 4")
    resources("size-cpu-absurd", "requests", "cpu", "1e15", "capacity: 4")
    resources("size-memory", "requests", "memory", "1Ti", "capacity: 8388608000", "partition")
    resources("size-memory-absurd", "requests", "memory", "8E", "capacity: 8388608000")
    resources("size-memory-limit", "limits", "memory", "9000Mi", "capacity: 8388608000")
    resources("size-gpu", "limits", "nvidia.com/gpu", "3", "requested: 3, used: 0, capacity: 2")


def _unsupported_of_pod(found: Refusals) -> None:
    more = {"name": "more", "image": BUSYBOX, "command": ["true"], "tty": True}
    found.spec("init-tty", "initContainers[0].tty", {"initContainers": [more]})
    two = pod("second-tty", "true")
    two["spec"]["containers"].append(more)
    found._add("second-tty", two, "UnsupportedField", "spec.containers[1].tty", ())
    term: Json = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
    for path, value in {
        "hostPID": True,
        "hostIPC": True,
        "imagePullSecrets": [{"name": "canary"}],
        "dnsConfig": {"nameservers": ["10.0.0.1"]},
        "securityContext.fsGroup": 1,
        "securityContext.supplementalGroups": [1],
        "securityContext.sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}],
    }.items():
        outer, _, inner = path.partition(".")
        spec = {outer: {inner: value} if inner else value}
        found.spec(f"spec-{path.replace('.', '-').lower()}", path, spec)
    for kind in ("podAffinity", "podAntiAffinity"):
        needed = "requiredDuringSchedulingIgnoredDuringExecution"
        spec = {"affinity": {kind: {needed: [term]}}}
        found.spec(f"spec-{kind.lower()}", f"affinity.{kind}.{needed}", spec)
    dns = {"dnsConfig": {"nameservers": ["10.0.0.1"]}, "dnsPolicy": "None"}
    found.spec("dns-none", "dnsPolicy", dns)


def _unsupported_of_container(found: Refusals) -> None:
    for path, value in {
        "stdin": True,
        "tty": True,
        "securityContext.allowPrivilegeEscalation": True,
    }.items():
        outer, _, inner = path.partition(".")
        container = {outer: {inner: value} if inner else value}
        found.container(f"container-{path.replace('.', '-').lower()}", path, container)
    for path, context in {
        "capabilities.add": {"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}},
        "seccompProfile.type": {
            "seccompProfile": {"type": "Localhost", "localhostProfile": "canary"}
        },
    }.items():
        name = f"container-{path.replace('.', '-').lower()}"
        found.container(name, f"securityContext.{path}", {"securityContext": context})
    found.container(
        "non-root",
        "securityContext.runAsNonRoot",
        {"securityContext": {"runAsNonRoot": True}},
        "CreateContainerConfigError",
        "container has runAsNonRoot and image will run as root",
    )
    ask = {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": ask}]
    path = "env[1].valueFrom.resourceFieldRef.resource"
    found.container("env-disk", path, {"env": env})
    disk = {"requests": {"ephemeral-storage": "1Gi"}}
    path = "resources.requests[ephemeral-storage]"
    found.container("resource-disk", path, {"resources": disk})
    other = {"limits": {"example.org/canary": "1"}}
    path = "resources.limits[example.org/canary]"
    found.container("resource-other", path, {"resources": other})
    hook = {"preStop": {"tcpSocket": {"port": 1}}}
    found.container("container-hook", "lifecycle.preStop.tcpSocket", {"lifecycle": hook})
    ports = [{"containerPort": 80, "hostIP": "127.0.0.1"}]
    found.container("port-host-ip", "ports[0].hostIP", {"ports": ports})


def _unsupported_volumes(found: Refusals) -> None:
    for name, source in {
        "persistentVolumeClaim": {"claimName": "canary"},
        "ephemeral": {
            "volumeClaimTemplate": {
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                }
            }
        },
        "nfs": {"server": "canary", "path": "/"},
        "csi": {"driver": "canary.example.org"},
        "iscsi": {"targetPortal": "10.0.0.1:1", "iqn": "iqn.2001-04.org.example:s", "lun": 0},
        "fc": {"targetWWNs": ["5"], "lun": 0},
        "flexVolume": {"driver": "example.org/canary"},
        "image": {"reference": BUSYBOX},
    }.items():
        found.volume(name, {name: source})
    for name, path in {
        "own": "/home/alice/.hpk/pki",
        "own-cache": "/home/alice/.cache/hpk",
    }.items():
        source = {"volumes": [{"name": "v", "hostPath": {"path": path}}]}
        found.spec(f"host-path-{name}", "volumes[0].hostPath.path", source, "HostPathForbidden")
    mounts = [{"name": "v", "mountPath": "/v", "subPathExpr": "$(LATE)"}]
    late = {"name": "LATE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}
    container = {"env": [late], "volumeMounts": mounts}
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    made = pod("late-sub-path", "true", spec=spec, container=container)
    path = "spec.containers[0].volumeMounts[0].subPathExpr"
    found._add("late-sub-path", made, "UnsupportedField", path, ())


REFUSALS = _refusals()
BYSTANDER = "bystander"


def canaries(cluster: Cluster) -> list[str]:
    """The canary's files, on every host."""
    found: list[str] = []
    for host in cluster.machine.lab.hosts:
        listed = cluster.run(
            ["sh", "-c", f"ls -d {CANARY_FILES} 2>/dev/null"], host=host.name, check=False
        )
        found += [f"{host.name}: {line}" for line in listed.stdout.split()]
    return found


@pytest.fixture(scope="module", autouse=True)
def others_go_on(shared: Cluster) -> Iterator[None]:
    """Nothing was executed, the kubelet is the same, a Pod beside all this never noticed."""
    cluster = shared
    cluster.create(pod(BYSTANDER, "sleep", "100000"))
    cluster.wait_phase(BYSTANDER, "Running")
    kubelet = cluster.kubelet_pid()
    cluster.run(["touch", f"{CANARY}-control"])
    assert canaries(cluster), "a canary would not be seen"
    cluster.run(["rm", f"{CANARY}-control"])
    yield
    assert not canaries(cluster)
    assert cluster.kubelet_pid() == kubelet
    seen = cluster.get("pod", BYSTANDER)
    assert seen["status"]["phase"] == "Running"
    assert main_status(seen)["restartCount"] == 0


@pytest.fixture(scope="module")
def refused(shared: Cluster) -> dict[str, Json]:
    """All Pods of REFUSALS, as they ended."""
    shared.create(*(refusal.pod for refusal in REFUSALS.values()))
    return shared.wait_pods(REFUSALS)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_pod_is_refused_by_reason_and_field(refused: dict[str, Json], name: str) -> None:
    want, status = REFUSALS[name], refused[name]["status"]
    assert (status["phase"], status["reason"]) == ("Failed", want.reason), status["message"]
    assert status["message"].startswith(want.field), status["message"]
    for words in want.says:
        assert words in status["message"]


def test_refused_pods_never_reached_slurm(shared: Cluster, refused: dict[str, Json]) -> None:
    # Accounting may lag behind the queue, which remembers jobs for a minute after their end.
    queued = shared.run(["squeue", "-h", "-a", "-t", "all", "-o", "%j"]).stdout
    known = shared.run(["sacct", "-n", "-X", "-P", "-S", "now-1days", "-o", "JobName"]).stdout
    names = {line.partition("@")[0] for line in (queued + known).splitlines()}
    assert f"{shared.namespace}/{BYSTANDER}" in names
    assert not names & {f"{shared.namespace}/{name}" for name in refused}


def test_a_refusal_is_an_event_and_reads_well(shared: Cluster, refused: dict[str, Json]) -> None:
    def warned() -> list[Json]:
        return [event for event in shared.events("flag-unknown") if event["type"] == "Warning"]

    (event,) = eventually(warned, what="the event of a refusal")
    assert event["reason"] == "InvalidAnnotation"
    assert event["message"] == refused["flag-unknown"]["status"]["message"]
    listed = shared.kubectl("get", "pod", "flag-unknown", "--no-headers").stdout.split()
    assert listed[:3] == ["flag-unknown", "0/1", "InvalidAnnotation"]
    described = shared.kubectl("describe", "pod", "flag-unknown").stdout
    assert "unknown sbatch option --no-such-flag" in described


def test_what_the_api_server_refuses_never_becomes_a_pod(shared: Cluster) -> None:
    """Names cannot be nasty: upstream's own validation says so, and names the field."""
    label = pod("bad-label", "true")
    label["metadata"]["labels"] = {"note": f"$(touch {CANARY})\n"}
    for made, path in (
        (pod("bad$(canary)", "true"), "metadata.name"),
        (pod("bad-container", "true", container={"name": "a b;c"}), "spec.containers[0].name"),
        (label, "metadata.labels"),
        (pod("bad-image", "true", image=" x"), "spec.containers[0].image"),
        (pod("bad-env", "true", container={"env": [{"name": "é=", "value": ""}]}), "env[0].name"),
        (
            pod("bad-right", "true", container={"securityContext": {"privileged": True}}),
            "spec.containers[0].securityContext.privileged",
        ),
        (
            pod("bad-negative", "true", resources={"requests": {"cpu": "-1"}}),
            "spec.containers[0].resources.requests[cpu]",
        ),
    ):
        done = shared.kubectl("create", "-f", "-", stdin=json.dumps(made), check=False)
        assert done.returncode != 0
        assert path in done.stderr, done.stderr


TELL = "cat /proc/$$$$/cmdline; printf '\\n--\\n'; cat /proc/$$$$/environ; printf '\\n--\\n'; pwd"
"""Prints argv, environment and directory as execve(2) got them. `$$$$` is a Pod's way to `$$`."""

NASTY_DIR = f"/é $(touch {CANARY}) `touch {CANARY}` ';\\ \t\""
NASTY_ENV = {f"N{index}": text for index, text in enumerate(NASTY)} | {
    "odd name; touch canary": "x",
    "$(touch canary)": "y",
    "a.b-c": "z",
    "LD_PRELOAD": "/home/alice/canary.so",
    "APPTAINERENV_CANARY": "1",
    "SBATCH_WRAP": "canary",
    "BASH_ENV": CANARY,
    "ENV": "",
}


def _nasty_pod(name: str, image: str) -> Json:
    container: Json = {
        "args": list(NASTY),
        "env": [{"name": key, "value": value} for key, value in NASTY_ENV.items()],
        "workingDir": NASTY_DIR,
    }
    annotations = {f"example.org/n{index}": text for index, text in enumerate(NASTY)}
    return pod(name, "sh", "-c", TELL, image=image, annotations=annotations, container=container)


LONG_NAME = ".".join(["n" * 60] * 4)
BIG_ENV = [{"name": f"BIG{index}", "value": "x" * 100_000} for index in range(10)]


@pytest.fixture(scope="module")
def ran(shared: Cluster) -> dict[str, Json]:
    """Pods with strange content, as they ended."""
    pods = (
        _nasty_pod("nasty-root", BUSYBOX),
        _nasty_pod("nasty-user", ENTRYPOINT),
        pod(
            "message-path",
            "sh",
            "-c",
            'printf %s "$0" > "$0"',
            "/srv/a, \"b\"='é' $(touch canary)",
            container={"terminationMessagePath": "/srv/a, \"b\"='é' $(touch canary)"},
        ),
        pod("argument-long", "true", "x" * 200_000),
        pod("arguments-many", "sh", "-c", "echo $#", *["x" * 1000] * 1000),
        pod("env-big", "sh", "-c", "echo ${#BIG9}", container={"env": BIG_ENV}),
        pod("name-empty", ""),
        pod("name-newline", f"\n#SBATCH --wrap='touch {CANARY}'\n"),
        pod(LONG_NAME, "true"),
        pod("small", "true", resources={"requests": {"cpu": "0", "memory": "0"}}),
        pod("tiny", "true", resources={"limits": {"cpu": "1m", "memory": "1"}}),
    )
    shared.create(*pods)
    return shared.wait_pods([made["metadata"]["name"] for made in pods])


def log_bytes(cluster: Cluster, name: str) -> bytes:
    command = f"kubectl --namespace {cluster.namespace} logs {name} | base64 -w0"
    return base64.b64decode(cluster.run(["sh", "-c", command]).stdout)


@pytest.mark.parametrize("name", ["nasty-root", "nasty-user"])
def test_argv_environment_and_directory_arrive_byte_for_byte(
    shared: Cluster, ran: dict[str, Json], name: str
) -> None:
    assert ran[name]["status"]["phase"] == "Succeeded", ran[name]["status"]
    argv, environ, directory = log_bytes(shared, name).split(b"\n--\n")
    words = ["sh", "-c", TELL.replace("$$", "$"), *NASTY]
    assert argv == b"".join(word.encode() + b"\0" for word in words)
    variables = dict(item.split(b"=", 1) for item in environ.rstrip(b"\0").split(b"\0"))
    for key, value in NASTY_ENV.items():
        assert variables[key.encode()] == value.encode()
    assert directory == NASTY_DIR.encode() + b"\n"
    for foreign in ("APPTAINER_", "SINGULARITY_", "SLURM_", "HPK_"):
        assert not [key for key in variables if key.startswith(foreign.encode())]


def test_a_nasty_message_path_is_a_path(ran: dict[str, Json]) -> None:
    assert terminated(ran["message-path"])["message"] == "/srv/a, \"b\"='é' $(touch canary)"


def test_an_argument_beyond_the_kernels_limit_is_a_start_error(ran: dict[str, Json]) -> None:
    ended = terminated(ran["argument-long"])
    assert ran["argument-long"]["status"]["phase"] == "Failed"
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "argument list too long" in ended["message"]


def test_a_megabyte_of_arguments_or_environment_arrives(
    shared: Cluster, ran: dict[str, Json]
) -> None:
    assert shared.logs("arguments-many") == "999\n"
    assert shared.logs("env-big") == "100000\n"


def test_a_program_without_a_name_or_with_a_nasty_one_cannot_start(ran: dict[str, Json]) -> None:
    assert terminated(ran["name-empty"])["reason"] == "StartError"
    ended = terminated(ran["name-newline"])
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no such file or directory" in ended["message"]


def test_the_longest_name_runs(shared: Cluster, ran: dict[str, Json]) -> None:
    assert ran[LONG_NAME]["status"]["phase"] == "Succeeded"
    assert len(shared.job_ids(LONG_NAME)) == 1
    assert eventually(lambda: shared.events(LONG_NAME), what="its events")


def test_no_resources_and_next_to_none_get_a_usable_job(ran: dict[str, Json]) -> None:
    for name in ("small", "tiny"):
        assert ran[name]["status"]["phase"] == "Succeeded", ran[name]["status"]


def test_a_comment_with_everything_in_it_stays_a_comment(shared: Cluster) -> None:
    text = f"# $(touch {CANARY}) `touch {CANARY}` ; | & > {CANARY} \\ %j * ~ #SBATCH --uid=0 'q'"
    flags = f'--hold --comment "{text.replace(chr(92), chr(92) * 2)}"'
    shared.create(pod("commented", "true", annotations={FLAGS: flags}))
    (job,) = eventually(lambda: shared.job_ids("commented"), what="its job")
    shown = shared.run(["scontrol", "show", "job", str(job)]).stdout
    assert f"Comment={text}" in [line.strip() for line in shown.splitlines()]
    assert "UserId=alice(20001)" in shown
    shared.run(["scontrol", "release", str(job)])
    assert shared.wait_phase("commented", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"


SLURM_REFUSALS = {
    "--account=nobody": ("SlurmInvalidAccount", "Invalid account"),
    "--qos=nothing": ("SlurmInvalidQos", "Invalid qos"),
    "--constraint=nowhere": ("SlurmInvalidConstraint", "Invalid feature specification"),
    "--reservation=never": ("SlurmInvalidReservation", "reservation"),
    "--licenses=nobody:1": ("SlurmInvalidLicenses", "Invalid license specification"),
    "--nodelist=nowhere": ("SlurmInvalidNodelist", "Invalid node name specified"),
}


def test_what_slurm_itself_refuses_fails_with_slurms_words(shared: Cluster) -> None:
    names = {f"slurm-{index}": flags for index, flags in enumerate(SLURM_REFUSALS)}
    shared.create(*(pod(n, "true", annotations={FLAGS: flags}) for n, flags in names.items()))
    found = shared.wait_pods(names)
    told = {
        flags: (found[name]["status"].get("reason"), found[name]["status"].get("message", ""))
        for name, flags in names.items()
    }
    assert {flags: reason for flags, (reason, _) in told.items()} == {
        flags: reason for flags, (reason, _) in SLURM_REFUSALS.items()
    }, told
    for flags, (_, words) in SLURM_REFUSALS.items():
        assert words in told[flags][1]
    assert {item["status"]["phase"] for item in found.values()} == {"Failed"}


BAD_IMAGES = {
    "image-command": f"registry.lab:5000/$(touch {CANARY})",
    "image-newline": f"registry.lab:5000/busybox:latest\n#SBATCH --wrap='touch {CANARY}'",
    "image-semicolon": f"registry.lab:5000/busybox;touch {CANARY}",
    "image-option": "--registry.lab:5000/busybox",
    "image-accent": "registry.lab:5000/buséybox",
    "image-upper": "registry.lab:5000/BusyBox",
    "image-path": "../../../../home/alice/canary",
    "image-scheme": "docker-archive:/home/alice/canary.tar",
}
MISSING_IMAGES = {
    "image-missing": ("registry.lab:5000/no-such-image:v1", "no-such-image:v1"),
    "image-no-tag": ("registry.lab:5000/busybox:no-such-tag", "busybox:no-such-tag"),
    "image-no-host": ("no-such-host.lab/busybox:latest", "no-such-host.lab"),
    "image-no-answer": ("127.0.0.1:9/busybox:latest", "127.0.0.1:9"),
}


def _waiting(found: Json) -> Any:
    statuses = found["status"].get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("waiting") or {}


def test_image_names_that_are_none(shared: Cluster) -> None:
    shared.create(*(pod(name, "true", image=image) for name, image in BAD_IMAGES.items()))
    found = shared.wait_pods(
        BAD_IMAGES, lambda item: _waiting(item).get("reason") == "InvalidImageName"
    )
    for name, image in BAD_IMAGES.items():
        assert found[name]["status"]["phase"] == "Pending"
        message = _waiting(found[name])["message"]
        assert message.startswith(f"couldn't parse image name {image!r}"), message
    shared.kubectl("delete", "pod", *BAD_IMAGES, "--timeout=60s")


def test_images_that_cannot_be_had(shared: Cluster) -> None:
    shared.create(*(pod(name, "true", image=image) for name, (image, _) in MISSING_IMAGES.items()))
    first = shared.wait_pods(
        MISSING_IMAGES, lambda item: "Pull" in _waiting(item).get("reason", "")
    )
    then = shared.wait_pods(
        MISSING_IMAGES, lambda item: _waiting(item).get("reason") == "ImagePullBackOff"
    )
    for name, (image, words) in MISSING_IMAGES.items():
        assert _waiting(first[name])["reason"] in ("ErrImagePull", "ImagePullBackOff")
        message = _waiting(then[name])["message"]
        assert message.startswith(f'Back-off pulling image "{image}": ErrImagePull: ')
        assert words in message.partition("ErrImagePull")[2]
        assert then[name]["status"]["phase"] == "Pending"
    assert "not found" in _waiting(then["image-missing"])["message"]
    reasons = {event["reason"] for event in shared.events("image-missing")}
    assert {"Failed", "BackOff"} <= reasons
    done = shared.kubectl("logs", "image-missing", check=False)
    assert "trying and failing to pull image" in done.stderr
    shared.kubectl("delete", "pod", *MISSING_IMAGES, "--timeout=60s")
    assert not shared.job_ids("image-missing")


def test_a_debugger_is_refused_and_its_pod_goes_on(shared: Cluster) -> None:
    shared.create(pod("debugged", "sleep", "100000"))
    shared.wait_phase("debugged", "Running")
    shared.kubectl("debug", "debugged", f"--image={BUSYBOX}", "-c", "probe", "--", "touch", CANARY)

    def refused() -> Any:
        return shared.get("pod", "debugged")["status"].get("ephemeralContainerStatuses")

    (status,) = eventually(refused, what="the debugger's status")
    assert status["name"] == "probe"
    assert status["state"]["terminated"]["reason"] == "UnsupportedField"
    assert status["state"]["terminated"]["message"].startswith("spec.ephemeralContainers[0]: ")
    assert shared.get("pod", "debugged")["status"]["phase"] == "Running"
    shared.kubectl("delete", "pod", "debugged", "--grace-period=1", "--timeout=60s")


def test_a_pod_created_after_all_this_runs(
    shared: Cluster, refused: dict[str, Json], ran: dict[str, Json]
) -> None:
    assert all(has_ended(found) for found in (*refused.values(), *ran.values()))
    shared.create(pod("after", "echo", "still here"))
    assert shared.wait_phase("after", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    assert shared.logs("after") == "still here\n"
