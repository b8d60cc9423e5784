"""The partitions of the user: what changes often is asked often, what costs much is kept.

All nodes of a cluster of 5,000 are 5 MB of slurmctld's answer, and associations are a question to
the database: both are asked again when partitions have got other nodes, or after a while.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import re
import time

from hpk.model.errors import HpkError
from hpk.model.job import Partition
from hpk.slurm.parse_partitions import Membership, Node, parse_nodes, parse_partitions
from hpk.slurm.programs import Programs

KEPT_S = 900.0
_NODES = re.compile(r"(?:^|(?<= ))(?:PartitionName|Nodes|TotalCPUs|TotalNodes)=\S*", re.MULTILINE)


class Partitions:
    """Asks for partitions, nodes and associations."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._kept: tuple[tuple[Node, ...], Membership] | None = None
        self._kept_of: list[str] = []
        self._kept_s = 0.0

    async def get(self) -> tuple[Partition, ...]:
        """The partitions this user may submit to."""
        text = await self._programs.query(["scontrol", "--oneliner", "show", "partition"])
        has_nodes = _NODES.findall(text)
        is_old = time.monotonic() - self._kept_s > KEPT_S
        if self._kept is None or is_old or has_nodes != self._kept_of:
            answer = await self._programs.query(["scontrol", "--oneliner", "show", "node"])
            # Thousands of nodes take their time: not on the event loop.
            nodes = await asyncio.to_thread(parse_nodes, answer)
            self._kept = nodes, await self._membership()
            self._kept_of, self._kept_s = has_nodes, time.monotonic()
        nodes, member = self._kept
        return await asyncio.to_thread(parse_partitions, text, nodes, member)

    async def _membership(self) -> Membership:
        names = []
        for gid in {os.getgid(), *os.getgroups()}:
            try:
                names.append(grp.getgrgid(gid).gr_name)
            except KeyError:
                continue
        return Membership(accounts=await self._accounts(), groups=frozenset(names))

    async def _accounts(self) -> frozenset[str] | None:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return None
        argv = ["sacctmgr", "-n", "-P", "show", "associations", f"user={user}", "format=Account"]
        try:
            text = await self._programs.query(argv)
        except HpkError:
            return None
        return frozenset(line.strip() for line in text.splitlines() if line.strip()) or None
