"""What a program may ever have of the capabilities that its user namespace gives."""

from __future__ import annotations

from collections.abc import Iterable

from hpk.durable import read_file
from hpk.model.rights import CAPABILITIES
from hpk.supervisor.base import linux


def capabilities_to_drop(kept: Iterable[str], last: int) -> tuple[int, ...]:
    """The numbers of all others, those that we have no name for too.

    :param kept: in capitals, without ``CAP_``.
    :param last: the kernel's highest.
    """
    names = set(kept)
    numbers = {n for n, name in enumerate(CAPABILITIES) if name in names}
    return tuple(n for n in range(last + 1) if n not in numbers)


def limit_capabilities(kept: Iterable[str]) -> None:
    """Take all others from this process's bounding set, so that no execve gives them: root has
    just these then, and anybody else none.

    :raises OSError: the kernel refuses.
    """
    last = int(read_file("/proc/sys/kernel/cap_last_cap", 16))
    for number in capabilities_to_drop(kept, last):
        linux.drop_from_bounding_set(number)
