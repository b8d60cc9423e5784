"""Judges what the compute node said of itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from hpk.report.doctor.facts import UNLIMITED, NodeReport, SlurmFacts
from hpk.report.doctor.findings import Check, Finding, Place
from hpk.report.doctor.parsing import filesystem_of, parse_mpi, shown, version_tuple
from hpk.runtimes.base import NodeFacts
from hpk.runtimes.registry import RUNTIMES

_GIB = 1 << 30
_SCRATCH_ENOUGH = 2 * _GIB
_FILES_ENOUGH = 1024
_OLDEST_PYTHON = (3, 9)
CHECKS = (
    ("python", "Python"),
    ("user-namespaces", "user namespaces"),
    ("fuse", "/dev/fuse"),
    ("runtimes", "container runtimes"),
    ("cgroups", "cgroups"),
    ("mpi", "MPI through srun"),
    ("scratch", "node-local space"),
    ("node-limits", "limits of jobs"),
)
"""The checks of this file by name, for when there is no report to judge."""


def judge_node(report: NodeReport, slurm: SlurmFacts) -> tuple[Finding, ...]:
    """One finding for each of CHECKS, in that order."""
    judges: dict[str, Callable[[Check], Finding]] = {
        "python": lambda check: _python(check, report),
        "user-namespaces": lambda check: _namespaces(check, report),
        "fuse": lambda check: _fuse(check, report),
        "runtimes": lambda check: _runtimes(check, report),
        "cgroups": lambda check: _cgroups(check, report),
        "mpi": lambda check: _mpi(check, report, slurm),
        "scratch": lambda check: _scratch(check, report),
        "node-limits": lambda check: _limits(check, report),
    }
    return tuple(judges[name](Check(name=name, place=Place.NODE, title=t)) for name, t in CHECKS)


def usable_runtimes(report: NodeReport) -> dict[str, str]:
    """Why each runtime cannot be used on this node, in its own words; "" where it can."""
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", report.kernel, re.ASCII)
    facts = NodeFacts(
        programs=tuple((program.name, program.path) for program in report.programs),
        has_fuse=not report.fuse.error,
        has_nvidia=False,
        has_amd=False,
        has_cgroup2=report.has_cgroup2,
        kernel=(int(found[1]), int(found[2])) if found else (0, 0),
    )
    return {name: runtime.unusable(facts) for name, runtime in RUNTIMES.items()}


def _python(check: Check, report: NodeReport) -> Finding:
    if report.hpk_python:
        return check.ok(f"HPK's own runs there: {shown(report.hpk_python, 60)}")
    seen = f"HPK's interpreter does not run there; python3 is {shown(report.python, 40)}"
    too_old = version_tuple(report.python) < _OLDEST_PYTHON
    return check.failed(
        seen + (", too old" if too_old else ""),
        costs="no Pod's supervisor starts",
        ask="install HPK where compute nodes see it, with a Python that they have too",
        essential=True,
    )


def _namespaces(check: Check, report: NodeReport) -> Finding:
    limits = ", ".join(f"{one.name}={one.value}" for one in report.namespace_limits)
    if report.namespaces_step:
        step, error = shown(report.namespaces_step, 40), shown(report.namespaces_error, 80)
        return check.failed(
            shown(f"{step}: {error} ({limits})"),
            costs="no container starts: nothing is isolated without root any other way",
            ask=_namespace_request(report),
            essential=True,
        )
    return check.ok(shown(f"work ({limits})"))


def _namespace_request(report: NodeReport) -> str:
    values = {one.name: one.value for one in report.namespace_limits}
    if values.get("user.max_user_namespaces") == "0":
        return "ask for user.max_user_namespaces above 0 (sysctl) on compute nodes"
    if values.get("kernel.unprivileged_userns_clone") == "0":
        return "ask for kernel.unprivileged_userns_clone=1 (sysctl) on compute nodes"
    if values.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return (
            "ask for kernel.apparmor_restrict_unprivileged_userns=0, or AppArmor profiles that "
            "let Apptainer and Python make user namespaces"
        )
    return "ask whether ordinary users may make user namespaces on compute nodes"


def _fuse(check: Check, report: NodeReport) -> Finding:
    fuse = report.fuse
    if fuse.error:
        seen = shown(f"{fuse.error}; mode {fuse.mode:04o}") if fuse.mode else shown(fuse.error)
        rest = [name for name, problem in usable_runtimes(report).items() if not problem]
        instead = f"; {', '.join(rest)} works, unpacking each image anew" if rest else ""
        return check.failed(
            seen,
            costs=f"Apptainer cannot show an image's files{instead}",
            ask="ask for mode 0666 of /dev/fuse on compute nodes (its default; a udev rule or "
            "systemd-tmpfiles sets it)",
            essential=not rest,
        )
    return check.ok(f"mode {fuse.mode:04o}")


def _runtimes(check: Check, report: NodeReport) -> Finding:
    versions = {program.name: program.version for program in report.programs}
    problems = usable_runtimes(report)
    usable = [name for name, problem in problems.items() if not problem]
    # singularity is often but another name of apptainer.
    said = "; ".join(
        dict.fromkeys(shown(text, 60) for name, text in versions.items() if text and name != "crun")
    )
    if not usable:
        return check.failed(
            shown("; ".join(f"{name}: {problem}" for name, problem in problems.items()), 500),
            costs="no Pod runs",
            ask="ask for Apptainer on compute nodes, or load it by runtime-path in [images]",
            essential=True,
        )
    if "apptainer" in usable:
        without = "; ".join(f"no {name}: {p}" for name, p in problems.items() if p)
        return check.ok(shown(f"{said}{'; ' + without if without else ''}", 500))
    return check.warning(
        shown(f"{said}; apptainer: {problems['apptainer']}", 500),
        costs=f"Pods need runtime: {usable[0]}",
        ask=f'set runtime = "{usable[0]}" in [pods] of config.toml, or ask for Apptainer',
    )


def _cgroups(check: Check, report: NodeReport) -> Finding:
    if report.has_cgroup2:
        return check.ok("version 2")
    return check.warning(
        "version 1",
        costs="podman does not run; how much memory a container uses is known less exactly",
        ask="ask for systemd.unified_cgroup_hierarchy=1 on compute nodes; Apptainer needs nothing",
    )


def _mpi(check: Check, report: NodeReport, slurm: SlurmFacts) -> Finding:
    there = parse_mpi(report.mpi)
    plugins = there or slurm.mpi
    where = "" if there else " (asked on the login node)"
    names = shown(", ".join(plugins)) + where
    if any(name == "pmix" or name.startswith("pmix_v") for name in plugins):
        return check.ok(names)
    if not plugins:
        return check.failed(
            "srun --mpi=list says nothing",
            costs="Pods with mpi-flags do not run; all others do",
            ask="ask for srun on compute nodes",
        )
    return check.failed(
        f"no pmix among {names}",
        costs="Pods with mpi-flags do not run by the launcher pmix; all others do",
        ask="ask for Slurm's mpi_pmix plugin on login and compute nodes"
        + ("; pmi2 is there for MPI that speaks it" if "pmi2" in plugins else ""),
    )


def _scratch(check: Check, report: NodeReport) -> Finding:
    where = shown(report.scratch, 80)
    kind = shown(filesystem_of(report.mounts, report.scratch), 40) or "unknown file system"
    if report.scratch_free_bytes < 0:
        return check.failed(
            f"{where} cannot be used",
            costs="no Pod runs: containers' own files have no place",
            ask="ask for a /tmp, or a TMPDIR in jobs, that you may write to",
            essential=True,
        )
    seen = f"{where} ({kind}): {report.scratch_free_bytes / _GIB:.1f} GiB free"
    if report.scratch_free_bytes < _SCRATCH_ENOUGH:
        return check.warning(
            seen,
            costs="what containers write, emptyDir included, lives there",
            ask="ask for a larger node-local directory, as TMPDIR of jobs",
        )
    return check.ok(seen)


def _limits(check: Check, report: NodeReport) -> Finding:
    def said(number: int) -> str:
        return "unlimited" if number == UNLIMITED else str(number)

    seen = f"{said(report.nproc)} processes, {said(report.nofile)} open files"
    if UNLIMITED < report.nofile < _FILES_ENOUGH:
        return check.warning(
            seen,
            costs="servers in containers run out of files",
            ask="ask for a higher nofile limit on compute nodes (slurmd's own, or "
            "PropagateResourceLimits)",
        )
    return check.ok(seen)
