"""``pod.json``: a plan, the attempt it is for, and what the job must know of the site.

A kubelet reads what an older one wrote, of pods that outlive it: a new field has a default.
"""

from __future__ import annotations

from hpk.model.frozen import dataclass, replace
from hpk.model.ids import Nonce
from hpk.model.plan.pod import PodPlan

_FOR_EVER_S = 10**9


@dataclass(frozen=True)
class SupervisorSettings:
    """What the supervisor must know of the site and of the control plane. Paths are absolute.

    :param endpoint_path: endpoint.json, read again whenever the channel is lost.
    :param channel_ca_path: the CA that signs the kubelet's channel certificate.
    :param heartbeat_path: a file the control plane touches while it lives, the sign of life where
        no channel can be opened.
    :param orphan_timeout_s: stop the pod when neither channel nor heartbeat was seen for so long,
        0 never.
    :param local_root: parent of the job's node-local directory, e.g. ``/tmp``.
    :param runtime_path: directories to look for the runtime in, before PATH.
    :param kill_wait_s: Slurm's ``KillWait``, which lies between its SIGTERM and its SIGKILL.
    :param own_directories: HPK's own, which no hostPath volume may lie in, links resolved.
    """

    endpoint_path: str
    channel_ca_path: str
    heartbeat_path: str
    orphan_timeout_s: int
    local_root: str
    runtime_path: tuple[str, ...]
    kill_wait_s: int = 30
    own_directories: tuple[str, ...] = ()

    def for_pod(self, plan: PodPlan) -> SupervisorSettings:
        """These settings with what the Pod's plan says instead, and for ever as a number."""
        timeout_s = plan.orphan_timeout_s
        if timeout_s is None:
            timeout_s = self.orphan_timeout_s
        return replace(self, orphan_timeout_s=timeout_s or _FOR_EVER_S)


@dataclass(frozen=True)
class JobSpec:
    """``pod.json``: all that the supervisor reads from the disk when it starts."""

    plan: PodPlan
    nonce: Nonce
    settings: SupervisorSettings
