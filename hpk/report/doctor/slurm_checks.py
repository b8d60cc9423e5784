"""Judges what Slurm says on the login node. Pure."""

from __future__ import annotations

from collections.abc import Callable

from hpk.report.doctor.facts import SlurmFacts
from hpk.report.doctor.findings import Check, Finding, Place
from hpk.report.doctor.parsing import missing, shown, version_tuple

_OLDEST = (20, 11)
_SUPERVISORS_OWN_S = 3
"""What the supervisor keeps of KillWait for itself; see docs/supervisor.md."""
_NO_CONTROLLER = "slurmctld does not answer"


def judge_slurm(facts: SlurmFacts) -> tuple[Finding, ...]:
    """One finding for each check, in the order they are shown."""
    return tuple(judge(facts) for judge in _CHECKS)


def _commands(facts: SlurmFacts) -> Finding:
    check = Check(name="slurm-commands", place=Place.LOGIN, title="Slurm's commands")
    needed = missing(facts.commands, ("sbatch", "squeue", "scancel", "scontrol"))
    if needed:
        return check.failed(
            f"not on PATH: {', '.join(needed)}",
            costs="no Pod can be submitted",
            ask="load Slurm's module before `hpk up`, or ask where its programs are",
            essential=True,
        )
    wanted = missing(facts.commands, ("srun", "sacct", "sacctmgr"))
    if wanted:
        return check.warning(
            f"not on PATH: {', '.join(wanted)}",
            costs="without srun no MPI; without sacct the end of a job that its supervisor did "
            "not see is not known",
            ask="ask for Slurm's client programs, all of them, on login nodes",
        )
    return check.ok(", ".join(facts.commands))


def _version(facts: SlurmFacts) -> Finding:
    check = Check(name="slurm-version", place=Place.LOGIN, title="Slurm's version")
    if not facts.version:
        return check.skipped("sbatch does not tell it")
    if version_tuple(facts.version) < _OLDEST:
        return check.failed(
            shown(facts.version, 40),
            costs="HPK needs options of 20.11",
            ask="ask when Slurm will be upgraded",
            essential=True,
        )
    return check.ok(shown(facts.version, 40))


def _controller(facts: SlurmFacts) -> Finding:
    check = Check(name="slurmctld", place=Place.LOGIN, title="slurmctld")
    if facts.controller:
        return check.failed(
            shown(facts.controller),
            costs="nothing can be submitted or watched; what runs goes on",
            ask="wait, or tell the administrators that slurmctld is down",
            essential=True,
        )
    return check.ok("answers")


def _accounting(facts: SlurmFacts) -> Finding:
    check = Check(name="accounting", place=Place.LOGIN, title="accounting")
    if facts.controller:
        return check.skipped(_NO_CONTROLLER)
    accounting = facts.accounting
    if not accounting.enabled:
        return check.warning(
            "this cluster keeps none",
            costs="how a job ended is known only for MinJobAge seconds; later it counts as lost",
            ask="ask for accounting_storage/slurmdbd, or for a larger MinJobAge",
        )
    if accounting.problem:
        return check.warning(
            shown(accounting.problem),
            costs="how a job ended is not known once squeue has forgotten it",
            ask="ask whether slurmdbd runs",
        )
    return check.ok(f"answers; your accounts: {shown(', '.join(accounting.accounts)) or 'none'}")


def _account(facts: SlurmFacts) -> Finding:
    check = Check(name="account", place=Place.LOGIN, title="account")
    accounting = facts.accounting
    if facts.controller or accounting.problem or not accounting.enabled:
        return check.skipped("accounting does not answer")
    names = shown(", ".join(accounting.accounts))
    enforced = facts.config.get("AccountingStorageEnforce", "")
    if facts.account:
        if facts.account not in accounting.accounts and "associations" in enforced:
            return check.failed(
                f"config.toml names {shown(facts.account, 60)}; yours are {names or 'none'}",
                costs="Slurm refuses every Pod",
                ask="correct account in [slurm] of config.toml",
                essential=True,
            )
        return check.ok(f"{shown(facts.account, 60)}, from config.toml")
    if accounting.default_account or "associations" not in enforced:
        return check.ok(shown(accounting.default_account, 60) or "none is needed")
    return check.failed(
        f"no default one; yours are {names or 'none'}",
        costs="Slurm refuses every Pod that does not name one",
        ask="set account in [slurm] of config.toml to one of yours"
        if names
        else "ask for an account",
        essential=True,
    )


def _partitions(facts: SlurmFacts) -> Finding:
    check = Check(name="partitions", place=Place.LOGIN, title="partitions")
    if facts.controller:
        return check.skipped(_NO_CONTROLLER)
    names = shown(", ".join(one.name for one in facts.partitions))
    if not facts.partitions:
        return check.failed(
            shown(facts.partitions_problem) or "none is open to you",
            costs="there is no virtual node for a Pod to go to",
            ask="ask which partition you may submit to",
            essential=True,
        )
    if facts.partition and facts.partition not in (one.name for one in facts.partitions):
        return check.failed(
            f"config.toml names {shown(facts.partition, 60)}; open to you are {names}",
            costs="Pods that choose no virtual node find none",
            ask="correct partition in [slurm] of config.toml",
            essential=True,
        )
    if not any(one.is_up for one in facts.partitions):
        return check.warning(
            f"{names}: none is UP",
            costs="Pods wait",
            ask="ask when the partitions open again",
        )
    if not facts.partition and not any(one.is_default for one in facts.partitions):
        return check.warning(
            f"{names}; none is the default",
            costs="Pods that choose no virtual node share all of them",
            ask="set partition in [slurm] of config.toml",
        )
    return check.ok(names)


def _kill_wait(facts: SlurmFacts) -> Finding:
    check = Check(name="kill-wait", place=Place.LOGIN, title="KillWait")
    if facts.controller:
        return check.skipped(_NO_CONTROLLER)
    words = facts.config.get("KillWait", "").split()
    if not words or not words[0].isascii() or not words[0].isdigit() or len(words[0]) > 9:
        return check.skipped("scontrol show config does not tell it")
    seconds = int(words[0])
    left = max(0, seconds - _SUPERVISORS_OWN_S)
    seen = f"{seconds} s, of which containers get {left} to end"
    if left < 2:
        return check.warning(
            seen,
            costs="containers of a job that Slurm ends (time limit, scancel) are killed at once, "
            "and their exit codes may be lost",
            ask="ask for a KillWait of 30 s, which is Slurm's default",
        )
    return check.ok(seen)


_CHECKS: tuple[Callable[[SlurmFacts], Finding], ...] = (
    _commands,
    _version,
    _controller,
    _accounting,
    _account,
    _partitions,
    _kill_wait,
)
