"""``python -m tests.bench [RUNS]``: measure in the lab, write docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from bootstrap.lab import control
from bootstrap.lab.layout import DEFAULT_NAME
from tests.bench import argo, footprint, startup
from tests.e2e.cluster import Cluster

_DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_KEPT = "<!-- written by hand from here on -->"


def main(arguments: list[str]) -> int:
    """Measure and write; needs a lab that is up."""
    runs = int(arguments[0]) if arguments else 20
    namespace = "bench"
    cluster = Cluster(
        machine=control.find(os.environ.get("HPK_TEST_LAB", DEFAULT_NAME)),
        user="alice",
        namespace=namespace,
    )
    cluster.run(["hpk", "up"], timeout_s=180)
    cluster.run(["kubectl", "delete", "namespace", namespace, "--ignore-not-found"])
    cluster.run(["kubectl", "create", "namespace", namespace])
    try:
        sections = [
            startup.report(*startup.run(cluster, runs)),
            footprint.memory(cluster),
            argo.report(argo.run(cluster)),
        ]
    finally:
        cluster.run(["kubectl", "delete", "namespace", namespace, "--wait=true"])
    sections.append(footprint.warm_up(cluster, 3))
    _write("\n\n".join(sections))
    print(f"written to {_DOCUMENT}")
    return 0


def _write(measured: str) -> None:
    head = (
        "# Benchmarks\n\n"
        "Written by `make bench`, on the lab: login node and compute nodes share one machine of "
        f"{os.cpu_count()} cores ({platform.machine()}, Linux {platform.release().split('-')[0]}), "
        "so absolute times say little elsewhere; the ratios do.\n\n"
    )
    old = _DOCUMENT.read_text() if _DOCUMENT.exists() else ""
    _, mark, by_hand = old.partition(_KEPT)
    tail = f"\n\n{_KEPT}{by_hand}" if mark else f"\n\n{_KEPT}\n"
    _DOCUMENT.write_text(head + measured + tail)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
