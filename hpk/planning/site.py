"""What a site or a user configures about the translation of Pods. Data only."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Defaults and limits of the translation.

    :param default_runtime: container runtime of a Pod that names none.
    :param runtimes: runtimes a Pod may name.
    :param launchers: MPI launchers a Pod may name; the first is the default.
    :param default_memory_bytes: for a Pod that says nothing of memory; None leaves it to Slurm's
        DefMemPerNode or DefMemPerCPU.
    :param minimum_memory_bytes: the least a job asks for when the Pod speaks of memory, because
        the supervisor and the runtime live inside the same limit.
    :param use_partition_max_time: ask for the partition's MaxTime where nothing else gives a time,
        so that no Pod is cut off at DefaultTime.
    """

    default_runtime: str = "apptainer"
    runtimes: tuple[str, ...] = ("apptainer",)
    launchers: tuple[str, ...] = ("pmix",)
    default_memory_bytes: int | None = None
    minimum_memory_bytes: int = 96 * _MIB
    use_partition_max_time: bool = True
