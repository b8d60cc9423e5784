"""The table of launcher options that a Pod may give: srun's, and what mpiexec's become.

docs/mpi.md shows it to users; a test holds the two together. mpiexec's are those of Open MPI and of
hydra (MPICH, Intel MPI), by whose manual pages their meaning is judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpk.planning.job.sbatch_options import ALLOWED

Settings = tuple[tuple[str, str | None], ...]
"""srun's long options with their values, None for one that takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherOption:
    """One option.

    :param name: srun's long option; "" for one that asks for what holds anyway.
    :param pattern: what srun takes as its value; None where nothing but `values` is right.
    :param values: values that become other options of srun, in lower case.
    :param modifiers: what may follow a value of `values` after a colon.
    :param default: srun's value for an option that has none here.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    values: Mapping[str, Settings] = field(default_factory=dict)
    modifiers: bool = False
    has_value: bool = True
    default: str | None = None

    @property
    def settings(self) -> Settings:
        """What an option without a value becomes."""
        return ((self.name, self.default),) if self.name else ()

    def convert(self, value: str) -> Settings | None:
        """What it becomes with a value; None where that cannot be honoured."""
        if self.modifiers:
            return _placement(value.lower(), self.values)
        if value.lower() in self.values:
            return self.values[value.lower()]
        if self.pattern is not None and self.pattern.fullmatch(value):
            return ((self.name, value),)
        return None


_PER_RESOURCE = re.compile(r"ppr:([1-9][0-9]{0,8}):(node|socket|package)(?::(.+))?", re.ASCII)
_CPUS = re.compile(r"pe=([1-9][0-9]{0,8})", re.ASCII)


def _placement(value: str, values: Mapping[str, Settings]) -> Settings | None:
    """Open MPI's ``--map-by OBJECT[:MODIFIER,…]`` in lower case."""
    found = _PER_RESOURCE.fullmatch(value)
    if found is not None:
        per = "node" if found[2] == "node" else "socket"
        settings: Settings | None = ((f"ntasks-per-{per}", found[1]),)
        rest = found[3] or ""
    else:
        base, _, rest = value.partition(":")
        settings = values.get(base)
    for modifier in filter(None, re.split("[:,]", rest)):
        cpus = _CPUS.fullmatch(modifier)
        if settings is None:
            return None
        if cpus is not None:
            settings += (("cpus-per-task", cpus[1]),)
        elif modifier == "oversubscribe":
            settings += (("overcommit", None),)
        elif modifier != "nooversubscribe":
            return None
    return settings


def _like_sbatch(name: str) -> LauncherOption:
    return LauncherOption(name=name, pattern=ALLOWED[name].pattern)


def _bare(name: str, default: str | None = None) -> LauncherOption:
    return LauncherOption(name=name, has_value=False, default=default)


def _one(name: str, value: str) -> Settings:
    return ((name, value),)


_BIND_TO: Mapping[str, Settings] = {
    "none": _one("cpu-bind", "none"),
    "hwthread": _one("cpu-bind", "threads"),
    "core": _one("cpu-bind", "cores"),
    "socket": _one("cpu-bind", "sockets"),
    "package": _one("cpu-bind", "sockets"),
    "numa": _one("cpu-bind", "ldoms"),
}
_MAP_BY: Mapping[str, Settings] = {
    "node": _one("distribution", "cyclic"),
    "slot": _one("distribution", "block"),
    "core": _one("distribution", "block:block"),
    "hwthread": _one("distribution", "block:block"),
    "socket": _one("distribution", "block:cyclic"),
    "package": _one("distribution", "block:cyclic"),
}
_RANKS = _like_sbatch("ntasks")
_PER_NODE = _like_sbatch("ntasks-per-node")
_HOLDS = _bare("")

_SRUN = (
    "cpus-per-gpu",
    "cpus-per-task",
    "distribution",
    "gpu-bind",
    "gpu-freq",
    "gpus-per-task",
    "hint",
    "mem-bind",
    "nodes",
    "ntasks",
    "ntasks-per-core",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "ntasks-per-socket",
    "threads-per-core",
    "tres-bind",
)

