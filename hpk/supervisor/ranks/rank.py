"""One rank of an MPI run: a task of the launcher's step that becomes the container's program.

Each node has one container for all its ranks, in one user namespace, so that they reach each
other's memory (CMA). The first rank to come starts it and leaves a keeper process behind, which
lets the container go when the last rank of the node has ended: each holds a shared lock on the
node's directory, through execve, to its own end.
"""

from __future__ import annotations

import contextlib
import os
import signal

from hpk.durable import read_file, write_atomically, write_new
from hpk.flock import exclusive_lock
from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError, PermanentError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.mpi.base import crossing_environment
from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import log_to
from hpk.supervisor.base.termination import START_ERROR_CODE
from hpk.supervisor.inside import environment, mounts
from hpk.supervisor.inside.localdir import LocalDirs, join_local_dirs, node_roots
from hpk.supervisor.process import execution
from hpk.supervisor.process.confinement import confine
from hpk.supervisor.process.namespaces import join_namespaces
from hpk.supervisor.ranks import rank_files
from hpk.supervisor.ranks.argo_emissary import (
    has_emissary,
    refuse_to_signal_everybody,
    signal_tree,
    without_emissary,
)
from hpk.supervisor.ranks.rank_keeper import (
    PodPlace,
    RankContext,
    api_port_path,
    start_keeper,
)

_FAILURES = (execution.StartError, OSError, HpkError)
_FORWARDED = (*execution.TERMINATIONS, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def run_rank(layout: AttemptLayout, name: str, restart: int, place: PodPlace) -> int:
    """Become the container's program; returns only where that failed, or for the rank that
    started the container."""
    log_to(f"{rank_files.directory(layout)}/ranks.log")
    env = dict(os.environ)
    spec = codec.loads(JobSpec, read_file(layout.spec))
    plan = next((item for item in spec.plan.containers if item.name == name), None)
    if plan is None:
        raise PermanentError(f"pod.json has no container {name!r}")
    rank = RankContext(layout, spec, plan, restart, env, place)
    if rank.is_first:
        step = f"{env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')}"
        write_atomically(rank_files.path(layout, name, restart, "step"), step)
    try:
        bundle = rank_files.read_bundle(0)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return enter_container(rank, bundle)
    except _FAILURES as error:
        return _fail(rank, str(error))


def _fail(rank: RankContext, why: str) -> int:
    """The first rank that cannot start tells why; the supervisor makes it the container's state."""
    path = rank_files.path(rank.layout, rank.plan.name, rank.restart, "error")
    with contextlib.suppress(OSError):
        write_new(path, why.encode(errors="replace")[:4096])
    return START_ERROR_CODE


def enter_container(rank: RankContext, bundle: Bundle) -> int:
    """Become the program, in this node's container; start that where no rank has yet."""
    step = f"{rank.env.get('SLURM_JOB_ID')}.{rank.env.get('SLURM_STEP_ID')}"
    roots = node_roots(rank.layout, rank.spec.settings.local_root, rank.env)
    dirs = join_local_dirs(roots, step)
    pid_path = os.path.join(dirs.work, "pause.pid")
    keeper = 0
    with exclusive_lock(os.path.join(dirs.work, "start.lock")):
        if not os.path.exists(pid_path):
            keeper = _start_keeper(rank, bundle, dirs, pid_path)
        pause_pid = int(read_file(pid_path))
    bundle = environment.with_api_port(bundle, int(read_file(api_port_path(dirs))))
    for fd in dirs.lock_fds:
        os.set_inheritable(fd, True)
    if keeper or _begins_with_emissary(rank, bundle):
        return _run_below(rank, bundle, dirs, pause_pid, keeper)
    _become_program(rank, bundle, pause_pid)
    return START_ERROR_CODE


def _begins_with_emissary(rank: RankContext, bundle: Bundle) -> bool:
    return rank.is_first and has_emissary(environment.container_argv(rank.plan, bundle))


def _start_keeper(rank: RankContext, bundle: Bundle, dirs: LocalDirs, pid_path: str) -> int:
    """See start_keeper. The failure is told before the next rank gets the lock: that one fails
    over what this one left, and may be the quicker to say so."""
    try:
        return start_keeper(rank, bundle, dirs, pid_path)
    except _FAILURES as error:
        _fail(rank, str(error))
        raise


def _become_program(rank: RankContext, bundle: Bundle, pause_pid: int) -> None:
    plan = rank.plan
    hostname = rank.spec.plan.hostname or rank.spec.plan.pod.name
    env = environment.container_environment(plan, bundle, hostname)
    env.update(crossing_environment(rank.env))
    execution.set_oom_score_adj(execution.MOST_KILLABLE)
    join_namespaces(pause_pid)
    os.umask(0o022)
    execution.make_links(mounts.message_links(plan))
    execution.change_directory(plan.working_dir)
    argv = environment.container_argv(plan, bundle)
    if _begins_with_emissary(rank, bundle):
        refuse_to_signal_everybody()
    elif not rank.is_first:
        argv = without_emissary(argv)
    confine(plan.rights, emulates_root=False)
    execution.reset_signals()
    execution.execute(argv, env)


def _run_below(
    rank: RankContext, bundle: Bundle, dirs: LocalDirs, pause_pid: int, keeper: int
) -> int:
    """The program as a child, so that this task can signal it and outlast it.

    The task with the keeper, if it ends well, waits for the node's other ranks: Slurm kills what is
    left of a step on a node when its last task ends, the keeper before it has cleaned up among
    them. One that fails ends at once, for Slurm must hear of it to end the others.

    :param keeper: its pid, 0 where it is another task's.
    """
    parent = os.getpid()
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent(parent)
            _become_program(rank, bundle, pause_pid)
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(error_write, (str(error) or repr(error)).encode(errors="replace")[:4096])
        os._exit(START_ERROR_CODE)
    # Slurm signals a task's first process alone, which is this one.
    send = signal_tree if _begins_with_emissary(rank, bundle) else _forward
    is_there = True

    def pass_on(received: int, _frame: object) -> None:
        if is_there:
            send(pid, received)

    for number in _FORWARDED:
        signal.signal(number, pass_on)
    os.close(error_write)
    for fd in dirs.lock_fds:
        os.close(fd)
    why = b""
    while chunk := os.read(error_read, 4096):
        why += chunk
    # Its pid is its own until it is reaped, and may be anybody's from then on.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    is_there = False
    _, status = os.waitpid(pid, 0)
    if why:
        return _fail(rank, why.decode(errors="replace"))
    if rank.is_first:
        _publish_message(rank, dirs)
    if os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        if ended_by != signal.SIGKILL:
            signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
        return 128 + ended_by
    if keeper and os.WEXITSTATUS(status) == 0:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(keeper, 0)
    return os.WEXITSTATUS(status)


def _forward(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _publish_message(rank: RankContext, dirs: LocalDirs) -> None:
    with contextlib.suppress(OSError):
        text = read_file(os.path.join(dirs.work, "termination-log"), 4096)
        if text:
            path = rank_files.path(rank.layout, rank.plan.name, rank.restart, "message")
            write_atomically(path, text)
