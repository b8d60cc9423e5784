"""``python -m tests.bench.scale N [SECTION…]``: measure in a lab that is up, write docs/.

What was measured is kept in docs/scale.json, so that curves are made of several runs; with sections
named, only those are measured again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from bootstrap.lab import control, software
from bootstrap.lab.layout import CPUS_PER_NODE, DEFAULT_NAME
from tests.bench.document import DOCS, SCALE, write_part
from tests.bench.scale import held, report, running
from tests.bench.scale.lab import NAMESPACE, start_anew
from tests.bench.scale.watching import MemoryLowError, watching
from tests.e2e.cluster import Cluster

_DATA = DOCS / "scale.json"
_SOME = 100
"""Up to so many the parts that are not asked for N are small as well: a trial."""


def main(arguments: list[str]) -> int:
    """Measure and write.

    :param arguments: how many pods; sections, all without.
    """
    count = int(arguments[0]) if arguments else 1000
    machine = control.find(os.environ.get("HPK_TEST_LAB", DEFAULT_NAME))
    asyncio.run(software.install(machine.lab))
    cluster = Cluster(machine=machine, user="alice", namespace=NAMESPACE)
    slots = len(machine.lab.compute) * CPUS_PER_NODE
    starts = min(200, count)
    sections: dict[str, Callable[[], Any]] = {
        "starts": lambda: running.run_starts(cluster, starts),
        "short": lambda: running.run_short(cluster, min(running.SHORT, count)),
        "running": lambda: running.run_many(cluster, min(count, slots)),
        "held": lambda: held.run(cluster, count),
    }
    start_anew(cluster)
    cluster.run(["kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found"], timeout_s=600)
    cluster.run(["kubectl", "create", "namespace", NAMESPACE])
    data = json.loads(_DATA.read_text()) if _DATA.exists() else {"held": {}}
    empties = ["kubectl", "delete", "namespace", NAMESPACE, "--wait=true"]
    try:
        for name in arguments[1:] or list(sections):
            began = time.monotonic()
            with watching(cluster, name):
                found = dataclasses.asdict(sections[name]())
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
            if name == "held":
                data["held"][str(count)] = found
            else:
                data[name] = found
            print(json.dumps({name: _rounded(found)}, indent=1), flush=True)
            _write(data)
    except MemoryLowError:
        empties = ["hpk", "down"]  # to delete Pods takes more memory first
        raise
    finally:
        cluster.run(empties, timeout_s=600 + count)
    return 0


def _write(data: dict[str, Any]) -> None:
    _DATA.write_text(json.dumps(_rounded(data), indent=1, sort_keys=True) + "\n")
    write_part(SCALE, text_of(data))
    for name, picture in report.pictures(_held(data)).items():
        (DOCS / name).write_text(picture)


def _held(data: dict[str, Any]) -> list[held.Held]:
    """What was measured of each count, by this program and not by an older one."""
    fields = {field.name for field in dataclasses.fields(held.Held)}
    counts = sorted(data["held"], key=int)
    return [held.Held(**data["held"][n]) for n in counts if data["held"][n].keys() == fields]


def text_of(data: dict[str, Any]) -> str:
    """The document's part about scale."""
    parts = [
        "## Many pods\n\nWritten by `make scale N=…`, on the lab: what carries the pods, what "
        f"makes them and Slurm itself share {os.cpu_count()} cores. Everything of one column is of "
        "one run."
    ]
    if "starts" in data:
        parts.append(report.starts_text(running.Starts(**data["starts"])))
    if "short" in data:
        parts.append(report.short_text(running.Short(**data["short"])))
    if "running" in data:
        parts.append(report.running_text(running.Running(**data["running"])))
    if found := _held(data):
        parts.append(report.held_text(found))
    return "\n\n".join(parts)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