OPTIONS: Mapping[str, LauncherOption] = {
    **{name: _like_sbatch(name) for name in _SRUN},
    "cpu-bind": LauncherOption(name="cpu-bind", pattern=re.compile(r"[A-Za-z0-9_:,.]+")),
    "mpi": LauncherOption(name="mpi", pattern=re.compile(r"[a-z0-9_]+")),
    "exact": _bare("exact"),
    "label": _bare("label"),
    "overcommit": _bare("overcommit"),
    "unbuffered": _bare("unbuffered"),
    "kill-on-bad-exit": _bare("kill-on-bad-exit", "1"),
    # mpiexec's
    "n": _RANKS,
    "np": _RANKS,
    "ppn": _PER_NODE,
    "perhost": _PER_NODE,
    "npernode": _PER_NODE,
    "pernode": _bare("ntasks-per-node", "1"),
    "npersocket": _like_sbatch("ntasks-per-socket"),
    "cpus-per-proc": _like_sbatch("cpus-per-task"),
    "cpus-per-rank": _like_sbatch("cpus-per-task"),
    "map-by": LauncherOption(name="map-by", values=_MAP_BY, modifiers=True),
    "bynode": _bare("distribution", "cyclic"),
    "byslot": _bare("distribution", "block"),
    "bind-to": LauncherOption(name="bind-to", values=_BIND_TO),
    "bind-to-none": _bare("cpu-bind", "none"),
    "bind-to-core": _bare("cpu-bind", "cores"),
    "bind-to-socket": _bare("cpu-bind", "sockets"),
    "use-hwthread-cpus": _bare("hint", "multithread"),
    "oversubscribe": _bare("overcommit"),
    "tag-output": _bare("label"),
    "prepend-rank": _bare("label"),
    "nooversubscribe": _HOLDS,
    "allow-run-as-root": _HOLDS,
    "genvall": _HOLDS,
    "envall": _HOLDS,
}

SHORT: Mapping[str, str] = {
    "K": "kill-on-bad-exit",
    "N": "nodes",
    "O": "overcommit",
    "l": "label",
    "m": "distribution",
    "n": "ntasks",
    "u": "unbuffered",
}
MPIEXEC_SHORT: Mapping[str, str] = {**SHORT, "N": "npernode"}
"""Where the value begins with mpirun or mpiexec: the same letter means another thing there."""

_IN_ENV = "set the variable in the container's env"
_MCA = "set OMPI_MCA_NAME (PRTE_MCA_NAME, PMIX_MCA_NAME) in the container's env"
_BY_SLURM = "Slurm chooses the nodes; use --nodelist in the flags annotation"
_STARTED = "Slurm starts the ranks; the annotation slurm-job.hpk.io/mpi chooses how"
_DIRECTORY = "use workingDir"
_LOG = "the ranks' output is the container's log; use --label to tell them apart"
_ONE = "all ranks run the container's command; let it look at SLURM_PROCID"
_VERBOSE = "use --cpu-bind=verbose,cores or the like"

HINTS: Mapping[str, str] = {
    "c": "write --ntasks or --cpus-per-task: mpiexec and srun mean different things by -c",
    **dict.fromkeys(("x", "env", "genv", "envlist", "genvlist", "export"), _IN_ENV),
    **dict.fromkeys(("envnone", "genvnone"), "the container's env says what there is"),
    **dict.fromkeys(("mca", "omca", "gmca", "pmixmca", "prtemca", "tune", "am"), _MCA),
    **dict.fromkeys(
        ("host", "hosts", "H", "hostfile", "machinefile", "machine", "f", "default-hostfile"),
        _BY_SLURM,
    ),
    **dict.fromkeys(("nodelist", "w", "exclude", "relative", "r", "nolocal"), _BY_SLURM),
    **dict.fromkeys(("wd", "wdir", "chdir", "D"), _DIRECTORY),
    "path": "set PATH in the container's env",
    "prefix": "the image's own MPI is used",
    **dict.fromkeys(
        ("launcher", "bootstrap", "launcher-exec", "rmk", "hydra", "personality"), _STARTED
    ),
    **dict.fromkeys(("iface", "netmask"), "set the library's own variable in the container's env"),
    "rank-by": "ranks are numbered as they are placed; use --map-by or --distribution",
    **dict.fromkeys(("rankfile", "rf", "order-nodes"), "use --distribution"),
    **dict.fromkeys(("cpu-set", "cpu-list", "cpus"), "use --cpu-bind=map_cpu:LIST"),
    **dict.fromkeys(("report-bindings", "print-rank-map", "display-map", "display"), _VERBOSE),
    **dict.fromkeys(
        (
            "output",
            "error",
            "input",
            "o",
            "e",
            "i",
            "output-filename",
            "outfile-pattern",
            "errfile-pattern",
            "timestamp-output",
            "stdin",
            "s",
            "merge-stderr-to-stdout",
        ),
        _LOG,
    ),
    **dict.fromkeys(("configfile", "app", "multi-prog", ":"), _ONE),
    **dict.fromkeys(("time", "t", "timeout"), "use activeDeadlineSeconds"),
    **dict.fromkeys(
        ("verbose", "v", "d", "debug", "quiet", "q", "Q"), "it changes nothing that runs"
    ),
}
