"""The directory in which login node and compute node meet, and what they do there together.

Everything that comes from the other side is bounded, opened without following links, and parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.host import free_port
from hpk.durable import claim, write_atomically
from hpk.flock import try_lock
from hpk.model.errors import ParseError
from hpk.report.doctor.facts import Exchange, NodeReport, Round
from hpk.report.doctor.parsing import parse_pong, parse_report

ANSWER_TIMEOUT_S = 60
"""For one file to be seen: NFS clients by default look again after half of this."""
_POLL_S = 0.02
_MAX_BYTES = 512 * 1024
_CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What each side says and hears, so that a stranger's port is not taken for the other side."""

    ask_login: str = field(default_factory=lambda: secrets.token_hex(16))
    tell_node: str = field(default_factory=lambda: secrets.token_hex(16))
    ask_node: str = field(default_factory=lambda: secrets.token_hex(16))
    tell_login: str = field(default_factory=lambda: secrets.token_hex(16))


class Doorbell:
    """A port of the login node that answers whoever knows the token."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.rang = False
        self.port = 0

    @contextlib.asynccontextmanager
    async def open(self, address: str) -> AsyncIterator[None]:
        """Listen on a free port of this address; nothing where there is no address."""
        if not address:
            yield
            return
        # A port like the control plane's: a firewall may let some pass and others not.
        self.port = free_port(address)
        server = await asyncio.start_server(self._answer, address, self.port, limit=256)
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                said = await reader.readline()
                if secrets.compare_digest(said.strip(), self._tokens.ask_login.encode()):
                    self.rang = True
                    writer.write(self._tokens.tell_node.encode() + b"\n")
                    await writer.drain()
        writer.close()


async def call(address: str, port: int, tokens: Tokens) -> str:
    """Dial the node; "" where it answers, else why not."""
    if not address or not port:
        return "it has no address on the way to here"
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, port, limit=256)
            try:
                writer.write(tokens.ask_node.encode() + b"\n")
                said = await reader.read(256)
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {_CONNECT_TIMEOUT_S} s"
    except OSError as error:
        return error.strerror or str(error)
    same = secrets.compare_digest(said.strip(), tokens.tell_login.encode())
    return "" if same else "somebody else answers there"


def read_report(directory: Path) -> NodeReport | None:
    """``hello.json``, None while it is not there.

    :raises ParseError: it is not what the probe writes.
    """
    data = read_file(directory / "hello.json")
    return None if data is None else parse_report(data)


async def converse(directory: Path, report: NodeReport, tokens: Tokens, bell: Doorbell) -> Exchange:
    """Test lock, link and delays with a node that has reported.

    :raises ParseError: an answer is not what the probe writes.
    """
    to_node = await call(report.address, report.port, tokens)
    rounds: list[Round] = []
    locked_here = linked_here = ""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        try_lock(lock)
        claim(directory / "claim-login", "login")
        for number in (1, 2, 3):
            if number == 3:
                locked_here = _try_lock(lock)
            answer = await _round(directory, number)
            if answer is None:
                break
            rounds.append(answer)
            if number == 1:
                linked_here = _try_link(directory)
                fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)
    return Exchange(
        rounds=tuple(rounds),
        from_node=bell.rang,
        to_node=to_node,
        locked_here=locked_here,
        linked_here=linked_here,
    )


async def _round(directory: Path, number: int) -> Round | None:
    asked_s = time.time()
    write_atomically(directory / f"ping-{number}.json", json.dumps({"time_s": asked_s}))
    until = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < until:
        data = read_file(directory / f"pong-{number}.json")
        if data is not None:
            return Round(asked_s=asked_s, answered_s=time.time(), pong=parse_pong(data))
        await asyncio.sleep(_POLL_S)
    return None


def _try_lock(fd: int) -> str:
    try:
        return "done" if try_lock(fd) else errno.errorcode[errno.EAGAIN]
    except OSError as error:
        return _name(error)


def _try_link(directory: Path) -> str:
    try:
        (directory / "claim-node").hardlink_to(directory / "lock")
    except OSError as error:
        return _name(error)
    return "done"


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown")


def read_file(path: Path) -> bytes | None:
    """A file of ours, whole; None where there is none.

    :raises ParseError: it is no plain file, somebody else's, or too long.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ParseError(f"{path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            raise ParseError(f"{path} is no plain file of yours")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ParseError(f"{path} is longer than {_MAX_BYTES} bytes")
    return data
