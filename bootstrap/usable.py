"""Whether a control plane can be used: what `kubectl run` would still lack.

A control plane is up when its components are; it can be used when the kubelet of this start has
made its virtual nodes Ready, and the objects are there without which no Pod can be made.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bootstrap.api import TlsClient
from bootstrap.conditions import Trouble, node_troubles
from bootstrap.pki import Pki
from bootstrap.state import ComponentPhase, ComponentState, Phase, read_state
from hpk.model import codec
from hpk.model.errors import HpkError, ParseError, TransientError
from hpk.model.settings import Endpoint
from hpk.statefs import HpkPaths

_POLL_S = 0.2
_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """One virtual node.

    :param fresh: its lease was renewed since the control plane started: Ready is not a memory.
    :param troubles: what the kubelet says is wrong; see bootstrap.conditions.
    """

    name: str
    ready: bool
    fresh: bool
    troubles: tuple[Trouble, ...] = ()


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
            troubles=node_troubles(node),
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


def missing(paths: HpkPaths) -> tuple[str, ...]:
    """What is still to come before the control plane can be used, nothing when it can. Blocks."""
    endpoint, state = read_endpoint(paths), read_state(paths)
    components = state.components if state is not None else ()
    if endpoint is None:
        if state is not None and state.phase is Phase.STARTING:
            return _unready(components) or ("the control plane to start",)
        return ("a control plane (hpk up, or sbatch hpk-start.sh)",)
    client = client_for(paths, endpoint)
    found = missing_in_api(client, components, since_s=endpoint.started_at_s)
    if not found and not paths.kubeconfig.exists():
        return (f"{paths.kubeconfig}",)
    return found


def missing_in_api(
    client: TlsClient, components: tuple[ComponentState, ...], *, since_s: float
) -> tuple[str, ...]:
    """The same, of a control plane whose API server should answer. Blocks."""
    found = list(_unready(components))
    try:
        nodes = read_nodes(client, since_s=since_s)
        status, _ = client.get(_ACCOUNT)
    except HpkError as error:
        return (*found, f"the API server ({error})")
    late = [node.name for node in nodes if not (node.ready and node.fresh)]
    if not nodes:
        found.append("a virtual node")
    if late:
        found.append(f"nodes to be Ready: {', '.join(late)}")
    if status != http.HTTPStatus.OK:
        found.append("the service account default of namespace default")
    return tuple(found)


def _unready(components: tuple[ComponentState, ...]) -> tuple[str, ...]:
    return tuple(
        f"{one.name} ({one.phase}{': ' + one.message if one.message else ''})"
        for one in components
        if one.phase is not ComponentPhase.READY
    )


async def wait_until_usable(
    paths: HpkPaths, say: Callable[[str], None], *, timeout_s: float | None
) -> None:
    """Wait until nothing is missing.

    :param say: called with what is waited for, whenever that changes.
    :param timeout_s: None for ever.
    :raises TransientError: that took too long; says what is missing.
    """
    began, said = time.monotonic(), ""
    while found := await asyncio.to_thread(missing, paths):
        text = "; ".join(found)
        if text != said:
            say(f"waiting for {text}")
            said = text
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise TransientError(
                f"after {timeout_s:g} s there is still to come: {text}",
                remedy=f"hpk status shows the components, {paths.logs} holds their logs",
            )
        await asyncio.sleep(_POLL_S)
