"""What this node must have for a pod, and what the pod's containers share on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hpk.model.errors import PermanentError
from hpk.model.frozen import dataclass
from hpk.model.ids import SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.base import NodeFacts, Runtime
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor.base import termination
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.inside import node
from hpk.supervisor.inside.hosts import pod_hostname
from hpk.supervisor.inside.localdir import LocalDirs
from hpk.supervisor.inside.memory import OomCounter
from hpk.supervisor.inside.pod_volumes import PodVolumes


@dataclass(frozen=True)
class Identity:
    """This run of the supervisor.

    :param program: argv that runs this same program on any node of the job.
    :param env: the environment of the batch script.
    """

    spec: JobSpec
    layout: AttemptLayout
    job_id: SlurmJobId
    program: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Tools:
    """The container runtime, what was found of it here, and the environment of such programs."""

    runtime: Runtime
    facts: NodeFacts
    env: Mapping[str, str]


def find_tools(me: Identity) -> Tools:
    """The pod's runtime on this node.

    :raises PermanentError: it, or an MPI launcher, is not to be had.
    """
    plan = me.spec.plan
    runtime = RUNTIMES.get(plan.runtime)
    if runtime is None:
        raise PermanentError(f"no container runtime named {plan.runtime!r}")
    for container in plan.containers:
        if container.mpi is not None and container.mpi.launcher not in LAUNCHERS:
            raise PermanentError(f"no MPI launcher named {container.mpi.launcher!r}")
    env = node.tool_environment(me.env)
    facts = node.probe_node(runtime.programs, me.spec.settings.runtime_path, env["PATH"])
    unusable = runtime.unusable(facts)
    if unusable:
        raise PermanentError(unusable)
    return Tools(runtime, facts, env)


def pod_context(
    me: Identity, tools: Tools, dirs: LocalDirs, volumes: PodVolumes, began_mono_s: float
) -> PodContext:
    """What the pod's containers share.

    :param began_mono_s: when the pod began, monotonic.
    """
    plan = me.spec.plan
    count = len(plan.init_containers) + len(plan.containers)
    return PodContext(
        layout=me.layout,
        dirs=dirs,
        volumes=volumes,
        runtime=tools.runtime,
        facts=tools.facts,
        hostname=pod_hostname(plan, os.uname().nodename),
        tool_env=tools.env,
        job_env=me.env,
        rank_program=me.program,
        host=node.host_name(me.env),
        oom=OomCounter(),
        is_alone=count == 1,
        message_bytes=termination.bytes_for_each(count),
        initializes=bool(plan.init_containers),
        grace_period_s=plan.grace_period_s,
        began_mono_s=began_mono_s,
        shares_processes=plan.shares_processes,
    )


def program_argv() -> tuple[str, ...]:
    """argv that runs this program again, on a node that sees the same file systems."""
    return (sys.executable, "-I", "-S", os.path.realpath(sys.argv[0]))
