"""Giving up what a program must not have; the last that is done before it is executed."""

from __future__ import annotations

import functools
import os

from hpk.model.rights import Rights
from hpk.supervisor.base import linux
from hpk.supervisor.process.capabilities import limit_capabilities
from hpk.supervisor.process.seccomp.default_profile import default_profile
from hpk.supervisor.process.seccomp.emulation import root_emulation


@functools.lru_cache(maxsize=16)
def filters_for(rights: Rights, *, emulates_root: bool) -> tuple[bytes, ...]:
    """The filters of a program with these rights. They take a millisecond to make: whoever forks
    programs asks for them before, so that each child finds them made.

    :param emulates_root: see hpk.supervisor.process.seccomp.emulation.
    :raises KeyError: a machine that the filters are not written for.
    """
    machine, filters = os.uname().machine, []
    if rights.is_filtered:
        filters.append(default_profile(machine, frozenset(rights.capabilities)))
    if emulates_root:
        filters.append(root_emulation(machine))
    return tuple(filters)


def confine(rights: Rights, *, emulates_root: bool) -> None:
    """Leave this process, and all that it executes, no more than these rights.

    A filter takes CAP_SYS_ADMIN over one's own user namespace, or ``no_new_privs``; whoever calls
    this has the former, and loses it by execve.

    :raises OSError: the kernel refuses.
    :raises KeyError: as above.
    """
    limit_capabilities(rights.capabilities)
    if not rights.can_gain:
        linux.forbid_new_privileges()
    for program in filters_for(rights, emulates_root=emulates_root):
        linux.filter_system_calls(program)
