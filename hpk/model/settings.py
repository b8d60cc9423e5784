"""What the control plane writes for the kubelet and for the supervisors. No I/O."""

from __future__ import annotations

from typing import Optional

from hpk.model.frozen import dataclass


@dataclass(frozen=True)
class KubeletSettings:
    """``$HPK_HOME/kubelet/settings.json``. Paths are absolute, ports TCP.

    :param kubeconfig: credentials of the user ``hpk:kubelet``.
    :param address: this host's address, for the kubelet API, the channel and Node.status.
    :param port: of the kubelet API.
    :param client_ca: signs the clients the kubelet API accepts.
    :param channel_port: where supervisors dial; its certificate and key follow.
    :param api_host: where pods reach the API server, api_port alike.
    :param poll_interval_s: pause between two squeue calls while jobs are live.
    """

    kubeconfig: str
    cluster_name: str
    address: str
    port: int
    tls_cert: str
    tls_key: str
    client_ca: str
    channel_port: int
    channel_cert: str
    channel_key: str
    channel_ca: str
    api_host: str
    api_port: int
    orphan_timeout_s: int
    poll_interval_s: float = 2.0


@dataclass(frozen=True)
class Endpoint:
    """``$HPK_HOME/endpoint.json``: where the control plane is now.

    :param generation: grows with each start, so that an old file is not taken for news.
    :param pid: of the supervising process on ``host``.
    :param job_id: the Slurm job it runs in, None on a login node.
    """

    generation: int
    host: str
    address: str
    pid: int
    job_id: Optional[int]
    api_port: int
    channel_port: int
    started_at_s: float
