"""The table of launcher options that a Pod may give: srun's, and what mpiexec's become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpk.planning.sbatch_options import ALLOWED


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherOption:
    """One option.

    :param name: srun's long option.
    :param pattern: what srun takes as its value; None where nothing but `values` is right.
    :param values: values that become another option of srun, as (name, value).
    :param default: srun's value for an option that has none here.
    """

    name: str
    pattern: re.Pattern[str] | None = None
    values: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    has_value: bool = True
    default: str | None = None

    def convert(self, value: str) -> tuple[str, str | None]:
        """(srun's option, its value), the value None where this one cannot be honoured."""
        if value in self.values:
            return self.values[value]
        if self.name == "map-by" and (found := _PER_NODE.fullmatch(value)):
            return "ntasks-per-node", found[1]
        matches = self.pattern is not None and self.pattern.fullmatch(value) is not None
        return self.name, value if matches else None


_PER_NODE = re.compile(r"ppr:([1-9][0-9]{0,8}):node")


def _like_sbatch(name: str) -> LauncherOption:
    return LauncherOption(name=name, pattern=ALLOWED[name].pattern)


def _bare(name: str, default: str | None = None) -> LauncherOption:
    return LauncherOption(name=name, has_value=False, default=default)


_BIND_TO = {
    "none": ("cpu-bind", "none"),
    "hwthread": ("cpu-bind", "threads"),
    "core": ("cpu-bind", "cores"),
    "socket": ("cpu-bind", "sockets"),
    "package": ("cpu-bind", "sockets"),
    "numa": ("cpu-bind", "ldoms"),
}
_MAP_BY = {
    "node": ("distribution", "cyclic"),
    "slot": ("distribution", "block"),
    "core": ("distribution", "block"),
}

_SRUN = (
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
    "ntasks-per-node",
    "ntasks-per-socket",
    "threads-per-core",
)

OPTIONS: Mapping[str, LauncherOption] = {
    **{name: _like_sbatch(name) for name in _SRUN},
    "cpu-bind": LauncherOption(name="cpu-bind", pattern=re.compile(r"[A-Za-z0-9_:,.]+")),
    "mpi": LauncherOption(name="mpi", pattern=re.compile(r"[a-z0-9_]+")),
    "label": _bare("label"),
    "overcommit": _bare("overcommit"),
    "unbuffered": _bare("unbuffered"),
    "kill-on-bad-exit": _bare("kill-on-bad-exit", "1"),
    "np": _like_sbatch("ntasks"),
    "n": _like_sbatch("ntasks"),
    "ppn": _like_sbatch("ntasks-per-node"),
    "npernode": _like_sbatch("ntasks-per-node"),
    "oversubscribe": _bare("overcommit"),
    "bind-to": LauncherOption(name="bind-to", values=_BIND_TO),
    "map-by": LauncherOption(name="map-by", values=_MAP_BY),
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

_IN_ENV = "set the variable in the container's env"
_BY_SLURM = "Slurm chooses the nodes; use --nodelist in the flags annotation"

HINTS: Mapping[str, str] = {
    "x": _IN_ENV,
    "env": _IN_ENV,
    "genv": _IN_ENV,
    "export": _IN_ENV,
    "mca": "set OMPI_MCA_<name> in the container's env",
    "c": "write --ntasks or --cpus-per-task: mpiexec and srun mean different things by -c",
    "host": _BY_SLURM,
    "hostfile": _BY_SLURM,
    "machinefile": _BY_SLURM,
    "nodelist": _BY_SLURM,
    "w": _BY_SLURM,
    "wd": "use workingDir",
    "wdir": "use workingDir",
    "chdir": "use workingDir",
}
