"""What stands for things that were not looked up: the partition without Slurm, an image unpulled.

Neither refuses a Pod that might run, and what only the real one can tell reads as ``<…>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpk.model.job import Partition
from hpk.model.plan import ImageConfig, ImagePlan

_ANY_NODE = 1 << 20
_ANYBODY = 1000
"""A uid that is not root's, for an image that must have one."""

ANY_PARTITION = Partition(
    name="<PARTITION>",
    is_default=True,
    is_up=True,
    nodes=("",) * 4096,
    max_time_s=None,
    default_time_s=None,
    default_memory_per_cpu_bytes=None,
    default_memory_per_node_bytes=None,
    total_cpus=4096 * _ANY_NODE,
    total_memory_bytes=1 << 62,
    gpus=4096 * _ANY_NODE,
    max_node_cpus=_ANY_NODE,
    max_node_memory_bytes=1 << 60,
    max_node_gpus=_ANY_NODE,
    features=(),
)
"""Stands for the partition where Slurm was not asked: there is room for everything."""


def unknown_image(spec: Mapping[str, Any], container: Mapping[str, Any]) -> ImagePlan:
    """Stands for an image that was not pulled.

    Its USER is taken to be one that the Pod's securityContext allows: what the image has decides
    when the Pod is submitted.
    """
    reference = container["image"]
    uid = asked(spec, container, "runAsUser")
    if uid is None:
        uid = _ANYBODY if asked(spec, container, "runAsNonRoot") else 0
    gid = asked(spec, container, "fsGroup")
    groups = f"anybody:x:{uid}:{0 if gid is None else gid}::/:\n"
    return ImagePlan(
        reference=reference,
        image_id="",
        path="",
        config=ImageConfig(
            entrypoint=(f"<ENTRYPOINT of {reference}>",),
            cmd=(f"<CMD of {reference}>",),
            env=(("PATH", f"<PATH of {reference}>"),),
            user=str(uid),
        ),
        passwd=groups,
    )


def asked(spec: Mapping[str, Any], container: Mapping[str, Any], name: str) -> Any:
    """A field of the container's securityContext, else of the Pod's; None where it is in none."""
    contexts = [parent.get("securityContext") for parent in (container, spec)]
    found = (context.get(name) for context in contexts if isinstance(context, dict))
    return next((value for value in found if value is not None), None)
