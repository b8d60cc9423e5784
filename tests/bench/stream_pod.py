"""The pod's side of tests.bench.streams, a process of its own: ``channel DIR`` or ``plain DIR``.

What is dialled says what is done: port 1 gives bytes, as many as ``DIR/bytes`` says, port 2 takes
them. Without the channel it does the same over one TLS connection for each.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpk.model.frames import DialOpen, StreamClosed
from hpk.model.stream_frames import STDIN, STDOUT
from tests.stream_world import PodEnd

GIVE, TAKE = 1, 2
_BLOCK_BYTES = 64 * 1024


def giver(count: int) -> subprocess.Popen[bytes]:
    """A program that writes so many bytes."""
    return subprocess.Popen(["head", "-c", str(count), "/dev/zero"], stdout=subprocess.PIPE)


def taker() -> subprocess.Popen[bytes]:
    """A program that reads."""
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def serve_channel(directory: Path, count: int) -> None:
    """Answer what comes through the channel, until it is over."""
    pod = PodEnd(directory)
    pod.channel.start()
    orders: queue.Queue[Any] = pod.frames
    while True:
        frame = orders.get()
        if not isinstance(frame, DialOpen):
            continue
        if frame.port == GIVE:
            program = giver(count)
            assert program.stdout is not None
            fd = os.dup(program.stdout.fileno())
            program.stdout.close()
            pod.channel.streams.carry(frame.id, outputs={STDOUT: fd}, inputs={})
        else:
            program = taker()
            assert program.stdin is not None
            fd = os.dup(program.stdin.fileno())
            program.stdin.close()
            pod.channel.streams.carry(frame.id, outputs={}, inputs={STDIN: fd})
            program.wait()
        pod.channel.streams.finish(StreamClosed(frame.id, exit_code=0))


def serve_plain(directory: Path, count: int) -> None:
    """The same, as two processes would that have nothing else to say to each other."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    port = int((directory / "port").read_text())
    for what in (GIVE, TAKE):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="hpk-channel") as connection,
        ):
            if what == GIVE:
                program = giver(count)
                assert program.stdout is not None
                while data := os.read(program.stdout.fileno(), _BLOCK_BYTES):
                    connection.sendall(data)
                connection.unwrap()
            else:
                program = taker()
                assert program.stdin is not None
                while data := connection.recv(_BLOCK_BYTES):
                    os.write(program.stdin.fileno(), data)
                program.stdin.close()
                program.wait()


if __name__ == "__main__":
    where = Path(sys.argv[2])
    serve = serve_channel if sys.argv[1] == "channel" else serve_plain
    serve(where, int((where / "bytes").read_text()))
