"""What goes wrong: one function for each kind, found by its name in FAULTS.

A fault does its harm, notes in the world whom it has really killed, and may return how the harm is
undone, which is done some seconds later. One that finds nothing to harm says so with None.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootstrap.lab import control, daemons
from bootstrap.lab.layout import LOGIN
from tests.chaos.world import Process, World

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What a fault did.

    :param what: for the log.
    :param lasts_s: after how many seconds `undo` is called.
    """

    what: str
    lasts_s: float = 0.0
    undo: Undo | None = None


Fault = Callable[[World], Harm | None]


def component_killed(world: World) -> Harm | None:
    """kill -9 of one process of the control plane; who supervises them is started again."""
    found = world.components()
    if not found:
        return None
    name = world.rng.choice(sorted(found))
    found[name].kill()
    if name == "bootstrap.supervise":
        return Harm(what=name, lasts_s=5, undo=lambda: bring_up(world))
    return Harm(what=name)


def kubelet_frozen(world: World) -> Harm | None:
    """The kubelet stands still, for up to a minute."""
    kubelet = world.components().get("kubelet")
    if kubelet is None:
        return None
    kubelet.kill(signal.SIGSTOP)
    lasts_s = world.rng.uniform(10, 60)
    return Harm(what=f"{lasts_s:.0f} s", lasts_s=lasts_s, undo=lambda: kubelet.kill(signal.SIGCONT))


_YOUNG = re.compile(r"0:[0-2]?[0-9]")
"""What squeue says of jobs that run for less than half a minute."""


def slurmctld_killed(world: World) -> Harm | None:
    """The controller crashes and comes back with what it had saved last.

    Of jobs that began after that it knows as queued ones: it kills those on their nodes and starts
    them again (slurmctld, validate_jobs_on_node).
    """
    argv = ["squeue", "-h", "-a", "-t", "RUNNING", "-u", world.cluster.user, "-o", "%i %M"]
    young = [line.split() for line in world.admin(argv).stdout.splitlines()]
    world.kills(*(int(job) for job, used in young if _YOUNG.fullmatch(used)))

    def again() -> None:
        asyncio.run(daemons.start_controller(world.machine))

    asyncio.run(daemons.stop_controller(world.machine))
    return Harm(what="", lasts_s=world.rng.uniform(0, 10), undo=again)


def slurmdbd_killed(world: World) -> Harm | None:
    """Accounting is away for a while."""
    pids = [p.pid for p in world.machine.processes(LOGIN) if p.name == "slurmdbd"]
    world.admin(["sh", "-c", "kill -9 $(pgrep -x slurmdbd)"])

    def again() -> None:
        asyncio.run(daemons.start_database(world.machine))

    return Harm(what="", lasts_s=world.rng.uniform(0, 20), undo=again) if pids else None


def supervisor_killed(world: World) -> Harm | None:
    """kill -9 of a pod's supervisor; its job dies with it."""
    killed = _kill_one(world, world.supervisors())
    return Harm(what=f"job {killed.job} on {killed.host}") if killed else None


def job_process_killed(world: World) -> Harm | None:
    """kill -9 of any process of any job: podinit, a runtime, a FUSE server, a container."""
    killed = _kill_one(world, [p for p in world.user_processes(*world.compute) if p.job])
    if killed is None:
        return None
    return Harm(what=f"{' '.join(killed.argv)[:60]!r} of job {killed.job} on {killed.host}")


def _kill_one(world: World, found: Sequence[Process]) -> Process | None:
    """One of a job's processes, that has been killed."""
    if not found:
        return None
    chosen = world.rng.choice(found)
    assert chosen.job is not None
    world.kills(chosen.job)
    chosen.kill()
    return chosen


def node_died(world: World) -> Harm | None:
    """A compute node dies with everything on it, and boots again."""
    host = world.rng.choice(world.compute)
    world.kills(*world.jobs_on(host))
    asyncio.run(control.kill_node(world.machine, host))

    def boot() -> None:
        asyncio.run(control.start_node(world.machine, host))
        world.home.attach(host)

    return Harm(what=host, lasts_s=world.rng.uniform(5, 30), undo=boot)


