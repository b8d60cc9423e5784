"""The supervisor's loop."""

from __future__ import annotations

import os
import time
from functools import partial

from hpk.supervisor.base.event_loop import EventLoop


def test_what_was_closed_by_another_is_not_called() -> None:
    """Both are readable at once; whoever is called first closes the other."""
    loop = EventLoop()
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def close_other(index: int) -> None:
        called.append(index)
        other = 1 - index
        loop.unwatch(pipes[other][0])
        os.close(pipes[other][0])

    for index, (read_fd, write_fd) in enumerate(pipes):
        loop.watch(read_fd, partial(close_other, index))
        os.write(write_fd, b"x")
    loop.turn(10)
    assert len(called) == 1
    loop.unwatch(pipes[called[0]][0])
    os.close(pipes[called[0]][0])
    for _, write_fd in pipes:
        os.close(write_fd)


def test_what_a_thread_did_comes_back_to_the_loop() -> None:
    loop = EventLoop()
    found: list[str] = []
    loop.in_thread(lambda: "done", found.append)
    while not found:
        loop.turn(10)
    assert found == ["done"]


def test_a_pause_is_none_from_what_is_readable() -> None:
    """The end of a pod once kept a processor busy until its record was on the disk."""
    loop = EventLoop()
    read_fd, write_fd = os.pipe()
    loop.watch(read_fd, lambda: None)
    os.write(write_fd, b"x")
    began = time.monotonic()
    loop.pause(0.2)
    assert time.monotonic() - began >= 0.2
    loop.post(lambda: None)
    loop.pause(600)
    loop.unwatch(read_fd)
    os.close(read_fd)
    os.close(write_fd)
