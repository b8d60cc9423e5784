"""The table of sbatch's options: which a Pod may give, with what values, and why not the others.

Covers Slurm 22.05 to 26.05 (sbatch(1)). An option that is in no row is refused, so that a new
Slurm never gives a Pod a way around its supervisor. Values are matched whole, in ASCII, by the
row's pattern; Slurm itself judges whether they make sense.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AllowedOption:
    """An option a Pod may give.

    :param pattern: what its value must match whole; None where it takes no value.
    :param example: a value that is right, for the message when one is not.
    :param optional: whether the value may be left out.
    """

    pattern: re.Pattern[str] | None
    example: str = ""
    optional: bool = False


def _value(pattern: str, example: str, *, optional: bool = False) -> AllowedOption:
    return AllowedOption(re.compile(pattern, re.ASCII), example, optional)


_FLAG = AllowedOption(None)
_COUNT = _value(r"[1-9][0-9]{0,8}", "4")
_NUMBER = _value(r"[0-9]{1,9}", "0")
_NAME = _value(r"[A-Za-z0-9_.@+-]+", "name")
_NAMES = _value(r"[A-Za-z0-9_.@+,-]+", "name,other")
_SIZE = _value(r"[0-9]{1,15}[KkMmGgTt]?[Bb]?", "4G")
_DURATION = (
    r"(?:[0-9]{1,9}|[0-9]{1,9}:[0-9]{1,2}|[0-9]{1,9}:[0-9]{1,2}:[0-9]{1,2}"
    r"|[0-9]{1,6}-[0-9]{1,2}(?::[0-9]{1,2}){0,2})"
)
_TIME = _value(rf"{_DURATION}|UNLIMITED|INFINITE|-1", "1-12:00:00")
_MOMENT = _value(r"[A-Za-z0-9:/+-]{1,64}(?: [0-9:]{1,8}(?: ?[AaPp][Mm])?)?", "2030-01-31T12:00")
_HOSTS = _value(r"[A-Za-z0-9_.,\[\]-]+", "n[1-4]")
_FEATURES = _value(r"[A-Za-z0-9_.:+*&|()\[\],=-]+", "a100&ib")
_GRES = _value(r"[A-Za-z0-9_.:/,+-]+(?:\([A-Za-z0-9_,:-]+\))?", "gpu:2")
_GPUS = _value(r"(?:[A-Za-z0-9_.-]+:)?[0-9]{1,9}(?:,[A-Za-z0-9_.-]+:[0-9]{1,9})*", "a100:2")
_BINDING = _value(r"[A-Za-z0-9_:,.*/x-]+", "none")
_TEXT = _value(r"[\x20-\x7e]{1,1024}", "some words")

ALLOWED: dict[str, AllowedOption] = {
    "account": _NAME,
    "acctg-freq": _value(r"[a-z0-9=,]+", "task=30"),
    "batch": _FEATURES,
    "bb": _TEXT,
    "begin": _MOMENT,
    "comment": _TEXT,
    "constraint": _FEATURES,
    "contiguous": _FLAG,
    "core-spec": _NUMBER,
    "cores-per-socket": _COUNT,
    "cpu-freq": _value(r"[A-Za-z0-9:,-]+", "High"),
    "cpus-per-gpu": _COUNT,
    "cpus-per-task": _COUNT,
    "deadline": _MOMENT,
    "delay-boot": _NUMBER,
    "dependency": _value(r"[a-z]+(?::[0-9+_]+)*(?:[,?][a-z]+(?::[0-9+_]+)*)*", "afterok:1234"),
    "distribution": _value(r"[A-Za-z*:,=-]+[0-9]*", "block:cyclic"),
    "exclude": _HOSTS,
    "exclusive": _value(r"user|mcs|topo", "user", optional=True),
    "extra": _TEXT,
    "extra-node-info": _value(r"[0-9*]+(?::[0-9*]+){0,2}", "2:8:1"),
    "gpu-bind": _BINDING,
    "gpu-freq": _value(r"[A-Za-z0-9=,]+", "high"),
    "gpus": _GPUS,
    "gpus-per-node": _GPUS,
    "gpus-per-socket": _GPUS,
    "gpus-per-task": _GPUS,
    "gres": _GRES,
    "gres-flags": _value(r"[a-z,-]+", "enforce-binding"),
    "hint": _value(r"compute_bound|memory_bound|multithread|nomultithread", "nomultithread"),
    "hold": _FLAG,
    "kill-on-invalid-dep": _value(r"yes|no", "yes"),
    "licenses": _value(r"[A-Za-z0-9_.@:,|+-]+", "matlab:2"),
    "mail-type": _value(r"[A-Z0-9_,]+", "END,FAIL"),
    "mail-user": _value(r"[A-Za-z0-9_.@+-]+", "me@example.org"),
    "mcs-label": _NAME,
    "mem": _SIZE,
    "mem-bind": _BINDING,
    "mem-per-cpu": _SIZE,
    "mem-per-gpu": _SIZE,
    "mincpus": _COUNT,
    "network": _value(r"[A-Za-z0-9_=:,-]+", "single_node_vni"),
    "nice": _value(r"-?[0-9]{1,10}", "100", optional=True),
    "nodelist": _HOSTS,
    "nodes": _value(r"[1-9][0-9]{0,8}k?(?:-[1-9][0-9]{0,8}k?)?", "2"),
    "ntasks": _COUNT,
    "ntasks-per-core": _COUNT,
    "ntasks-per-gpu": _COUNT,
    "ntasks-per-node": _COUNT,
    "ntasks-per-socket": _COUNT,
    "overcommit": _FLAG,
    "oversubscribe": _FLAG,
    "partition": _NAMES,
    "power": _value(r"[a-z=,]+", "level"),
    "prefer": _FEATURES,
    "priority": _value(r"[0-9]{1,10}|TOP", "100"),
    "profile": _value(r"[A-Za-z,]+", "task"),
    "qos": _NAME,
    "reboot": _FLAG,
    "reservation": _NAMES,
    "segment": _COUNT,
    "sockets-per-node": _COUNT,
    "spread-job": _FLAG,
    "spread-segments": _FLAG,
    "stepmgr": _FLAG,
    "consolidate-segments": _FLAG,
    "switches": _value(rf"[0-9]{{1,9}}(?:@{_DURATION})?", "1@10:00"),
    "thread-spec": _COUNT,
    "threads-per-core": _COUNT,
    "time": _TIME,
    "time-min": _TIME,
    "tmp": _SIZE,
    "tres-bind": _value(r"[A-Za-z0-9_:/,.+*=-]+", "gres/gpu:closest"),
    "tres-per-task": _value(r"[A-Za-z0-9_:/,.=-]+", "cpu=4,gres/gpu=1"),
    "use-min-nodes": _FLAG,
    "wait-all-nodes": _value(r"[01]", "1"),
    "wckey": _value(r"[*]?[A-Za-z0-9_.@+-]+", "key"),
}

_IO = "the supervisor's log goes to a file of its own and the containers' output to their logs"
_ONE_JOB = "a Pod is exactly one Slurm job, whose script is HPK's"
_ENVIRONMENT = "a container's environment is what its Pod says"
_IDENTITY = "a job runs as the user HPK runs as"
_NOTHING = "it makes sbatch print something or do nothing"

REFUSED: dict[str, str] = {
    "array": _ONE_JOB + "; use a Job with parallelism",
    "bbf": "it reads a file; use --bb",
    "chdir": "the container's directory is workingDir",
    "cluster": "a virtual node stands for a partition of this cluster",
    "cluster-constraint": "a virtual node stands for a partition of this cluster",
    "clusters": "a virtual node stands for a partition of this cluster",
    "container": "the Pod says what runs",
    "container-id": "the Pod says what runs",
    "error": _IO,
    "export": _ENVIRONMENT,
    "export-file": _ENVIRONMENT,
    "get-user-env": _ENVIRONMENT,
    "gid": _IDENTITY,
    "help": _NOTHING,
    "ignore-pbs": "HPK's script has no PBS lines",
    "input": _IO,
    "job-name": "the name says which Pod a job belongs to",
    "no-kill": "a Pod ends when one of its nodes fails",
    "no-requeue": "HPK gives it always",
    "nodefile": "it reads a file; use --nodelist",
    "oom-kill-step": "the supervisor handles memory failures",
    "open-mode": _IO,
    "output": _IO,
    "parsable": _NOTHING,
    "propagate": "the node's own resource limits hold",
    "quiet": _NOTHING,
    "requeue": "a Pod never runs twice; let its controller (a Job, a Deployment) make a new one",
    "signal": "the supervisor stops containers as their Pod says; use"
    " terminationGracePeriodSeconds",
    "test-only": _NOTHING,
    "uid": _IDENTITY,
    "usage": _NOTHING,
    "verbose": _NOTHING,
    "version": _NOTHING,
    "wait": "the kubelet waits for the job",
    "wrap": _ONE_JOB,
}

SHORT: dict[str, str] = {
    "A": "account",
    "a": "array",
    "B": "extra-node-info",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "h": "help",
    "i": "input",
    "J": "job-name",
    "k": "no-kill",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "O": "overcommit",
    "o": "output",
    "p": "partition",
    "Q": "quiet",
    "q": "qos",
    "S": "core-spec",
    "s": "oversubscribe",
    "t": "time",
    "V": "version",
    "v": "verbose",
    "W": "wait",
    "w": "nodelist",
    "x": "exclude",
}
