"""Dials supervisors that cannot dial us, on nodes from which no connection reaches this host.

Where they are is in their records on the shared file system; a job's user writes those, so an
address is no more than that, and whoever answers there has to prove himself as one who dialled.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable

from hpk.model.ids import Nonce
from hpk.model.record import PodPhase, SupervisorRecord
from kubelet.link.channel import ChannelServer

log = logging.getLogger(__name__)

_AT_ONCE = 64
_AGAIN_S = 10.0
"""How long one that was dialled is left to say Hello, or to come to itself."""


class Calls:
    """See the module's docstring.

    :param came_about: told of a supervisor whose channel there is since it was dialled.
    """

    def __init__(
        self, channel: ChannelServer, came_about: Callable[[SupervisorRecord], None]
    ) -> None:
        self._channel = channel
        self._came_about = came_about
        self._wanted: dict[Nonce, SupervisorRecord] = {}
        self._under_way: set[Nonce] = set()
        self._changed = asyncio.Event()

    def want(self, record: SupervisorRecord) -> None:
        """This supervisor has no channel; dial it, if it says where."""
        says_where = 0 < record.channel_port < 1 << 16 and record.phase is not PodPhase.FINISHED
        if says_where and record.nonce not in self._under_way:
            self._wanted[record.nonce] = record
            self._changed.set()

    async def run(self) -> None:
        """Dial until cancelled."""
        self._under_way.clear()
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                self._changed.clear()
                wanted, self._wanted = self._wanted, {}
                for record in wanted.values():
                    self._under_way.add(record.nonce)
                    tasks.create_task(self._call(record, places))

    async def _call(self, record: SupervisorRecord, places: asyncio.Semaphore) -> None:
        is_dialled = False
        try:
            async with places:
                if self._channel.session(record.nonce) is None:
                    address = str(ipaddress.ip_address(record.host_ip))
                    await self._channel.call(address, record.channel_port)
                    is_dialled = True
        except (OSError, ValueError) as error:
            log.info("supervisor not reached uid=%s host=%s: %s", record.uid, record.host, error)
        await asyncio.sleep(_AGAIN_S)
        self._under_way.discard(record.nonce)
        if is_dialled and self._channel.session(record.nonce) is not None:
            log.info("supervisor dialled uid=%s host=%s", record.uid, record.host)
            self._came_about(record)