def requeued(world: World) -> Harm | None:
    """The administrator requeues a running job."""
    return _to_a_job(world, "RUNNING", lambda job: ["requeue", job], kills=True)


def cancelled(world: World) -> Harm | None:
    """The administrator cancels a job."""
    found = world.jobs("RUNNING", "PENDING")
    if not found:
        return None
    job = world.rng.choice(found)
    world.kills(job)
    world.admin(["scancel", str(job)])
    return Harm(what=f"job {job}")


def renamed(world: World) -> Harm | None:
    """The administrator gives a job another name."""
    return _to_a_job(world, "RUNNING", lambda job: ["update", f"jobid={job}", "name=other"])


def held(world: World) -> Harm | None:
    """The administrator holds a queued job for a while."""
    return _to_a_job(world, "PENDING", lambda job: ["hold", job], back=lambda job: ["release", job])


def suspended(world: World) -> Harm | None:
    """The administrator suspends a running job for a while."""
    return _to_a_job(
        world, "RUNNING", lambda job: ["suspend", job], back=lambda job: ["resume", job]
    )


def _to_a_job(
    world: World,
    state: str,
    words: Callable[[str], list[str]],
    *,
    back: Callable[[str], list[str]] | None = None,
    kills: bool = False,
) -> Harm | None:
    found = world.jobs(state)
    if not found:
        return None
    job = world.rng.choice(found)
    if kills:
        world.kills(job)
    world.admin(["scontrol", *words(str(job))])
    if back is None:
        return Harm(what=f"job {job}")

    def undo() -> None:
        world.admin(["scontrol", *back(str(job))])

    return Harm(what=f"job {job}", lasts_s=world.rng.uniform(3, 15), undo=undo)


def home_stalled(world: World) -> Harm | None:
    """Every call on the home waits for 25 seconds, as in an NFS server's failover."""
    world.home.tell("stall 25")
    return Harm(what="25 s")


def home_full(world: World) -> Harm | None:
    """The home's quota is used up for a while."""
    return _of_the_home(world, "full")


def home_readonly(world: World) -> Harm | None:
    """The home cannot be written for a while."""
    return _of_the_home(world, "readonly")


def home_late(world: World) -> Harm | None:
    """What one host makes in the home the others see late."""
    return _of_the_home(world, "late 10")


def _of_the_home(world: World, command: str) -> Harm:
    world.home.tell(command)
    lasts_s = world.rng.uniform(5, 30)
    return Harm(what=f"{lasts_s:.0f} s", lasts_s=lasts_s, undo=lambda: world.home.tell("fine"))


def bring_up(world: World) -> None:
    """`hpk up`, as its user does when he finds it down; not an error while the home is ill."""
    done = world.user(["hpk", "up"], timeout_s=300)
    if done.returncode != 0:
        print(f"  hpk up: {(done.stderr or done.stdout).strip()[-300:]}", flush=True)


FAULTS: dict[str, tuple[Fault, int]] = {
    "component-killed": (component_killed, 6),
    "kubelet-frozen": (kubelet_frozen, 2),
    "slurmctld-killed": (slurmctld_killed, 3),
    "slurmdbd-killed": (slurmdbd_killed, 2),
    "supervisor-killed": (supervisor_killed, 3),
    "job-process-killed": (job_process_killed, 3),
    "node-died": (node_died, 1),
    "requeued": (requeued, 2),
    "cancelled": (cancelled, 2),
    "renamed": (renamed, 2),
    "held": (held, 1),
    "suspended": (suspended, 2),
    "home-stalled": (home_stalled, 1),
    "home-full": (home_full, 2),
    "home-readonly": (home_readonly, 1),
    "home-late": (home_late, 2),
}
"""Name → the fault and how often it comes, relative to the others."""
