"""``python -m tests.bench [RUNS [SECTION…]]``: measure in the lab, write docs/benchmarks.md.

With sections named it prints those and writes nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable

from bootstrap.lab import control
from bootstrap.lab.layout import DEFAULT_NAME
from tests.bench import argo, execs, footprint, mpi, several, startup
from tests.bench.document import BENCH, write_part
from tests.e2e.cluster import Cluster


def main(arguments: list[str]) -> int:
    """Measure and write; needs a lab that is up.

    :param arguments: how many runs the start-up figures take, 15 without; sections.
    """
    runs = int(arguments[0]) if arguments else 15
    namespace = "bench"
    cluster = Cluster(
        machine=control.find(os.environ.get("HPK_TEST_LAB", DEFAULT_NAME)),
        user="alice",
        namespace=namespace,
    )
    fewer = max(2, runs // 2)
    sections: dict[str, Callable[[], str]] = {
        "startup": lambda: startup.report(*startup.run(cluster, runs)),
        "exec": lambda: execs.report(_execs(cluster, runs)),
        "several": lambda: several.report(several.run(cluster, fewer)),
        "mpi": lambda: mpi.report(*mpi.run(cluster, fewer)),
        "argo": lambda: argo.report(argo.run(cluster)),
        "memory": lambda: footprint.memory(cluster),
        "up": lambda: footprint.warm_up(cluster, 3),
    }
    chosen = arguments[1:] or list(sections)
    cluster.run(["hpk", "up"], timeout_s=180)
    cluster.run(["kubectl", "delete", "namespace", namespace, "--ignore-not-found"])
    cluster.run(["kubectl", "create", "namespace", namespace])
    try:
        text = "\n\n".join(_measure(name, sections[name]) for name in chosen)
    finally:
        cluster.run(["kubectl", "delete", "namespace", namespace, "--wait=true"])
    if arguments[1:]:
        print(text)
        return 0
    _write(text)
    print("written to docs/benchmarks.md")
    return 0


def _execs(cluster: Cluster, runs: int) -> dict[str, list[float]]:
    with startup.cached_image(cluster) as image:
        return execs.run(cluster, image, runs)


def _measure(name: str, section: Callable[[], str]) -> str:
    started = time.monotonic()
    text = section()
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return text


def _write(measured: str) -> None:
    head = (
        "# Benchmarks\n\n"
        "Written by `make bench`, on the lab: login node and compute nodes share one machine of "
        f"{os.cpu_count()} cores ({platform.machine()}, Linux {platform.release().split('-')[0]}), "
        "so absolute times say little elsewhere; the ratios do.\n\n"
    )
    write_part(BENCH, head + measured)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
