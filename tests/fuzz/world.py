"""One session of a frame layer without a network, and what must hold whatever its bytes are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hpk.model.frames import StreamClosed, TerminalSize
from kubelet.server.streaming import (
    client_stream,
    command_spdy,
    command_websocket,
    port_forward,
    port_forward_websocket,
    tunnel,
)
from kubelet.server.streaming.client_stream import ClientGoneError
from kubelet.server.streaming.remote_command import RemoteCommand
from kubelet.server.streams import RemoteStream, StreamLostError, StreamRefusedError, Streams
from tests.fuzz import grammar

_READ_BYTES = 64 * 1024


class MemoryWire:
    """Fulfils Wire: a client that has sent all it will, in pieces, and takes all it gets."""

    def __init__(self, data: bytes, chance: random.Random) -> None:
        self._data = data
        self._chance = chance
        self._at = 0
        self.sent_bytes = 0
        self.is_aborted = False

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.is_aborted:
            raise ClientGoneError("aborted")
        size = self._chance.choice((1, 7, 100, 1500, _READ_BYTES))
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def write(self, data: bytes) -> None:
        self.sent_bytes += len(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def abort(self) -> None:
        self.is_aborted = True


class Program:
    """Fulfils RemoteStream: reads some, says some, ends some time, or is lost."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._left = chance.randrange(20)
        self._fate = chance.choice(("ends", "ends", "waits", "lost"))
        self.is_closed = False

    async def read(self, channel: int) -> bytes:
        for _ in range(self._chance.randrange(5)):
            await asyncio.sleep(0)
        self._left -= 1
        if self._left > 0:
            return bytes(self._chance.choice((1, 100, 70_000)))
        if self._fate == "waits":
            await asyncio.Event().wait()
        if self._fate == "lost":
            raise StreamLostError("lost")
        return b""

    async def write(self, data: bytes) -> None:
        assert data
        if self._fate == "lost" and self._chance.random() < 0.2:
            raise StreamLostError("lost")
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0)

    async def write_end(self) -> None:
        pass

    async def resize(self, size: TerminalSize) -> None:
        assert 0 <= size.width <= 0xFFFF
        assert 0 <= size.height <= 0xFFFF

    async def closed(self) -> StreamClosed:
        return StreamClosed(id=1, exit_code=self._chance.choice((0, 1, 137)))

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Session:
    """One client's, and what it opened."""

    chance: random.Random
    programs: list[Program] = field(default_factory=list)

    async def begin(self) -> RemoteStream:
        if self.chance.random() < 0.1:
            raise StreamRefusedError("refused")
        self.programs.append(Program(self.chance))
        return self.programs[-1]

    async def dial(self, port: int) -> RemoteStream:
        assert 0 < port < 65536
        return await self.begin()


Serve = Callable[[Session, MemoryWire], Awaitable[None]]


async def _spdy_command(session: Session, wire: MemoryWire) -> None:
    protocol = session.chance.choice(command_spdy.PROTOCOLS)
    wanted = Streams(stdin=True, stdout=True, stderr=True, tty=True)
    await command_spdy.serve_command(wire, protocol, wanted, _command(session))


async def _spdy_port_forward(session: Session, wire: MemoryWire) -> None:
    await port_forward.PortForward(wire, _target(session)).serve()


async def _websocket_command(session: Session, wire: MemoryWire) -> None:
    protocol = session.chance.choice(tuple(command_websocket.PROTOCOLS.values()))
    wanted = Streams(stdin=True, stdout=True, stderr=False, tty=True)
    await command_websocket.serve_command(wire, protocol, wanted, _command(session))


async def _websocket_ports(session: Session, wire: MemoryWire) -> None:
    protocol = session.chance.choice(tuple(port_forward_websocket.PROTOCOLS.values()))
    await port_forward_websocket.serve_ports(wire, protocol, (1, 2, 3), _target(session))


async def _tunnel(session: Session, wire: MemoryWire) -> None:
    await tunnel.serve_tunnel(wire, _target(session))


def _command(session: Session) -> RemoteCommand:
    return RemoteCommand(begin=session.begin, command=("id",))


def _target(session: Session) -> port_forward.Target:
    return port_forward.Target(pod="web", uid="uid", dial=session.dial)


def _spdy_bytes(chance: random.Random) -> bytes:
    return grammar.mutated(chance, _spdy_frames(chance))


def _spdy_frames(chance: random.Random) -> list[bytes]:
    captures = grammar.captured("spdy")
    if captures and chance.random() < 0.5:
        return grammar.spdy_split(chance.choice(captures))
    return grammar.SpdyGrammar(chance).session()


def _websocket_bytes(chance: random.Random) -> bytes:
    captures = grammar.captured("websocket")
    if captures and chance.random() < 0.5:
        frames = grammar.websocket_split(chance.choice(captures))
    else:
        frames = grammar.WebSocketGrammar(chance).session()
    return grammar.mutated(chance, frames)


def _tunnel_bytes(chance: random.Random) -> bytes:
    captures = grammar.captured("tunnel")
    if captures and chance.random() < 0.5:
        return grammar.mutated(chance, grammar.websocket_split(chance.choice(captures)))
    return grammar.mutated(chance, grammar.tunnelled(chance, [_spdy_bytes(chance)]))


LAYERS: dict[str, tuple[Callable[[random.Random], bytes], Serve]] = {
    "exec by SPDY": (_spdy_bytes, _spdy_command),
    "port-forward by SPDY": (_spdy_bytes, _spdy_port_forward),
    "exec by WebSocket": (_websocket_bytes, _websocket_command),
    "port-forward by WebSocket": (_websocket_bytes, _websocket_ports),
    "port-forward in a tunnel": (_tunnel_bytes, _tunnel),
}


async def try_one(layer: str, seed: int) -> None:
    """One session. It ends, with nothing but ClientGoneError; all programs are let go of; and never
    does more wait than may.

    :raises AssertionError: one of these does not hold.
    """
    chance = random.Random(f"{layer} {seed}")
    make, serve = LAYERS[layer]
    session, wire = Session(chance), MemoryWire(make(chance), chance)
    most = 0
    add = client_stream.Unread.add

    def watched(self: client_stream.Unread, size: int) -> None:
        nonlocal most
        add(self, size)
        most = max(most, self._bytes)
        assert self._bytes >= 0

    client_stream.Unread.add = watched  # type: ignore[method-assign]
    try:
        await serve(session, wire)
    except ClientGoneError:
        pass
    finally:
        client_stream.Unread.add = add  # type: ignore[method-assign]
    assert most < client_stream.MAX_UNREAD_BYTES + 2 * _READ_BYTES
    assert all(program.is_closed for program in session.programs)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left
