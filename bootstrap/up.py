"""`hpk up`: start the supervising process, and wait until Nodes are Ready."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bootstrap import lock
from bootstrap.api import TlsClient
from bootstrap.binaries import Reporter, ensure_all
from bootstrap.host import Identity
from bootstrap.logs import control_plane_log
from bootstrap.pki import Pki
from bootstrap.prepare import component_environment
from bootstrap.runner import log_tail
from bootstrap.state import ComponentPhase, ControlPlaneState, Phase, read_state
from hpk import subproc
from hpk.config.schema import Config
from hpk.durable import private_directory
from hpk.model import codec
from hpk.model.errors import HpkError, ParseError, PermanentError, TransientError
from hpk.model.settings import Endpoint
from hpk.statefs import HpkPaths

_POLL_S = 0.1
_LOOK_S = 3 * lock.BEAT_S
_NODES_TIMEOUT_S = 60.0
_SLURM_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_")
_KEPT = ("HPK_HOME", "HPK_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One virtual node.

    :param fresh: its lease was renewed since the control plane started: Ready is not a memory.
    """

    name: str
    ready: bool
    fresh: bool


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


def read_endpoint(paths: HpkPaths) -> Endpoint | None:
    """Where the control plane is; None where it is not up."""
    try:
        return codec.loads(Endpoint, paths.endpoint.read_text())
    except (FileNotFoundError, ParseError):
        return None


def client_for(paths: HpkPaths, endpoint: Endpoint) -> TlsClient:
    """The API server at this endpoint, as the home's administrator."""
    pki = Pki(root=paths.pki)
    return TlsClient(
        host=endpoint.address,
        port=endpoint.api_port,
        ca=pki.authority("api"),
        certificate=pki.certificate("admin"),
        key=pki.key("admin"),
    )


def read_nodes(client: TlsClient, *, since_s: float) -> tuple[NodeState, ...]:
    """The virtual nodes, as the API server has them. Blocks.

    :param since_s: a lease renewed after this moment is fresh.
    :raises TransientError: the API server does not answer.
    """
    nodes = client.get_json("/api/v1/nodes")
    leases = client.get_json("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    renewed = {
        lease["metadata"]["name"]: _renewed_at_s(lease) for lease in leases.get("items") or ()
    }
    return tuple(
        NodeState(
            name=node["metadata"]["name"],
            ready=_is_ready(node),
            fresh=renewed.get(node["metadata"]["name"], 0.0) >= since_s,
        )
        for node in nodes.get("items") or ()
    )


def _renewed_at_s(lease: dict[str, Any]) -> float:
    text = (lease.get("spec") or {}).get("renewTime") or ""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


async def wait_for_nodes(
    paths: HpkPaths, endpoint: Endpoint, reporter: Reporter
) -> tuple[NodeState, ...]:
    """Wait until every virtual node is Ready by the word of the kubelet that runs now.

    :raises TransientError: that took too long; says what is missing.
    """
    client = client_for(paths, endpoint)
    deadline = time.monotonic() + _NODES_TIMEOUT_S
    missing = "no virtual node has registered"
    reporter.step("nodes", "waiting")
    while time.monotonic() < deadline:
        try:
            nodes = await asyncio.to_thread(read_nodes, client, since_s=endpoint.started_at_s)
        except HpkError as error:
            missing = str(error)
        else:
            late = [node.name for node in nodes if not (node.ready and node.fresh)]
            if nodes and not late:
                reporter.done("nodes", f"Ready: {', '.join(node.name for node in nodes)}")
                return nodes
            missing = f"not Ready: {', '.join(late)}" if late else missing
        reporter.step("nodes", missing)
        _report_components(paths, reporter)
        await asyncio.sleep(_POLL_S)
    raise TransientError(
        f"the control plane is up, but after {_NODES_TIMEOUT_S:g} s {missing}",
        remedy=f"read {paths.logs / 'kubelet.log'}; hpk status shows the components",
    )
