"""SELinux: a context of a container's own is root's to give.

A node without SELinux has none to give, and nobody there misses it: as upstream, it is ignored.
"""

from __future__ import annotations

import os

from hpk.model.plan import ContainerPlan
from hpk.supervisor.inside.sub_path import VolumeError

_ENABLED = "/sys/fs/selinux/enforce"  # is_selinux_enabled(3) looks for this file system


def check_selinux(plan: ContainerPlan, enabled: str = _ENABLED) -> None:
    """:raises VolumeError: the container asks for a context, and there is SELinux on this node."""
    if plan.selinux and os.path.exists(enabled):
        raise VolumeError(
            "CreateContainerError",
            "seLinuxOptions: this node runs SELinux, and an ordinary user cannot choose the"
            " context of a container",
        )
