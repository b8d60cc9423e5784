"""Runs specs: several processes of the suite beside each other, each with a few specs at a time.

They run on the lab's login host as the user whose control plane it is. What an interruption loses
are the specs of the running processes; all others are on disk and are not run again.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN, REGISTRY
from hpk.durable import write_atomically
from tests.conformance.specs import (
    PASSED,
    SKIPPED,
    Result,
    focus_of,
    format_results,
    is_serial,
    parse_listing,
    parse_report,
    read_results,
)

USER = "alice"
PLACE = "conformance"
"""Directory in the lab's /home with the suite and what it writes."""

_FLAGS = (
    "--provider=skeleton",
    "--ginkgo.v",
    "--ginkgo.no-color",
    "--ginkgo.timeout=6h",
    "--dump-logs-on-failure=false",
    "--disable-log-dump",
    "--delete-namespace-on-failure=true",
)
_REPOSITORIES = f"""\
promoterE2eRegistry: {REGISTRY}/e2e-test-images
buildImageRegistry: {REGISTRY}/build-image
gcEtcdRegistry: {REGISTRY}
gcRegistry: {REGISTRY}
sigStorageRegistry: {REGISTRY}/sig-storage
dockerLibraryRegistry: {REGISTRY}/docker.io/library
cloudProviderGcpRegistry: {REGISTRY}/cloud-provider-gcp
"""


def list_specs(suite: Path, work: Path) -> list[str]:
    """Every spec of the suite; needs no cluster."""
    report = work / "listing.json"
    argv = [
        *(str(suite), "--ginkgo.dry-run", f"--ginkgo.json-report={report}"),
        *("--kubeconfig=/dev/null", "--provider=skeleton"),
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return parse_listing(report.read_text())


def place_suite(machine: Machine, suite: Path) -> None:
    """Put the suite where the lab's user can run it."""
    place = machine.lab.home / PLACE
    place.mkdir(exist_ok=True)
    user = machine.lab.user(USER)
    os.chown(place, user.uid, user.gid)
    target = place / suite.name
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(suite)
    except OSError:
        target.write_bytes(suite.read_bytes())
        target.chmod(0o755)
    (place / "repositories.yaml").write_text(_REPOSITORIES)


@dataclass(kw_only=True)
class Run:
    """One run of the suite.

    :param out: directory of the results and of the processes' output.
    :param at_once: how many processes of the suite run beside each other.
    :param batch: how many specs each is given: what an interruption loses.
    """

    machine: Machine
    out: Path
    at_once: int
    batch: int
    results: dict[str, Result] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _started_s: float = field(default_factory=time.monotonic)
    _number: int = 0
    _left: int = 0

    @property
    def table(self) -> Path:
        """The results on disk."""
        return self.out / "results.tsv"

    def load(self) -> None:
        """Take up the results of earlier runs."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.results = read_results(self.table)
        logs = self.out.glob("batch-*.log")
        self._number = max((int(path.stem.partition("-")[2]) for path in logs), default=0)

    def run(self, specs: Sequence[str]) -> None:
        """Run these specs, those that allow nothing beside them last and alone."""
        self._left = len(specs)
        try:
            self._side_by_side([spec for spec in specs if not is_serial(spec)], self.at_once)
            self._side_by_side([spec for spec in specs if is_serial(spec)], 1)
        except BaseException:
            self._over.set()
            with self._lock:
                for child in self._children:
                    child.send_signal(signal.SIGINT)
            raise

    def _side_by_side(self, specs: Sequence[str], at_once: int) -> None:
        batches: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
        for start in range(0, len(specs), self.batch):
            batches.put(specs[start : start + self.batch])

        def work() -> None:
            while not self._over.is_set():
                try:
                    self._run_batch(batches.get_nowait())
                except queue.Empty:
                    return

        workers = [threading.Thread(target=work, daemon=True) for _ in range(at_once)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _run_batch(self, specs: Sequence[str]) -> None:
        with self._lock:
            self._number += 1
            number = self._number
        shared = self.machine.lab.home / PLACE / f"report-{number}.json"
        argv = [
            *("setpriv", "--pdeathsig", "INT", "--", f"/home/{PLACE}/e2e.test", *_FLAGS),
            f"--kubeconfig=/home/{USER}/.hpk/kubeconfig",
            f"--ginkgo.focus={focus_of(specs)}",
            f"--ginkgo.json-report=/home/{PLACE}/{shared.name}",
        ]
        whole = self.machine.argv(
            LOGIN,
            argv,
            user=self.machine.lab.user(USER),
            environment={"KUBE_TEST_REPO_LIST": f"/home/{PLACE}/repositories.yaml"},
            cwd=f"/home/{PLACE}",
        )
        log = self.out / f"batch-{number}.log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                whole, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            with self._lock:
                self._children.add(child)
            child.wait()
        with self._lock:
            self._children.discard(child)
            found = parse_report(shared.read_text(), specs) if shared.exists() else {}
            shared.unlink(missing_ok=True)
            self._note(specs, found, log)

    def _note(self, specs: Sequence[str], found: dict[str, Result], log: Path) -> None:
        self.results |= found
        self._left -= len(specs)
        write_atomically(self.table, format_results(self.results), mode=0o644)
        for spec in specs:
            result = found.get(spec)
            if result is None:
                _say(f"no result: {spec} ({log})")
            elif result.state not in (PASSED, SKIPPED):
                _say(f"{result.state} after {result.seconds:.0f} s: {spec} ({log.name})")
                _say(f"    {result.message}")
        passed = sum(result.state == PASSED for result in found.values())
        took_s = time.monotonic() - self._started_s
        _say(f"{passed} of {len(specs)} passed; {self._left} to go, {took_s:.0f} s")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
