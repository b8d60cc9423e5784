"""What a Pod asks of Slurm where its flags do not say: CPUs, memory, GPUs and time.

The main container counts per task. Memory is a hard limit per node in Slurm, so with several tasks
a node it is the container's times the tasks of a node; where those are not known beforehand it is
asked per CPU instead, which follows the tasks wherever they land.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.model.resources import ContainerResources
from hpk.planning.duration import duration_s, format_duration
from hpk.planning.resources import CPU, MEMORY
from hpk.planning.site import SiteSettings
from hpk.planning.tasks import Tasks, first_number, plan_tasks

_MIB = 1024 * 1024
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
_GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task")
_START_MARGIN_S = 600
"""What a job may need around its containers' life: image, mounts, last words."""


def imply_resources(
    options: Mapping[str, SbatchOption],
    resources: ContainerResources,
    path: str,
    site: SiteSettings,
) -> tuple[SbatchOption, ...]:
    """The options a container's resources add to those already chosen."""
    tasks = plan_tasks(options)
    implied: list[SbatchOption] = []
    cpus = 1
    if "cpus-per-task" in options:
        cpus = first_number(options["cpus-per-task"]) or 1
    elif resources.cpu_request_m:
        cpus = -(-resources.cpu_request_m // 1000)
        implied.append(
            SbatchOption("cpus-per-task", str(cpus), f"{path}.resources.requests[{CPU}]")
        )
    implied.extend(_imply_memory(options, resources, path, site, tasks, cpus))
    implied.extend(_imply_gpus(options, resources, path, tasks))
    return tuple(implied)


def _imply_memory(
    options: Mapping[str, SbatchOption],
    resources: ContainerResources,
    path: str,
    site: SiteSettings,
    tasks: Tasks,
    cpus: int,
) -> list[SbatchOption]:
    if any(name in options for name in _MEMORY_OPTIONS):
        return []
    if resources.memory_limit_bytes:
        asked, origin = resources.memory_limit_bytes, f"{path}.resources.limits[{MEMORY}]"
    elif resources.memory_request_bytes:
        asked, origin = resources.memory_request_bytes, f"{path}.resources.requests[{MEMORY}]"
    elif site.default_memory_bytes:
        asked, origin = site.default_memory_bytes, site.default_memory_origin
    else:
        return []
    if tasks.per_node is None:
        per_cpu = -(-max(asked, site.minimum_memory_bytes) // cpus)
        return [SbatchOption("mem-per-cpu", f"{_mib(per_cpu)}M", origin)]
    per_node = max(asked * tasks.per_node, site.minimum_memory_bytes)
    return [SbatchOption("mem", f"{_mib(per_node)}M", origin)]


def _imply_gpus(
    options: Mapping[str, SbatchOption], resources: ContainerResources, path: str, tasks: Tasks
) -> list[SbatchOption]:
    if not resources.gpus or any(name in options for name in _GPU_OPTIONS):
        return []
    gres = options.get("gres")
    if gres is not None and "gpu" in (gres.value or ""):
        return []
    origin = f"{path}.resources.limits"
    if tasks.per_node is None:
        kind = resources.gres.removeprefix("gpu").removeprefix(":")
        text = f"{kind}:{resources.gpus}" if kind else str(resources.gpus)
        return [SbatchOption("gpus-per-task", text, origin)]
    text = f"{resources.gres}:{resources.gpus * tasks.per_node}"
    if gres is not None:
        text = f"{gres.value},{text}"
    return [SbatchOption("gres", text, origin)]


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // _MIB)


def imply_time(
    options: Mapping[str, SbatchOption],
    partition: Partition,
    site: SiteSettings,
    deadline_s: int | None,
    default: SbatchOption | None = None,
) -> SbatchOption | None:
    """``--time``: the flags', else enough for activeDeadlineSeconds, else configured, else MaxTime.

    :param default: the configured time, which is no promise: the partition may allow less.
    """
    if "time" in options:
        return None
    longest = partition.max_time_s
    if deadline_s is not None and (longest is None or deadline_s + _START_MARGIN_S < longest):
        return SbatchOption(
            "time", format_duration(deadline_s + _START_MARGIN_S), "spec.activeDeadlineSeconds"
        )
    if default is not None and deadline_s is None:
        default_s = duration_s(default.value or "")
        if default_s is not None and (longest is None or default_s <= longest):
            return default
    elif not site.use_partition_max_time:
        return None
    origin = f"MaxTime of partition {partition.name}"
    if longest is not None:
        return SbatchOption("time", format_duration(longest), origin)
    if partition.default_time_s is not None:
        return SbatchOption("time", "UNLIMITED", origin)
    return None
