"""Ranks as one step of Slurm's own srun, wired up by PMIx."""

from __future__ import annotations

import re
from typing import Optional

from hpk.mpi.base import LaunchRequest

_EXITED = re.compile(rb"srun: error: [^ ]+: tasks? [0-9,-]+: (?:Exited with exit code (\d+)|\w)")


class SrunPmix:
    """See hpk.mpi.base.MpiLauncher."""

    name = "pmix"

    def argv(self, request: LaunchRequest) -> tuple[str, ...]:
        """See MpiLauncher.argv.

        Without a name sacct would list the step as the interpreter of `rank_argv`.
        ``--cpus-per-task`` is said again because srun ignores sbatch's since Slurm 22.05; a rank
        that fails ends the run, as under mpirun, unless the options say otherwise.
        """
        env = dict(request.job_env)
        argv = ["srun", "--mpi=pmix", "--export=ALL", "--kill-on-bad-exit=1"]
        argv.append(f"--job-name={request.name}")
        cpus = env.get("SLURM_CPUS_PER_TASK", "")
        if cpus.isdigit() and "SLURM_TRES_PER_TASK" not in env:
            argv.append(f"--cpus-per-task={cpus}")
        return (*argv, *request.plan.options, "--", *request.rank_argv)

    def environment(self, request: LaunchRequest) -> tuple[tuple[str, str], ...]:
        """See MpiLauncher.environment.

        The job's own, but that its submission was made with --export=NONE must not reach the
        ranks (SLURM_EXPORT_ENV), nor defaults for srun that nobody in the Pod asked for.
        """
        env = {name: value for name, value in request.job_env if not name.startswith("SRUN_")}
        env["SLURM_EXPORT_ENV"] = "ALL"
        env.pop("SLURM_MPI_TYPE", None)
        return tuple(env.items())

    def first_failure(self, line: bytes) -> Optional[int]:
        """See MpiLauncher.first_failure.

        srun's own code is the highest of all ranks, which is that of the bystanders it had to kill.
        """
        found = _EXITED.match(line)
        if found is None:
            return None
        return int(found[1]) & 0xFF if found[1] else 0
