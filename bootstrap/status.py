"""`hpk status`: everything there is to know of a home's control plane, as data."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bootstrap import lock
from bootstrap.conditions import compute_problems
from bootstrap.jobs import OpenJob, open_jobs
from bootstrap.lock import Holder
from bootstrap.state import ComponentPhase, ComponentState, Interruption, Phase, read_state
from bootstrap.usable import NodeState, client_for, missing, read_endpoint, read_nodes
from hpk.model.errors import HpkError
from hpk.model.settings import Endpoint
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths

_HEARTBEAT_WINDOW_S = 3 * lock.BEAT_S


class Health(StrEnum):
    """The one word."""

    READY = "ready"
    DEGRADED = "degraded"
    STARTING = "starting"
    DOWN = "down"

    @property
    def exit_code(self) -> int:
        """0 ready, 1 not as it should be, 3 down (as systemctl has it)."""
        return {Health.READY: 0, Health.DOWN: 3}.get(self, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A control plane at one moment.

    :param problems: what is not as it should be, each with what to try.
    :param waiting_for: what is still to come before it can be used; see bootstrap.usable.
    :param slurm_version: None where Slurm does not answer.
    """

    health: Health
    holder: Holder | None
    endpoint: Endpoint | None
    components: tuple[ComponentState, ...]
    nodes: tuple[NodeState, ...]
    slurm_version: str | None
    jobs: tuple[OpenJob, ...]
    problems: tuple[str, ...]
    interruptions: tuple[Interruption, ...] = ()
    waiting_for: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``-o json``. Field names are kept from one version to the next."""
        endpoint = self.endpoint
        return {
            "health": self.health.value,
            "host": self.holder.identity.host if self.holder and self._is_up else None,
            "pid": self.holder.process.pid if self.holder and self._is_up else None,
            "job_id": self.holder.job_id if self.holder and self._is_up else None,
            "server": f"https://{endpoint.address}:{endpoint.api_port}" if endpoint else None,
            "components": [
                asdict(component) | {"phase": component.phase.value}
                for component in self.components
            ],
            "nodes": [asdict(node) for node in self.nodes],
            "slurm": {"version": self.slurm_version},
            "jobs": [asdict(job) for job in self.jobs],
            "problems": list(self.problems),
            "waiting_for": list(self.waiting_for),
            "interruptions": [asdict(one) for one in self.interruptions],
        }

    @property
    def _is_up(self) -> bool:
        return self.health is not Health.DOWN


async def read_status(paths: HpkPaths, backend: SlurmBackend) -> Status:
    """Look at everything; never raises because something is down."""
    problems: list[str] = []
    holder = lock.read_holder(paths)
    slurm = asyncio.create_task(_slurm_version(backend, problems))
    jobs = asyncio.create_task(open_jobs(paths, backend))
    endpoint, nodes, answers = await _ask_api(paths, problems)
    alive = holder is not None and (
        answers or await lock.is_alive(paths, holder, window_s=_HEARTBEAT_WINDOW_S)
    )
    holder = lock.read_holder(paths)  # it may have stopped in good order while we watched
    state = read_state(paths) if alive else None
    components = state.components if state is not None else ()
    waiting_for = await asyncio.to_thread(missing, paths)
    health = _health(alive, state.phase if state else None, components, nodes)
    if health is Health.READY and waiting_for:
        health = Health.STARTING
    if not alive:
        problems = _problems_when_down(holder, problems)
        endpoint = None
    problems += [
        f"{one.name} is in {one.phase}: {one.message or 'read its log in ' + str(paths.logs)}"
        for one in components
        if one.phase is not ComponentPhase.READY
    ]
    problems += [f"node {node.name} is not Ready" for node in nodes if not node.ready]
    # Only of a kubelet that is there: what an earlier one said is no news.
    problems += compute_problems(
        {node.name: node.troubles for node in nodes if node.fresh}, paths.home
    )
    if health is Health.DEGRADED and not nodes:
        problems.append(f"no virtual node: read {paths.logs / 'kubelet.log'}")
    return Status(
        health=health,
        holder=holder,
        endpoint=endpoint,
        components=components,
        nodes=nodes,
        slurm_version=await slurm,
        jobs=await jobs,
        problems=tuple(problems),
        interruptions=state.interruptions if state is not None else (),
        waiting_for=() if health is Health.READY else waiting_for,
    )


def _problems_when_down(holder: Holder | None, problems: list[str]) -> list[str]:
    rest = [problem for problem in problems if problem.startswith("Slurm")]
    if holder is not None and not holder.released:
        return [f"it died on {holder.where}: hpk up starts it again", *rest]
    return rest


async def _ask_api(
    paths: HpkPaths, problems: list[str]
) -> tuple[Endpoint | None, tuple[NodeState, ...], bool]:
    endpoint = read_endpoint(paths)
    if endpoint is None:
        return None, (), False
    try:
        client = client_for(paths, endpoint)
        nodes = await asyncio.to_thread(read_nodes, client, since_s=endpoint.started_at_s)
    except HpkError as error:
        problems.append(f"the API server does not answer: {error}")
        return endpoint, (), False
    return endpoint, nodes, True


async def _slurm_version(backend: SlurmBackend, problems: list[str]) -> str | None:
    try:
        return await backend.version()
    except HpkError as error:
        problems.append(f"Slurm does not answer: {error}")
        return None


def _health(
    alive: bool,
    phase: Phase | None,
    components: tuple[ComponentState, ...],
    nodes: tuple[NodeState, ...],
) -> Health:
    if not alive:
        return Health.DOWN
    if phase is Phase.STARTING:
        return Health.STARTING
    all_ready = all(one.phase is ComponentPhase.READY for one in components)
    if phase is Phase.RUNNING and all_ready and nodes and all(node.ready for node in nodes):
        return Health.READY
    return Health.DEGRADED
