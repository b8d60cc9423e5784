"""The annotations ``mpi-flags`` and ``mpi``: how the main container's command becomes ranks.

Accepts srun's own options and mpiexec's common ones, mapped; everything else is refused by name,
because an option that is silently dropped changes where ranks run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.plan import MpiPlan, SbatchOption
from hpk.planning.annotations import Annotation
from hpk.planning.flags import INVALID_ANNOTATION, split_words
from hpk.planning.sbatch_options import ALLOWED
from hpk.planning.site import SiteSettings

_TRUE = ("true", "yes", "1", "")
_FALSE = ("false", "no", "0")

_BIND_TO = {
    "none": "none",
    "hwthread": "threads",
    "core": "cores",
    "socket": "sockets",
    "package": "sockets",
    "numa": "ldoms",
}
_MAP_BY = {"node": "cyclic", "slot": "block", "core": "block"}
_SRUN_PATTERNS = {
    "cpu-bind": re.compile(r"[A-Za-z0-9_:,.x-]+"),
    "kill-on-bad-exit": re.compile(r"[01]"),
    "propagate": None,
}
_FROM_SBATCH = (
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
_FLAGS = ("label", "overcommit", "unbuffered")
_SHORT = {
    "N": "nodes",
    "O": "overcommit",
    "K": "kill-on-bad-exit",
    "l": "label",
    "m": "distribution",
    "n": "ntasks",
    "u": "unbuffered",
}
_HINTS = {
    "x": "set the variable in the container's env",
    "c": "write --ntasks or --cpus-per-task, for mpiexec and srun mean different things by -c",
    "hostfile": "Slurm chooses the nodes",
    "machinefile": "Slurm chooses the nodes",
    "host": "use the sbatch option --nodelist in the flags annotation",
    "wdir": "use workingDir",
    "wd": "use workingDir",
    "mca": "set OMPI_MCA_<name> in the container's env",
    "genv": "set the variable in the container's env",
    "env": "set the variable in the container's env",
}


@dataclass(frozen=True, slots=True)
class MpiRequest:
    """What the annotations ask for.

    :param plan: None for a Pod that is no MPI run.
    :param implied: sbatch options the launcher options imply, where the flags do not say.
    """

    plan: MpiPlan | None
    implied: tuple[SbatchOption, ...] = ()


def plan_mpi(annotations: Mapping[str, Annotation], site: SiteSettings) -> MpiRequest:
    """The MPI run a Pod asks for.

    :raises AdmissionError: ``InvalidAnnotation`` for an option that cannot be honoured.
    """
    launcher = _launcher(annotations.get("mpi"), site)
    flags = annotations.get("mpi-flags")
    if flags is None or flags.value.strip().lower() in _FALSE or launcher == "none":
        return MpiRequest(None)
    if flags.value.strip().lower() in _TRUE:
        return MpiRequest(MpiPlan(launcher or site.launchers[0]))
    options = _parse(split_words(flags.value, flags.field), flags.field)
    asked = options.pop("mpi", None)
    if asked is not None:
        launcher = _check_launcher(asked, flags.field, site)
        if launcher == "none":
            return MpiRequest(None)
    implied = tuple(
        SbatchOption(name, options[name], flags.field)
        for name in ("nodes", "ntasks", "ntasks-per-node")
        if name in options
    )
    argv = tuple(
        f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()
    )
    return MpiRequest(MpiPlan(launcher or site.launchers[0], argv), implied)


def _launcher(annotation: Annotation | None, site: SiteSettings) -> str | None:
    if annotation is None:
        return None
    return _check_launcher(annotation.value.strip(), annotation.field, site)


def _check_launcher(name: str, field: str, site: SiteSettings) -> str:
    if name == "none" or name in site.launchers:
        return name
    known = ", ".join((*site.launchers, "none"))
    raise AdmissionError(
        INVALID_ANNOTATION,
        field,
        f"no MPI launcher {name!r} here",
        remedy=f"the launchers are {known}",
    )


def _parse(words: list[str], field: str) -> dict[str, str | None]:
    options: dict[str, str | None] = {}
    if words and words[0] in ("srun", "mpiexec", "mpirun"):
        words.pop(0)
    while words:
        word = words.pop(0)
        name, has_value, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or not name:
            raise AdmissionError(
                INVALID_ANNOTATION,
                field,
                f"{word!r} is not a launcher option",
                remedy="the program goes into the container's command",
            )
        _take(options, word, name, value if has_value else None, words, field)
    return options


def _take(
    options: dict[str, str | None],
    word: str,
    name: str,
    value: str | None,
    words: list[str],
    field: str,
) -> None:
    spelling = word.partition("=")[0]
    is_short = not word.startswith("--")
    if name == "np":
        name = "ntasks"
    elif is_short and name and name[0] in _SHORT and (len(name) == 1 or name[1:].isdigit()):
        value = name[1:] or value
        name = _SHORT[name[0]]
    elif is_short and len(name) == 1:
        raise _refused(spelling, name, field)
    if name in _FLAGS:
        if value is not None:
            raise AdmissionError(INVALID_ANNOTATION, field, f"{spelling} takes no value")
        options[name] = None
        return
    if name == "oversubscribe":
        options["overcommit"] = None
        return
    if name == "kill-on-bad-exit" and value is None:
        options[name] = "1"
        return
    if name not in ("mpi", "map-by", "bind-to", "cpu-bind", "kill-on-bad-exit", *_FROM_SBATCH):
        raise _refused(spelling, name, field)
    if value is None:
        if not words:
            raise AdmissionError(INVALID_ANNOTATION, field, f"{spelling} lacks a value")
        value = words.pop(0)
    key, checked = _map(spelling, name, value, field)
    options[key] = checked


def _map(spelling: str, name: str, value: str, field: str) -> tuple[str, str]:
    if name == "mpi":
        return name, value
    if name == "bind-to" and value in _BIND_TO:
        return "cpu-bind", _BIND_TO[value]
    if name == "map-by":
        ppr = re.fullmatch(r"ppr:([1-9][0-9]{0,8}):node", value)
        if ppr:
            return "ntasks-per-node", ppr[1]
        if value in _MAP_BY:
            return "distribution", _MAP_BY[value]
    pattern = _SRUN_PATTERNS.get(name) or (ALLOWED[name].pattern if name in _FROM_SBATCH else None)
    if pattern is not None and pattern.fullmatch(value):
        return name, value
    raise AdmissionError(
        INVALID_ANNOTATION, field, f"{value!r} is not a value of {spelling} that srun can honour"
    )


def _refused(spelling: str, name: str, field: str) -> AdmissionError:
    remedy = _HINTS.get(name, "use srun's options, see docs/annotations.md")
    return AdmissionError(
        INVALID_ANNOTATION, field, f"launcher option {spelling} is not supported", remedy=remedy
    )
