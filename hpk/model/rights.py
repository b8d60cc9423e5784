"""What the kernel lets a container's programs do."""

from __future__ import annotations

from hpk.model.frozen import dataclass

CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""Without ``CAP_``; each at the place of its number. Source: include/uapi/linux/capability.h."""

DEFAULT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
)
"""What a container has that asks for none. Source: containerd, pkg/oci (defaultUnixCaps)."""


@dataclass(frozen=True)
class Rights:
    """Of one container. Capabilities are over its own user namespace, never over the node.

    :param capabilities: what root in it has, and all that anybody in it can ever get.
    :param can_gain: a program may gain privileges by being executed
        (``allowPrivilegeEscalation``); else it has ``no_new_privs``.
    :param is_filtered: it runs under the default profile (``seccompProfile: RuntimeDefault``).
    """

    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    can_gain: bool = True
    is_filtered: bool = True

    @property
    def can_mount(self) -> bool:
        """Whether it is to have mounts of its own to change."""
        return "SYS_ADMIN" in self.capabilities


DEFAULT_RIGHTS = Rights()
