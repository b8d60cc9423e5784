"""The lab's network: a bridge in a namespace of its own and a cable to each host.

Nothing of it ever exists in the machine's own network namespace: cables are made between the
switch and the host directly. There is no way out of the lab.
"""

from __future__ import annotations

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import SWITCH, Host
from hpk import subproc

_BRIDGE = "br0"


async def _ip(machine: Machine, host: str, *words: str) -> None:
    (await subproc.run(machine.network_argv(host, ["ip", *words]))).check()


async def start_switch(machine: Machine) -> None:
    """Make the bridge."""
    await machine.start(SWITCH, None)
    await _ip(machine, SWITCH, "link", "add", _BRIDGE, "type", "bridge")
    await _ip(machine, SWITCH, "link", "set", _BRIDGE, "up")


async def connect(machine: Machine, host: Host) -> None:
    """Plug the host into the switch, as eth0, and give it its address."""
    pid = machine.init_pid(host.name)
    # A cable left from a host that was killed a moment ago goes when the kernel has time for it.
    await subproc.run(machine.network_argv(SWITCH, ["ip", "link", "del", host.name]))
    peer = ("type", "veth", "peer", "name", "eth0", "netns", str(pid))
    await _ip(machine, SWITCH, "link", "add", host.name, *peer)
    await _ip(machine, SWITCH, "link", "set", host.name, "master", _BRIDGE, "up")
    await _ip(machine, host.name, "link", "set", "lo", "up")
    await _ip(machine, host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
    await _ip(machine, host.name, "link", "set", "eth0", "up")
