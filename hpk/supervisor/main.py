"""The supervisor's command line: ``run`` in the batch script, ``rank`` in each task of an MPI run.

No argument parser: importing one costs more than all there is to parse.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Callable

from hpk.durable import claim, read_file
from hpk.model import codec
from hpk.model.errors import HpkError, ParseError
from hpk.model.ids import SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import divert, log
from hpk.supervisor.base.linux import close_files_but
from hpk.supervisor.inside.hosts import pod_hostname
from hpk.supervisor.inside.node import host_name
from hpk.supervisor.pod.preparing import Identity, program_argv
from hpk.supervisor.pod.supervisor import Supervisor
from hpk.supervisor.process.inits import start_inits
from hpk.supervisor.ranks import rank_files

_USAGE = (
    "usage: run --attempt-dir DIR | rank --attempt-dir DIR --container NAME --restart N "
    "--host HOST --disk DIR --memory DIR"
)


def main(argv: Sequence[str]) -> int:
    """Run a subcommand; the exit code."""
    try:
        subcommand = parse_command(argv)
    except (KeyError, ValueError):
        log(_USAGE)
        return 2
    try:
        return subcommand()
    except HpkError as error:
        log("cannot run", error=error)
        return 1


def parse_command(argv: Sequence[str]) -> Callable[[], int]:
    """The subcommand that a command line asks for; runs nothing yet.

    :raises KeyError: an option is missing.
    :raises ValueError: no such subcommand, or an option's value is none.
    """
    name, options = (argv or [""])[0], parse_options(argv[1:])
    layout = AttemptLayout(os.path.abspath(options["attempt-dir"]))
    if name == "run":
        return lambda: run(layout)
    if name != "rank":
        raise ValueError(name)
    # Not at the top: no pod's own supervisor needs these.
    from hpk.supervisor.ranks.rank import run_rank
    from hpk.supervisor.ranks.rank_keeper import PodPlace

    container, restart = options["container"], int(options["restart"])
    place = PodPlace(options["host"], options["disk"], options["memory"])
    return lambda: run_rank(layout, container, restart, place)


def parse_options(argv: Sequence[str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` as a mapping.

    :raises ValueError: something else is there.
    """
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ValueError(name)
        options[name[2:]] = value if equals else (rest.pop(0) if rest else "")
    return options


def run(layout: AttemptLayout) -> int:
    """Claim the attempt and run its pod.

    :raises ParseError: pod.json is not what it must be, or this is no Slurm job.
    """
    job_text = os.environ.get("SLURM_JOB_ID", "")
    if not job_text.isdigit():
        raise ParseError("SLURM_JOB_ID is not set: the supervisor runs in a Slurm job")
    job_id = SlurmJobId(int(job_text))
    env = dict(os.environ)
    close_files_but()  # what the batch script's parent left open is no container's business
    try:
        spec = codec.loads(JobSpec, read_file(layout.spec))
        owner = f"supervisor {job_id} {host_name(env)} {os.urandom(8).hex()}\n"
        if not claim(layout.claim, owner):
            log("the attempt is claimed already: nothing to run", claim=layout.claim)
            return 0
        plans = (*spec.plan.init_containers, *spec.plan.containers)
        if any(plan.mpi is not None for plan in plans):
            os.makedirs(rank_files.directory(layout), mode=0o700, exist_ok=True)
    except OSError as error:
        raise ParseError(f"cannot read the attempt: {error}") from error
    said_fd = divert()
    linux.become_subreaper()
    inits = start_inits(
        for_containers=any(plan.mpi is None for plan in plans),
        for_launcher=any(plan.mpi is not None for plan in plans),
        hostname=pod_hostname(spec.plan, os.uname().nodename),
        sysctls=spec.plan.sysctls,
    )
    identity = Identity(spec=spec, layout=layout, job_id=job_id, program=program_argv(), env=env)
    return Supervisor(identity, inits, said_fd).run()


def entry() -> None:
    """The zipapp's start."""
    # Nothing that was imported is garbage; looked at, its pages would be copied in every child.
    gc.freeze()
    gc.enable()
    try:
        code = main(sys.argv[1:])
    except Exception:
        import traceback

        log("the supervisor failed", trace=traceback.format_exc())
        code = 1
    # Threads that wait on a shared file system must not hold the job's node.
    os._exit(code)
