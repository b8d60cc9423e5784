"""``python -m tests.chaos [--minutes M] [--seed N]``: a lab under random faults, and what held.

Needs root, and makes a lab of its own. The seed decides which faults come, how long after each
other, and how each chooses; whom it hits depends on what runs then: so far a seed reproduces a run.
Ends with 0 where every check held.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bootstrap.lab import control, daemons, registry
from hpk.statefs import HpkPaths
from tests.chaos import checks, workload
from tests.chaos.faults import FAULTS, Undo, bring_up
from tests.chaos.home import misbehaving_home
from tests.chaos.observer import Observer
from tests.chaos.world import NOTES_DIR, World
from tests.e2e.cluster import BUSYBOX, LAMMPS, Cluster, eventually
from tests.e2e.leftovers import Leftovers
from tests.labs import Silent

_PAUSE_S = (2.0, 12.0)
_NEXT_JOB_S = 20
_UP_AGAIN_S = 15
_NAMESPACE = "chaos"
_CALM_TIMEOUT_S = 900


def main(arguments: list[str]) -> int:
    """Bring up a lab, let things go wrong in it, say what did not hold, take it down."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--lab", default="hpk-lab-chaos")
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=sorted(FAULTS))
    parsed = parser.parse_args(arguments)
    say(f"seed {parsed.seed}, {parsed.minutes:g} minutes")
    with _world(parsed.lab) as world:
        found = run(world, minutes=parsed.minutes, faults=schedule(parsed.seed, parsed.only))
        if found:
            say(f"the logs of the control plane are kept in {_keep_logs(world)}")
    for line in found:
        say(f"VIOLATED: {line}")
    again = f"python -m tests.chaos --minutes {parsed.minutes:g} --seed {parsed.seed}"
    say("everything held" if not found else f"{len(found)} violated; again with: {again}")
    return 1 if found else 0


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _keep_logs(world: World) -> str:
    """What a run that went wrong is understood by, when its lab is gone."""
    kept = tempfile.mkdtemp(prefix="hpk-chaos-logs-")
    source = world.machine.lab.home / world.cluster.user / ".hpk/logs"
    shutil.copytree(source, kept, dirs_exist_ok=True)
    return kept


