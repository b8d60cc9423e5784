"""What podinit is told to start for a container: its runtime, its program, its MPI run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping

from hpk.durable import read_file
from hpk.model.bundle import Bundle
from hpk.model.frames import ExecOpen, TerminalSize
from hpk.model.frozen import dataclass, replace
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, MpiPlan
from hpk.mpi.base import LaunchRequest
from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.base import PAUSE_PATH, NodeFacts, Runtime
from hpk.supervisor.inside import environment, mounts
from hpk.supervisor.inside.localdir import LocalDirs
from hpk.supervisor.inside.memory import OomCounter
from hpk.supervisor.inside.pod_volumes import PodVolumes
from hpk.supervisor.process.opening import Wanted, open_command
from hpk.supervisor.process.pod_messages import Bind, Open, Run

TERM = "xterm"
"""What container runtimes call a terminal that they know nothing of."""
DEFAULT_SIZE = TerminalSize(80, 24)


@dataclass(frozen=True)
class PodContext:
    """What all containers of the pod share.

    :param rank_program: argv of the supervisor's own program on other nodes, without subcommand.
    :param host: Slurm's name of this node.
    :param job_env: the environment of the batch script.
    :param is_alone: it has one container, so that whatever happens in its cgroup is that one's.
    :param initializes: it has init containers.
    :param grace_period_s: the Pod's.
    :param began_mono_s: when the pod began, monotonic.
    :param message_bytes: of a termination message of each container.
    :param shares_processes: the Pod's ``shareProcessNamespace``.
    """

    layout: AttemptLayout
    dirs: LocalDirs
    volumes: PodVolumes
    runtime: Runtime
    facts: NodeFacts
    hostname: str
    tool_env: Mapping[str, str]
    job_env: Mapping[str, str]
    rank_program: tuple[str, ...]
    host: str
    oom: OomCounter
    is_alone: bool
    initializes: bool
    grace_period_s: int
    began_mono_s: float
    message_bytes: int
    shares_processes: bool


def open_message(pod: PodContext, plan: ContainerPlan, directory: str, open_id: int) -> Open:
    """Start the container's runtime; makes the files it needs under ``directory``."""
    seen = pod.volumes.mounts_of(plan)
    wanted = Wanted(
        image_path=plan.image.path,
        directory=directory,
        roots=pod.dirs.roots,
        mounts=mounts.container_mounts(plan, pod.dirs, directory, seen),
        own=pod.volumes.own_directories,
        gpus=plan.resources.gpus > 0,
        uid=plan.uid,
        gid=plan.gid,
        read_only=plan.read_only_root,
    )
    return open_command(open_id, pod.runtime, pod.facts, wanted, env=pod.tool_env)


def run_message(
    pod: PodContext, plan: ContainerPlan, bundle: Bundle, run_id: int, open_id: int
) -> Run:
    """Start the Pod's program in the container."""
    env = environment.container_environment(plan, bundle, pod.hostname)
    if plan.tty:
        env.setdefault("TERM", TERM)
    return Run(
        id=run_id,
        container=open_id,
        argv=environment.container_argv(plan, bundle),
        env=tuple(env.items()),
        working_dir=plan.working_dir or "/",
        links=tuple(Bind(to, where) for where, to in mounts.message_links(plan)),
        rights=plan.rights,
        emulates_root=plan.uid == 0,
        shares_processes=pod.shares_processes,
        terminal=DEFAULT_SIZE if plan.tty else None,
    )


def with_command(message: Run, command: tuple[str, ...], run_id: int) -> Run:
    """The same for another program of the same container: a probe's, a hook's."""
    return replace(message, id=run_id, argv=command, links=(), terminal=None)


def exec_message(message: Run, frame: ExecOpen) -> Run:
    """The same for a program that somebody runs there (`kubectl exec`): on a terminal if he asks
    for one."""
    if not frame.tty:
        return message
    env = {**dict(message.env), "TERM": TERM}
    return replace(message, env=tuple(env.items()), terminal=frame.size or DEFAULT_SIZE)


def rank_exec_message(
    pod: PodContext, plan: ContainerPlan, bundle: Bundle, step: str, frame: ExecOpen, run_id: int
) -> Run:
    """The same in the container that the ranks of an MPI run share on this node. It has the
    container's environment and nothing of the launcher's, as whom it would join the run.

    :param step: the run's.
    :raises OSError, ValueError: that container is not there.
    """
    where = os.path.join(os.path.dirname(pod.dirs.work), step)
    pause_pid = int(read_file(os.path.join(where, "pause.pid"), 32))
    if read_file(f"/proc/{pause_pid}/cmdline", 256).split(b"\0")[0] != PAUSE_PATH.encode():
        raise OSError("the ranks' container has ended")
    port = int(read_file(os.path.join(where, "api.port"), 32))
    here = environment.with_api_port(bundle, port)
    env = environment.container_environment(plan, here, pod.hostname)
    run = Run(
        id=run_id,
        container=None,
        argv=frame.command,
        env=tuple(env.items()),
        working_dir=plan.working_dir or "/",
        rights=plan.rights,
        beside=pause_pid,
    )
    return exec_message(run, frame)


def mpi_message(
    pod: PodContext, plan: ContainerPlan, mpi: MpiPlan, run_id: int, restart: int
) -> Run:
    """Start the launcher of the container's ranks, on the host side."""
    rank_argv = (
        *pod.rank_program,
        "rank",
        f"--attempt-dir={pod.layout.root}",
        f"--container={plan.name}",
        f"--restart={restart}",
        f"--host={pod.host}",
        f"--disk={pod.volumes.where.disk}",
        f"--memory={pod.volumes.where.memory}",
    )
    request = LaunchRequest(mpi, rank_argv, tuple(pod.job_env.items()), plan.name)
    launcher = LAUNCHERS[mpi.launcher]
    return Run(
        id=run_id,
        container=None,
        argv=launcher.argv(request),
        env=launcher.environment(request),
        working_dir="",
    )


def step_signal_message(pod: PodContext, step: str, number: int, run_id: int) -> Run:
    """Signal every rank of a step. By number: scancel takes any, but knows few names (no CHLD, no
    WINCH, no RTMIN), and most real-time signals have none."""
    return Run(
        id=run_id,
        container=None,
        argv=("scancel", f"--signal={int(number)}", step),
        env=tuple(pod.tool_env.items()),
        working_dir="",
    )


def stop_signal(name: str) -> int:
    """The signal an image names in STOPSIGNAL (``SIGQUIT``, ``3``), SIGTERM where it names none."""
    text = name.strip().upper()
    if text.isascii() and text.isdigit() and len(text) <= 3 and 0 < int(text) < signal.NSIG:
        return int(text)
    if text:
        with contextlib.suppress(KeyError):
            return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    return int(signal.SIGTERM)


class RankFailures:
    """Listens to a launcher's standard error for the first rank that failed."""

    def __init__(self, mpi: MpiPlan) -> None:
        self._launcher = LAUNCHERS[mpi.launcher]
        self._rest = b""
        self.exit_code = 0
        """Of that rank; 0 where there was none, or where the launcher's own code says it better."""
        self._found = False

    def feed(self, data: bytes) -> None:
        """The next piece of standard error."""
        if self._found:
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-1024:]
        for line in lines:
            code = self._launcher.first_failure(line)
            if code is not None:
                self._found, self.exit_code = True, code
                return
