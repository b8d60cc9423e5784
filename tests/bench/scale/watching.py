"""Says now and then how far a measurement is, and ends it before the machine runs out of memory."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.scale.lab import submitted
from tests.bench.usage import API_SERVER, KUBELET, Usage, look
from tests.e2e.cluster import Cluster

_EVERY_S = 15.0
_LEAST_MIB = 2048
"""Whoever else works on this machine is left so much."""


class MemoryLowError(Exception):
    """The measurement would have taken the last of the machine's memory."""


@contextlib.contextmanager
def watching(cluster: Cluster, what: str) -> Iterator[None]:
    """While this lasts, a line each quarter minute, and an eye on the memory.

    :raises MemoryLowError: there is too little left.
    """
    done, is_low = threading.Event(), threading.Event()
    watch = threading.Thread(target=_watch, args=(cluster, what, done, is_low), daemon=True)
    watch.start()
    try:
        yield
    except KeyboardInterrupt:
        if is_low.is_set():
            raise MemoryLowError(f"{what}: less than {_LEAST_MIB} MiB are free") from None
        raise
    finally:
        done.set()
        watch.join()


def _watch(cluster: Cluster, what: str, done: threading.Event, is_low: threading.Event) -> None:
    began = time.monotonic()
    while not done.wait(_EVERY_S):
        free = free_mib(Path("/proc/meminfo").read_text())
        found = look(cluster.machine)
        words = [f"{time.monotonic() - began:.0f} s", f"{_submitted(cluster)} jobs so far"]
        words += [f"{n} {found.get(n, Usage()).rss_mib:.0f} MiB" for n in (API_SERVER, KUBELET)]
        print(f"{what}: {', '.join(words)}, {free} MiB free", file=sys.stderr, flush=True)
        if free < _LEAST_MIB:
            is_low.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return


def _submitted(cluster: Cluster) -> str:
    try:
        return str(submitted(cluster))
    except (ValueError, subprocess.SubprocessError, pytest.fail.Exception):
        return "?"


def free_mib(meminfo: str) -> int:
    """What programs may still have, by the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) // 1024
    raise ValueError("the kernel does not say how much memory is left")
