"""What a site and a user configure about the translation of Pods. Data, and its making from files.

`site_settings` is the only place that reads a hpk.config object for planning; the rest of this room
sees SiteSettings alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpk.config.load import LoadedConfig
from hpk.config.schema import DEFAULT_GPUS, SubmitConfig
from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.planning.base.quantity import parse_quantity, round_up

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Defaults and limits of the translation.

    :param default_runtime: container runtime of a Pod that names none.
    :param runtimes: runtimes a Pod may name.
    :param launchers: MPI launchers a Pod may name; the first is the default.
    :param default_memory_bytes: for a Pod that says nothing of memory; None leaves it to Slurm's
        DefMemPerNode or DefMemPerCPU.
    :param default_memory_origin: what to tell of it in `hpk explain`.
    :param minimum_memory_bytes: the least a job asks for when the Pod speaks of memory, because
        the supervisor and the runtime live inside the same limit.
    :param use_partition_max_time: ask for the partition's MaxTime where nothing else gives a time,
        so that no Pod is cut off at DefaultTime.
    :param options: account, qos, constraint and time of a Pod that does not say itself.
    :param namespace_options: by namespace, what takes their place there.
    :param default_partition: whose virtual node is the default one; "" for Slurm's default.
    :param gpus: resource name → GRES (``gpu`` or ``gpu:TYPE``).
    :param own_directories: HPK's own, absolute, which no hostPath volume may lie in.
    """

    default_runtime: str = "apptainer"
    runtimes: tuple[str, ...] = ("apptainer", "podman")
    launchers: tuple[str, ...] = ("pmix",)
    default_memory_bytes: int | None = None
    default_memory_origin: str = "pods.default-memory"
    minimum_memory_bytes: int = 96 * _MIB
    use_partition_max_time: bool = True
    options: tuple[SbatchOption, ...] = ()
    namespace_options: Mapping[str, tuple[SbatchOption, ...]] = field(default_factory=dict)
    default_partition: str = ""
    gpus: Mapping[str, str] = field(default_factory=lambda: DEFAULT_GPUS)
    own_directories: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"

    def options_for(self, namespace: str) -> dict[str, SbatchOption]:
        """The options of a Pod of this namespace that does not say itself, by name."""
        special = self.namespace_options.get(namespace, ())
        return {option.name: option for option in (*self.options, *special)}


def site_settings(loaded: LoadedConfig, own_directories: tuple[str, ...] = ()) -> SiteSettings:
    """The settings that the files in force give.

    :param own_directories: those that no setting names; see SiteSettings.
    """
    config, default = loaded.config, SiteSettings()
    first = config.pods.mpi_launcher
    return SiteSettings(
        default_runtime=config.pods.runtime,
        launchers=(first, *(name for name in default.launchers if name != first)),
        default_memory_bytes=_bytes(config.pods.default_memory) or None,
        default_memory_origin=_told(loaded, "pods", "default-memory"),
        minimum_memory_bytes=_bytes(config.pods.minimum_memory),
        use_partition_max_time=config.slurm.use_partition_max_time,
        options=_options(loaded, config.slurm, "slurm"),
        namespace_options={
            name: _options(loaded, special, "namespaces", name)
            for name, special in config.namespaces.items()
        },
        default_partition=config.slurm.partition,
        gpus=config.gpus,
        own_directories=(*own_directories, *_data_directories(config.control_plane.etcd_data)),
        cluster_domain=config.control_plane.cluster_domain,
    )


def _data_directories(etcd_data: str) -> tuple[str, ...]:
    """Where etcd's files are, with all that the cluster knows; as it is written, and with its
    links resolved."""
    if not etcd_data:
        return ()
    return tuple(sorted({etcd_data, str(Path(etcd_data).resolve())}))


def prefer_partition(partitions: Sequence[Partition], name: str) -> tuple[Partition, ...]:
    """The partitions, with this one as the default; Slurm's default where it is not among them."""
    if all(partition.name != name for partition in partitions):
        return tuple(partitions)
    return tuple(dataclasses.replace(p, is_default=p.name == name) for p in partitions)


def _options(loaded: LoadedConfig, config: SubmitConfig, *table: str) -> tuple[SbatchOption, ...]:
    values = {
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "time": config.time,
    }
    return tuple(
        SbatchOption(name, value, _told(loaded, *table, name))
        for name, value in values.items()
        if value
    )


def _told(loaded: LoadedConfig, *key: str) -> str:
    return f"{'.'.join(key)} in {loaded.origin(*key)}"


def _bytes(quantity: str) -> int:
    return round_up(parse_quantity(quantity)) if quantity else 0
