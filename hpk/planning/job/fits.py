"""Refusing what no node of the partition can ever hold, in the words of upstream's kubelet."""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.duration import format_duration, parse_duration
from hpk.model.errors import AdmissionError
from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.planning.environment.downward import JobResources
from hpk.planning.job.flags import INVALID_ANNOTATION
from hpk.planning.job.mpi import MpiRequest
from hpk.planning.job.resources import CPU, MEMORY
from hpk.planning.job.tasks import first_number, plan_tasks

_MIB = 1024 * 1024
_UNITS = {"K": 1024, "M": _MIB, "G": 1024 * _MIB, "T": 1024 * 1024 * _MIB}

Options = Mapping[str, SbatchOption]


def check_ranks(options: Options, mpi: MpiRequest) -> None:
    """Refuse an MPI run of more ranks than the job has tasks: srun would refuse it in the job."""
    tasks = plan_tasks(options)
    if mpi.ranks is not None and mpi.ranks > tasks.count and not mpi.overcommit:
        raise AdmissionError(
            INVALID_ANNOTATION,
            mpi.field,
            f"asks for {mpi.ranks} ranks of a job with {tasks.count} tasks",
            remedy="give the flags annotation as many --ntasks, or leave them out there",
        )


def check_fits(options: Options, partition: Partition, gpu_resource: str) -> None:
    """Refuse what can never be placed: most of it Slurm would queue for ever without a word.

    :param gpu_resource: the name to give GPUs in the reason.
    :raises AdmissionError: ``OutOfcpu``, ``OutOfmemory`` or ``OutOf`` + gpu_resource;
        ``InvalidAnnotation`` for nodes and time.
    """
    _check_nodes(options, partition)
    _check_time(options, partition)
    _check_cpus(options, partition)
    _check_memory(options, partition)
    _check_gpus(options, partition, gpu_resource)


def job_resources(options: Options, partition: Partition) -> JobResources:
    """What the job has on its first node, as far as its options say."""
    tasks = plan_tasks(options)
    cpus = (first_number(options.get("cpus-per-task")) or 1) * (tasks.per_node or 1)
    if "exclusive" in options:
        cpus = partition.max_node_cpus
    default = partition.default_memory_per_node_bytes or partition.max_node_memory_bytes
    if partition.default_memory_per_cpu_bytes:
        default = partition.default_memory_per_cpu_bytes * cpus
    memory_bytes = default
    if "mem" in options:
        memory_bytes = _size_bytes(options["mem"]) or partition.max_node_memory_bytes
    elif "mem-per-cpu" in options:
        memory_bytes = _size_bytes(options["mem-per-cpu"]) * cpus
    return JobResources(cpu_m=cpus * 1000, memory_bytes=memory_bytes)


def _check_nodes(options: Options, partition: Partition) -> None:
    nodes = first_number(options.get("nodes"))
    if nodes is not None and nodes > len(partition.nodes):
        raise AdmissionError(
            INVALID_ANNOTATION,
            options["nodes"].origin,
            f"asks for {nodes} nodes, but partition {partition.name} has {len(partition.nodes)}",
            remedy="ask for fewer nodes, or choose another partition by nodeSelector",
        )


def _check_time(options: Options, partition: Partition) -> None:
    for name in ("time", "time-min"):
        option = options.get(name)
        if option is None or partition.max_time_s is None:
            continue
        time_s = parse_duration(option.value or "")
        if time_s is None or time_s > partition.max_time_s:
            raise AdmissionError(
                INVALID_ANNOTATION,
                option.origin,
                f"--{name}={option.value} is more than partition {partition.name} allows,"
                f" {format_duration(partition.max_time_s)}",
                remedy="ask for less time, or choose another partition by nodeSelector",
            )


def _check_cpus(options: Options, partition: Partition) -> None:
    if "overcommit" in options:
        return
    tasks = plan_tasks(options)
    cpus = first_number(options.get("cpus-per-task")) or 1
    origin = _first(options, "cpus-per-task", "ntasks-per-node", "ntasks", "nodes")
    if cpus * (tasks.per_node or 1) > partition.max_node_cpus:
        raise _out_of(CPU, cpus * (tasks.per_node or 1), partition.max_node_cpus, origin, partition)
    if cpus * tasks.count > partition.total_cpus:
        origin = _first(options, "ntasks", "nodes", "ntasks-per-node", "cpus-per-task")
        raise _out_of(CPU, cpus * tasks.count, partition.total_cpus, origin, partition)


def _check_memory(options: Options, partition: Partition) -> None:
    if "mem" in options:
        option, size_bytes = options["mem"], _size_bytes(options["mem"])
    elif "mem-per-cpu" in options:
        cpus = first_number(options.get("cpus-per-task")) or 1
        per_node = plan_tasks(options).per_node or 1
        option = options["mem-per-cpu"]
        size_bytes = _size_bytes(option) * cpus * per_node
    else:
        return
    if size_bytes > partition.max_node_memory_bytes:
        raise _out_of(MEMORY, size_bytes, partition.max_node_memory_bytes, option.origin, partition)


def _check_gpus(options: Options, partition: Partition, resource: str) -> None:
    for name in ("gres", "gpus-per-node", "gpus-per-task"):
        option = options.get(name)
        if option is None:
            continue
        gpus = _gres_gpus(option.value or "", is_gres=name == "gres")
        if gpus > partition.max_node_gpus:
            raise _out_of(resource, gpus, partition.max_node_gpus, option.origin, partition)


def _first(options: Options, *names: str) -> str:
    """The origin of the first of these options that is there."""
    return next((options[name].origin for name in names if name in options), "spec")


def _out_of(
    resource: str, requested: int, capacity: int, origin: str, partition: Partition
) -> AdmissionError:
    return AdmissionError(
        f"OutOf{resource}",
        origin,
        f"Node didn't have enough resource: {resource}, requested: {requested}, used: 0,"
        f" capacity: {capacity}",
        remedy=f"ask for less, or choose another partition than {partition.name}",
    )


def _size_bytes(option: SbatchOption) -> int:
    """``512`` (MiB), ``512M``, ``4G``, ``2GB``; 0 is a node's whole memory."""
    text = (option.value or "0").upper().removesuffix("B")
    if text[-1:] in _UNITS:
        return int(text[:-1]) * _UNITS[text[-1]]
    return int(text or "0") * _MIB


def _gres_gpus(text: str, *, is_gres: bool) -> int:
    """GPUs in ``gpu:a100:2,nvme:1`` (--gres) or ``a100:2`` (--gpus-per-node)."""
    total = 0
    for item in text.split(","):
        name, _, rest = item.partition(":") if is_gres else ("gpu", ":", item)
        if name in ("gpu", "gres/gpu"):
            count = rest.partition("(")[0].rpartition(":")[2]
            total += int(count) if count.isdigit() else 1
    return total
