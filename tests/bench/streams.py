"""``python -m tests.bench.streams [MIB [RUNS]]``: bytes through the channel, against the same bytes
through plain TLS between two Python processes. Needs no lab."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hpk.model.frames import DialOpen
from hpk.model.stream_frames import STDOUT
from tests.bench.stats import HEAD, ratio, row
from tests.bench.stream_pod import GIVE, TAKE
from tests.certificates import make_certificates
from tests.stream_world import NONCE, kubelet_end, write_pod

MIB = 1024 * 1024
_BLOCK_BYTES = 64 * 1024


@contextlib.contextmanager
def _pod(kind: str, directory: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.bench.stream_pod", kind, str(directory)]
    with subprocess.Popen(argv) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def _channel(directory: Path, count: int) -> AsyncIterator[tuple[float, float]]:
    """Seconds from the job, and to it."""
    async with kubelet_end(directory) as (server, handler, _, ca):
        write_pod(directory, ca)
        with _pod("channel", directory):
            await handler.connected.wait()
            session = server.session(NONCE)
            assert session is not None
            began = time.monotonic()
            stream = await session.open_stream(lambda number: DialOpen(id=number, port=GIVE))
            received = 0
            while data := await stream.read(STDOUT):
                received += len(data)
            given_s = time.monotonic() - began
            assert received == count
            began = time.monotonic()
            stream = await session.open_stream(lambda number: DialOpen(id=number, port=TAKE))
            block = os.urandom(_BLOCK_BYTES)
            for _ in range(count // _BLOCK_BYTES):
                await stream.write(block)
            await stream.write_end()
            await stream.closed()
            yield given_s, time.monotonic() - began


def _plain(directory: Path, count: int) -> tuple[float, float]:
    """The same without the channel."""
    _, cert, key = make_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (directory / "port").write_text(str(listener.getsockname()[1]))
        with _pod("plain", directory):
            plain, _ = listener.accept()
            began = time.monotonic()
            with context.wrap_socket(plain, server_side=True) as connection:
                received = 0
                while received < count:
                    received += len(connection.recv(_BLOCK_BYTES))
                given_s = time.monotonic() - began
                connection.unwrap()
            plain, _ = listener.accept()
            began = time.monotonic()
            with context.wrap_socket(plain, server_side=True) as connection:
                block = os.urandom(_BLOCK_BYTES)
                for _ in range(count // _BLOCK_BYTES):
                    connection.sendall(block)
                connection.unwrap()
            return given_s, time.monotonic() - began


async def measure(size_mib: int, runs: int) -> str:
    """As Markdown; runs of both ways by turns."""
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        for kind in ("channel", "plain"):
            with tempfile.TemporaryDirectory() as name:
                directory = Path(name)
                (directory / "bytes").write_text(str(size_mib * MIB))
                if kind == "channel":
                    async with _channel(directory, size_mib * MIB) as figures:
                        given_s, taken_s = figures
                else:
                    given_s, taken_s = await asyncio.to_thread(_plain, directory, size_mib * MIB)
            times.setdefault(f"from the job, {kind}", []).append(given_s)
            times.setdefault(f"to the job, {kind}", []).append(taken_s)
    lines = [f"## {size_mib} MiB through the channel, seconds", "", *HEAD]
    lines += [row(name, values) for name, values in times.items()]
    for way in ("from", "to"):
        compared = ratio(times[f"{way} the job, channel"], times[f"{way} the job, plain"])
        lines += ["", f"{way} the job: {compared} times the time of plain TLS (aim: 2 at most)"]
    return "\n".join(lines)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:3]]
    mib, count = [*given, *(256, 5)[len(given) :]]
    print(asyncio.run(measure(mib, count)))
