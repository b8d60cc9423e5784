"""`hpk up`: start the supervising process, and wait until Nodes are Ready."""

from __future__ import annotations

import asyncio
import os
import sys

from bootstrap import lock
from bootstrap.binaries import Reporter, ensure_all
from bootstrap.host import Identity
from bootstrap.logs import control_plane_log
from bootstrap.prepare import component_environment
from bootstrap.runner import log_tail
from bootstrap.state import ComponentPhase, ControlPlaneState, Phase, read_state
from bootstrap.usable import read_endpoint, wait_until_usable
from hpk import subproc
from hpk.config.schema import Config
from hpk.durable import private_directory
from hpk.model.errors import PermanentError
from hpk.model.settings import Endpoint
from hpk.statefs import HpkPaths

_POLL_S = 0.1
_LOOK_S = 3 * lock.BEAT_S
_USABLE_TIMEOUT_S = 120.0
_SLURM_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_")
_KEPT = ("HPK_HOME", "HPK_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def surrounding_job(environment: dict[str, str] | None = None) -> int | None:
    """The Slurm job we run in."""
    text = (dict(os.environ) if environment is None else environment).get("SLURM_JOB_ID", "")
    return int(text) if text.isascii() and text.isdigit() else None


def scrub_job_environment() -> None:
    """Forget a surrounding job's variables: they would steer what our children submit."""
    for name in list(os.environ):
        if name.startswith(_SLURM_PREFIXES) and name != "SLURM_CONF":
            del os.environ[name]


async def already_up(paths: HpkPaths) -> lock.Holder | None:
    """Who runs this home's control plane now; None if nobody seems to."""
    holder = lock.read_holder(paths)
    if holder is None or not await lock.is_alive(paths, holder, window_s=_LOOK_S):
        return None
    return holder


async def start(paths: HpkPaths, config: Config, reporter: Reporter) -> Endpoint:
    """Start the control plane in a process of its own and wait until it says that it is up.

    :raises PermanentError: it failed; the message carries the reason.
    """
    private_directory(paths.home)
    private_directory(paths.logs)
    await ensure_all(paths, config.binaries, reporter)
    log_path = control_plane_log(paths)
    before, here = read_state(paths), Identity.here()
    job_id = surrounding_job()
    environment = component_environment() | {
        name: os.environ[name] for name in os.environ if name in _KEPT or name.startswith("GO")
    }
    environment |= {"HPK_HOME": str(paths.home), "HPK_CACHE": str(paths.cache)}
    # -P: what lies in the current directory must not be taken for a module of ours.
    argv = [sys.executable, "-P", "-m", "bootstrap.supervise"]
    pid = subproc.detach(
        argv if job_id is None else [*argv, str(job_id)],
        environment=environment,
        output=log_path,
    )
    reporter.step("control-plane", f"starting, process {pid}{_followed(paths)}")
    while True:
        ended = subproc.has_ended(pid)
        endpoint = read_endpoint(paths)
        # Another host, whose control plane died, may have had a process of this number.
        if endpoint is not None and (endpoint.host, endpoint.pid) == (here.host, pid):
            _report_components(paths, reporter, before)
            reporter.done("control-plane", f"up at https://{endpoint.address}:{endpoint.api_port}")
            return endpoint
        if ended:
            raise _failure(paths, before, log_tail(log_path))
        _report_components(paths, reporter, before)
        await asyncio.sleep(_POLL_S)


def _followed(paths: HpkPaths) -> str:
    holder = lock.read_holder(paths)
    if holder is None or holder.released or holder.identity == Identity.here():
        return ""
    return f", once the one on {holder.where} has been silent for {lock.STALE_S:g} s"


def _failure(paths: HpkPaths, before: ControlPlaneState | None, tail: str) -> PermanentError:
    state = read_state(paths)
    if state is not None and state != before and state.phase == Phase.FAILED and state.message:
        return PermanentError(f"the control plane did not start: {state.message}")
    if not tail.strip():
        return PermanentError(
            "the control plane did not start, and could write nothing to "
            f"{control_plane_log(paths)}",
            remedy="make room there (df, quota), then try hpk up again",
        )
    return PermanentError(
        f"the control plane did not start; the end of its log:\n{tail}",
        remedy=f"read {control_plane_log(paths)}, then try hpk up again",
    )


def _report_components(
    paths: HpkPaths, reporter: Reporter, before: ControlPlaneState | None = None
) -> None:
    state = read_state(paths)
    if state is None or (before is not None and state.generation == before.generation):
        return
    for component in state.components:
        if component.phase == ComponentPhase.READY:
            reporter.done(component.name, f"{component.version} ready")
        elif component.phase != ComponentPhase.WAITING:
            reporter.step(component.name, f"{component.phase} {component.message}".strip())


async def wait_for_use(paths: HpkPaths, reporter: Reporter) -> None:
    """Wait until `kubectl run` would really work.

    :raises TransientError: that took too long; says what is missing.
    """
    reporter.step("nodes", "waiting")
    await wait_until_usable(
        paths, lambda text: reporter.step("nodes", text), timeout_s=_USABLE_TIMEOUT_S
    )
    _report_components(paths, reporter)
    reporter.done("nodes", "Ready")