@contextmanager
def _world(lab: str) -> Iterator[World]:
    asyncio.run(control.down(lab))
    asyncio.run(control.up(lab, None, Silent()))
    try:
        machine = control.find(lab)
        asyncio.run(registry.ensure_images(machine, HpkPaths.from_environment().cache, Silent()))
        cluster = Cluster(machine=machine, user="alice", namespace=_NAMESPACE)
        cluster.run(["install", "-d", "-o", "alice", "-m", "700", NOTES_DIR], user="root")
        with misbehaving_home(machine, machine.lab.user("alice")) as home:
            world = World(machine=machine, cluster=cluster, home=home)
            yield world
    finally:
        asyncio.run(control.down(lab))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault to come, what it chooses by, and how long nothing else comes after it."""

    name: str
    rng: random.Random
    pause_s: float


def schedule(seed: int, only: list[str]) -> Iterator[Planned]:
    """The faults of a seed, without end."""
    names = [name for name in FAULTS if name in only]
    weights = [FAULTS[name][1] for name in names]
    for number in itertools.count():
        rng = random.Random(f"{seed}/{number}")
        (name,) = rng.choices(names, weights)
        yield Planned(name=name, rng=rng, pause_s=rng.uniform(*_PAUSE_S))


def run(world: World, *, minutes: float, faults: Iterator[Planned]) -> list[str]:
    """The whole of it, from `hpk up` to `hpk down`. :returns: what did not hold."""
    for image in (BUSYBOX, LAMMPS):
        world.cluster.run(["hpk", "images", "pull", image], timeout_s=600)
    world.cluster.run(["hpk", "up"], timeout_s=400)
    leftovers = Leftovers.since_now(world.cluster)
    world.cluster.run(["kubectl", "create", "namespace", _NAMESPACE])
    eventually(lambda: workload.apply(world, *workload.services()), what="the services")
    found: list[str] = []
    with Observer(world) as observer:
        chaos(world, minutes=minutes, faults=faults)
        say("calm: everything is mended, and must come to its end")
        found += calm(world)
    eventually(observer.look, what="a last look at the Pods")
    notes = world.notes()
    world.note_reused_jobs()
    found += checks.runs(notes, observer.pods)
    found += checks.verdicts(notes, observer.pods, world.victims)
    phases = [pod.phase for pod in observer.pods.values()]
    counted = ", ".join(f"{phases.count(p)} {p or 'without phase'}" for p in sorted(set(phases)))
    say(f"{len(observer.pods)} pods seen: {counted}; {len(world.victims)} were victims")
    found += _left(world, leftovers)
    return found


def chaos(world: World, *, minutes: float, faults: Iterator[Planned]) -> None:
    """One fault after the other, and work that keeps coming."""
    undos: list[tuple[float, int, str, Undo]] = []
    order, job = itertools.count(), itertools.count(1)
    started = time.monotonic()
    ends, next_job_s, up_again_s = started + minutes * 60, 0.0, started + _UP_AGAIN_S
    while (now := time.monotonic()) < ends:
        while undos and undos[0][0] <= now:
            _, _, name, undo = heapq.heappop(undos)
            _attempt(f"  {name} is over", undo)
        if now >= next_job_s:
            number = next(job)
            made = workload.batch_job(number, 1 + number % 8)
            workload.apply(world, made, *([workload.mpi_job(number)] if number % 3 == 1 else []))
            next_job_s = now + _NEXT_JOB_S
        if now >= up_again_s:
            # What could not be brought up while the home was ill its user tries again.
            if "bootstrap.supervise" not in world.components():
                _attempt("hpk up", lambda: bring_up(world))
            up_again_s = time.monotonic() + _UP_AGAIN_S
        planned = next(faults)
        world.rng = planned.rng
        harm = FAULTS[planned.name][0](world)
        say(f"{planned.name}: {harm.what if harm else 'nothing to harm'}")
        if harm is not None and harm.undo is not None:
            heapq.heappush(undos, (now + harm.lasts_s, next(order), planned.name, harm.undo))
        time.sleep(planned.pause_s)
    for _, _, name, undo in sorted(undos):
        _attempt(f"  {name} is over", undo)


def _attempt(what: str, undo: Undo) -> None:
    say(what)
    try:
        undo()
    except Exception as error:
        say(f"  {error}")


def calm(world: World) -> list[str]:
    """Mend everything an administrator or the user would, and wait for what must follow."""
    world.home.tell("fine")
    asyncio.run(daemons.start_database(world.machine))
    asyncio.run(daemons.start_controller(world.machine))
    for host in world.compute:
        if not world.machine.is_ready(host):
            asyncio.run(control.start_node(world.machine, host))
            world.home.attach(host)
    asyncio.run(daemons.wait_for_nodes(world.machine, world.machine.lab.compute))
    for host in world.compute:
        # A controller that came back from older state may have drained it ("Duplicate jobid").
        world.admin(["scontrol", "update", f"nodename={host}", "state=resume"])
    bring_up(world)
    namespace = ["kubectl", "-n", _NAMESPACE]
    limit = f"--timeout={_CALM_TIMEOUT_S}s"
    waits = {
        "every Job completes": ["wait", "job", "--all", "--for=condition=Complete", limit],
        "the Deployment is available": ["rollout", "status", "deployment/web", limit],
        "the StatefulSet is ready": ["rollout", "status", "statefulset/db", limit],
    }
    found = []
    for what, argv in waits.items():
        done = world.user([*namespace, *argv], timeout_s=_CALM_TIMEOUT_S + 60)
        if done.returncode != 0:
            found.append(f"{what}: {(done.stderr or done.stdout).strip()[-500:]}")
    if found:
        say(world.user([*namespace, "get", "pods,jobs", "-o", "wide"]).stdout)
        say(world.user(["squeue", "--me"]).stdout)
    return found


def _left(world: World, leftovers: Leftovers) -> list[str]:
    """Delete everything; what is there still is a leak."""
    found = []
    namespace = ["kubectl", "-n", _NAMESPACE]
    world.user([*namespace, "delete", "jobs,deployments,statefulsets,pods", "--all"], timeout_s=600)
    found += _swept(world)
    delete = ["kubectl", "delete", "namespace", _NAMESPACE, "--timeout=600s"]
    done = world.user(delete, timeout_s=660)
    if done.returncode != 0:
        found.append(f"the namespace does not go: {done.stderr.strip()[-300:]}")
    deadline = time.monotonic() + _CALM_TIMEOUT_S
    while (pods := world.user(["ls", world.cluster.home(".hpk/pods")]).stdout.split()) and (
        time.monotonic() < deadline
    ):
        time.sleep(1)
    if pods:
        found.append(f"files of pods are left: {' '.join(pods)}")
    world.user(["hpk", "down", "--cancel-jobs"], timeout_s=300)
    jobs = world.user(["squeue", "--me", "-h"]).stdout.strip()
    if jobs:
        found.append(f"jobs are left: {jobs}")
    try:
        leftovers.wait_none()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found.append(str(error))
    return found


def _swept(world: World) -> list[str]:
    """A pod on each node: what killed supervisors have left there is the next one's to remove."""
    sweepers = [workload.sweeper(host) for host in world.compute]
    eventually(lambda: workload.apply(world, *sweepers), what="a pod for each node")
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    wait = ["kubectl", "-n", _NAMESPACE, "wait", "pod", "--all", phase]
    done = world.user([*wait, f"--timeout={_CALM_TIMEOUT_S}s"], timeout_s=_CALM_TIMEOUT_S + 60)
    return [] if done.returncode == 0 else [f"a pod on each node: {done.stderr.strip()[-300:]}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
