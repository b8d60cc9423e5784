"""Quantities a container or a pod asks of Slurm."""

from __future__ import annotations

from typing import Optional

from hpk.model.frozen import dataclass


@dataclass(frozen=True)
class ContainerResources:
    """What one container may use; None where the Pod says nothing.

    CPUs are in thousandths, memory in bytes, GPUs whole.

    :param gres: what Slurm calls these GPUs: ``gpu`` or ``gpu:TYPE``.
    """

    cpu_request_m: Optional[int] = None
    cpu_limit_m: Optional[int] = None
    memory_request_bytes: Optional[int] = None
    memory_limit_bytes: Optional[int] = None
    gpus: int = 0
    gres: str = "gpu"
