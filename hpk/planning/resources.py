"""What a Pod asks of Slurm: CPUs, memory, GPUs and time, where its flags do not say.

The main container counts per task. Memory is a hard limit per node in Slurm, so with several tasks
a node it is the container's times the tasks of a node; where those are not known beforehand it is
asked per CPU instead, which follows the tasks wherever they land.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.model.resources import ContainerResources
from hpk.planning.fields import INVALID, JsonObject, get_object
from hpk.planning.quantity import parse_quantity, round_up
from hpk.planning.site import SiteSettings

CPU = "cpu"
MEMORY = "memory"
GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe")

_MIB = 1024 * 1024
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")
_GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task")
_START_MARGIN_S = 600


def container_resources(container: JsonObject, path: str) -> ContainerResources:
    """A container's requests and limits, rounded up to what Slurm counts in."""
    resources = get_object(container, "resources", path)
    amounts: dict[str, dict[str, int]] = {}
    for kind in ("requests", "limits"):
        items = get_object(resources, kind, f"{path}.resources")
        amounts[kind] = {
            name: _amount(name, text, f"{path}.resources.{kind}[{name}]")
            for name, text in items.items()
        }
    requests, limits = amounts["requests"], amounts["limits"]
    gpus = {name: limits.get(name, requests.get(name, 0)) for name in GPUS}
    asked = [name for name, count in gpus.items() if count]
    if len(asked) > 1:
        raise AdmissionError(
            INVALID, f"{path}.resources.limits[{asked[1]}]", f"cannot be combined with {asked[0]}"
        )
    return ContainerResources(
        cpu_request_m=requests.get(CPU, limits.get(CPU)),
        cpu_limit_m=limits.get(CPU),
        memory_request_bytes=requests.get(MEMORY, limits.get(MEMORY)),
        memory_limit_bytes=limits.get(MEMORY),
        gpus=sum(gpus.values()),
    )


def _amount(name: str, text: object, path: str) -> int:
    try:
        number = parse_quantity(text)
    except ParseError as error:
        raise AdmissionError(INVALID, path, error.message) from error
    return round_up(number * 1000 if name == CPU else number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """How a job's tasks lie.

    :param count: tasks of the job.
    :param nodes: nodes of the job at least.
    :param per_node: most tasks a node has; None where only Slurm will know.
    """

    count: int
    nodes: int
    per_node: int | None


def plan_tasks(options: Mapping[str, SbatchOption]) -> Tasks:
    """Tasks and nodes that the options ask for."""
    nodes = _first_number(options.get("nodes"))
    per_node = _first_number(options.get("ntasks-per-node"))
    count = _first_number(options.get("ntasks"))
    if count is None:
        count = (nodes or 1) * (per_node or 1)
        return Tasks(count=count, nodes=nodes or 1, per_node=per_node or 1)
    if per_node is not None:
        per_node = min(per_node, count)
        return Tasks(count=count, nodes=max(nodes or 1, -(-count // per_node)), per_node=per_node)
    if count == 1:
        return Tasks(count=count, nodes=nodes or 1, per_node=1)
    exactly_one_node = nodes == 1 and options["nodes"].value == "1"
    return Tasks(count=count, nodes=nodes or 1, per_node=count if exactly_one_node else None)


def _first_number(option: SbatchOption | None) -> int | None:
    """``4`` of ``4``, ``4-8`` or ``4k``."""
    if option is None or option.value is None:
        return None
    head = option.value.partition("-")[0]
    return int(head.rstrip("k")) * (1024 if head.endswith("k") else 1)


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
        cpus = _first_number(options["cpus-per-task"]) or 1
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
        asked, origin = site.default_memory_bytes, "site configuration, default_memory_bytes"
    else:
        return []
    if tasks.per_node is None:
        per_cpu = -(-asked // cpus)
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
        return [SbatchOption("gpus-per-task", str(resources.gpus), origin)]
    text = f"gpu:{resources.gpus * tasks.per_node}"
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
) -> SbatchOption | None:
    """``--time``: what the flags say, else enough for activeDeadlineSeconds, else MaxTime."""
    if "time" in options:
        return None
    longest = partition.max_time_s
    if deadline_s is not None and (longest is None or deadline_s + _START_MARGIN_S < longest):
        return SbatchOption(
            "time", _duration(deadline_s + _START_MARGIN_S), "spec.activeDeadlineSeconds"
        )
    if not site.use_partition_max_time:
        return None
    origin = f"MaxTime of partition {partition.name}"
    if longest is not None:
        return SbatchOption("time", _duration(longest), origin)
    if partition.default_time_s is not None:
        return SbatchOption("time", "UNLIMITED", origin)
    return None


def _duration(time_s: int) -> str:
    minutes = -(-time_s // 60)
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02}:{rest % 60:02}:00"


def check_fits(options: Mapping[str, SbatchOption], partition: Partition) -> None:
    """Refuse what no node of the partition can ever hold, as upstream's kubelet does.

    :raises AdmissionError: ``OutOfcpu``, ``OutOfmemory`` or ``OutOfnvidia.com/gpu``.
    """
    tasks = plan_tasks(options)
    per_node = tasks.per_node or 1
    cpus = options.get("cpus-per-task")
    need_cpus = (_first_number(cpus) or 1) * per_node
    if need_cpus > partition.max_node_cpus:
        _refuse(
            CPU, need_cpus, partition.max_node_cpus, cpus or options["ntasks-per-node"], partition
        )
    need_total = (_first_number(cpus) or 1) * tasks.count
    if need_total > partition.total_cpus:
        option = options.get("ntasks") or cpus or options["ntasks-per-node"]
        _refuse(CPU, need_total, partition.total_cpus, option, partition)
    memory = options.get("mem")
    if memory is not None and _size_bytes(memory) > partition.max_node_memory_bytes:
        _refuse(MEMORY, _size_bytes(memory), partition.max_node_memory_bytes, memory, partition)
    gres = options.get("gres")
    gpus = _gres_gpus(gres)
    if gres is not None and gpus > partition.max_node_gpus:
        _refuse("nvidia.com/gpu", gpus, partition.max_node_gpus, gres, partition)


def _refuse(
    resource: str, requested: int, capacity: int, option: SbatchOption, partition: Partition
) -> None:
    raise AdmissionError(
        f"OutOf{resource}",
        option.origin,
        f"Node didn't have enough resource: {resource}, requested: {requested}, used: 0,"
        f" capacity: {capacity}",
        remedy=f"ask for less, or choose another partition than {partition.name}",
    )


def _size_bytes(option: SbatchOption) -> int:
    """``512`` (MiB), ``512M``, ``4G``, ``2GB``."""
    text = (option.value or "0").upper().removesuffix("B")
    units = {"K": 1024, "M": _MIB, "G": 1024 * _MIB, "T": 1024 * 1024 * _MIB}
    if text and text[-1] in units:
        return int(text[:-1]) * units[text[-1]]
    return int(text or "0") * _MIB


def _gres_gpus(option: SbatchOption | None) -> int:
    total = 0
    for item in (option.value or "").split(",") if option is not None else ():
        name, *rest = item.split("(")[0].split(":")
        if name == "gpu":
            count = rest[-1] if rest else "1"
            total += int(count) if count.isdigit() else 1
    return total
