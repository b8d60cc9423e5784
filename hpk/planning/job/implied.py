"""What a Pod asks of Slurm where its flags do not say: CPUs, memory, GPUs and time.

The main container counts per task, the others once. Memory is a hard limit per node in Slurm, so
with several tasks a node it is the container's times the tasks of a node; where those are not known
beforehand it is asked per CPU instead, which follows the tasks wherever they land.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.duration import format_duration, parse_duration
from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.planning.job.effective import PodResources
from hpk.planning.job.resources import CPU, MEMORY
from hpk.planning.job.site import SiteSettings
from hpk.planning.job.tasks import Tasks, first_number, plan_tasks

_MIB = 1024 * 1024
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
_GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task")
_START_MARGIN_S = 600
"""What a job may need around its containers' life: image, mounts, last words."""


def imply_resources(
    options: Mapping[str, SbatchOption],
    resources: PodResources,
    site: SiteSettings,
    partition: Partition,
) -> tuple[SbatchOption, ...]:
    """The options a Pod's resources add to those already chosen."""
    tasks = plan_tasks(options)
    implied: list[SbatchOption] = []
    cpus = _cpus(resources, tasks)
    if "cpus-per-task" in options:
        cpus = first_number(options["cpus-per-task"]) or 1
    elif cpus:
        origin = f"{resources.path}.resources.requests[{CPU}]{_with_others(resources)}"
        implied.append(SbatchOption("cpus-per-task", str(cpus), origin))
    implied.extend(_imply_memory(options, resources, site, partition, tasks, cpus or 1))
    implied.extend(_imply_gpus(options, resources, tasks))
    return tuple(implied)


def _cpus(resources: PodResources, tasks: Tasks) -> int:
    """CPUs per task; 0 where nothing asks for any.

    Slurm gives every task as many, and only whole ones: with several tasks those of the other
    containers are spread over them, and a remainder shares the tasks' own.
    """
    main_m = resources.main.cpu_request_m or 0
    beside_m, before_m = resources.beside.cpu_m, resources.before.cpu_m
    if tasks.count == 1:
        return _up(max(main_m + beside_m, before_m), 1000)
    spread = tasks.per_node or tasks.count
    own = _up(main_m, 1000)
    if beside_m:
        own = max(own, 1) + _up(beside_m, 1000) // spread
    return max(own, _up(before_m, 1000 * spread))


def _imply_memory(
    options: Mapping[str, SbatchOption],
    resources: PodResources,
    site: SiteSettings,
    partition: Partition,
    tasks: Tasks,
    cpus: int,
) -> list[SbatchOption]:
    if any(name in options for name in _MEMORY_OPTIONS):
        return []
    main, path = resources.main, resources.path
    beside, before = resources.beside.memory_bytes, resources.before.memory_bytes
    if main.memory_limit_bytes:
        asked, origin = main.memory_limit_bytes, f"{path}.resources.limits[{MEMORY}]"
    elif main.memory_request_bytes:
        asked, origin = main.memory_request_bytes, f"{path}.resources.requests[{MEMORY}]"
    elif site.default_memory_bytes:
        asked, origin = site.default_memory_bytes, site.default_memory_origin
    elif beside or before:
        # What Slurm would give the main container must not shrink for what others ask.
        asked = _slurm_default(partition, cpus)
        origin = f"{path} says nothing of memory: partition {partition.name}'s default"
        if not asked:
            return []
    else:
        return []
    origin += _with_others(resources)
    if tasks.per_node is None:
        per_task = max(asked + beside, before, site.minimum_memory_bytes)
        return [SbatchOption("mem-per-cpu", f"{_mib(_up(per_task, cpus))}M", origin)]
    per_node = max(asked * tasks.per_node + beside, before, site.minimum_memory_bytes)
    return [SbatchOption("mem", f"{_mib(per_node)}M", origin)]


def _slurm_default(partition: Partition, cpus: int) -> int:
    per_cpu = partition.default_memory_per_cpu_bytes
    return per_cpu * cpus if per_cpu else partition.default_memory_per_node_bytes or 0


def _imply_gpus(
    options: Mapping[str, SbatchOption], resources: PodResources, tasks: Tasks
) -> list[SbatchOption]:
    main, beside, before = resources.main.gpus, resources.beside.gpus, resources.before.gpus
    if not (main or beside or before) or any(name in options for name in _GPU_OPTIONS):
        return []
    gres = options.get("gres")
    if gres is not None and "gpu" in (gres.value or ""):
        return []
    origin = f"{resources.path}.resources.limits{_with_others(resources)}"
    if tasks.per_node is None:
        per_task = max(main + beside, before)
        kind = resources.gres.removeprefix("gpu").removeprefix(":")
        text = f"{kind}:{per_task}" if kind else str(per_task)
        return [SbatchOption("gpus-per-task", text, origin)]
    text = f"{resources.gres}:{max(main * tasks.per_node + beside, before)}"
    if gres is not None:
        text = f"{gres.value},{text}"
    return [SbatchOption("gres", text, origin)]


def _with_others(resources: PodResources) -> str:
    return "" if resources.is_alone else " and the other containers'"


def _up(amount: int, unit: int) -> int:
    return -(-amount // unit)


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
        default_s = parse_duration(default.value or "")
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
