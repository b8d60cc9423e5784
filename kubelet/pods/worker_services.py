"""What all pod workers share: the parts of the kubelet that they act through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hpk.journal import Attempt
from hpk.model.job import Partition
from hpk.planning.job.site import SiteSettings
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.link.session import Session
from kubelet.pods.pod_images import ImageProvider, Spawn
from kubelet.pods.runtime_classes import RuntimeClasses
from kubelet.shared_files import SharedFiles
from kubelet.status.events import EventRecorder
from kubelet.status.status_manager import StatusManager
from kubelet.submission.submitter import Submitter


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """What all workers share.

    :param spawn: starts a task that the kubelet watches over.
    :param partition: of a virtual node by its name.
    :param knows_partitions: whether Slurm has answered at all since the kubelet started.
    :param session: the open channel of an attempt.
    :param counts: ``syncs``: of all workers together.
    """

    paths: HpkPaths
    files: SharedFiles
    slurm: SlurmBackend
    site: SiteSettings
    runtime_classes: RuntimeClasses
    images: ImageProvider
    submitter: Submitter
    pleg: Pleg
    observations: Observations
    statuses: StatusManager
    events: EventRecorder
    partition: Callable[[str], Partition | None]
    knows_partitions: Callable[[], bool]
    session: Callable[[Attempt], Session | None]
    spawn: Spawn
    counts: Counter[str] = field(default_factory=Counter)
