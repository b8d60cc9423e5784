"""Pods that must be refused, each with the field and the words that its refusal must name."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.e2e.canary import CANARY
from tests.e2e.cluster import BUSYBOX, FLAGS, MPI_FLAGS, Json, pod

FLAGS_FIELD = f"metadata.annotations[{FLAGS}]"


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
    ports = [{"containerPort": 80, "hostIP": "127.0.0.1"}]
    more = {"name": "more", "image": BUSYBOX, "command": ["true"], "ports": ports}
    found.spec("init-host-ip", "initContainers[0].ports[0].hostIP", {"initContainers": [more]})
    two = pod("second-host-ip", "true")
    two["spec"]["containers"].append(more)
    path = "spec.containers[1].ports[0].hostIP"
    found._add("second-host-ip", two, "UnsupportedField", path, ())
    term: Json = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
    for path, value in {
        "hostPID": True,
        "hostIPC": True,
        "imagePullSecrets": [{"name": "canary"}],
        "dnsConfig": {"nameservers": ["10.0.0.1"]},
        "securityContext.fsGroup": 1,
        "securityContext.supplementalGroups": [1],
    }.items():
        outer, _, inner = path.partition(".")
        spec = {outer: {inner: value} if inner else value}
        found.spec(f"spec-{path.replace('.', '-').lower()}", path, spec)
    for kind in ("podAffinity", "podAntiAffinity"):
        needed = "requiredDuringSchedulingIgnoredDuringExecution"
        spec = {"affinity": {kind: {needed: [term]}}}
        found.spec(f"spec-{kind.lower()}", f"affinity.{kind}.{needed}", spec)
    for name, reason in (
        ("kernel.msgmax", "SysctlForbidden"),
        ("net.core.somaxconn", "UnsupportedField"),
    ):
        sysctls = {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}
        found.spec(
            f"sysctl-{name.partition('.')[0]}", "securityContext.sysctls[0].name", sysctls, reason
        )
    dns = {"dnsConfig": {"nameservers": ["10.0.0.1"]}, "dnsPolicy": "None"}
    found.spec("dns-none", "dnsPolicy", dns)


def _unsupported_of_container(found: Refusals) -> None:
    profile = {"seccompProfile": {"type": "Localhost", "localhostProfile": "canary"}}
    found.container(
        "container-seccomp", "securityContext.seccompProfile.type", {"securityContext": profile}
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


REFUSALS = _refusals()
