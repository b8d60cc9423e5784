"""One rank of an MPI run: a task of the launcher's step that becomes the container's program.

Each node has one container for all its ranks, in one user namespace, so that they reach each
other's memory (CMA). The first rank to come starts it and leaves a keeper process behind, which
lets the container go when the last rank of the node has ended: each holds a shared lock on the
node's directory, through execve, to its own end.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
from dataclasses import dataclass

from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import PermanentError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, JobSpec
from hpk.mpi.base import crossing_environment
from hpk.runtimes.base import PAUSE_PATH, BindMount, HoldRequest
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor import enter, environment, linux, node, podinit, rank_files, volumes
from hpk.supervisor.container import (
    message_links,
    message_mount,
    scratch_mounts,
    volume_mounts,
)
from hpk.supervisor.files import (
    close_files_but,
    log,
    log_to,
    read_file,
    write_atomically,
    write_new,
)
from hpk.supervisor.localdir import LocalDirs, join_local_dirs, lock_exclusively
from hpk.supervisor.pause import pause_elf
from hpk.supervisor.termination import START_ERROR_CODE

_TERMINATIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_FORWARDED = (*_TERMINATIONS, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


@dataclass(frozen=True)
class RankContext:
    """What a rank knows when it starts."""

    layout: AttemptLayout
    spec: JobSpec
    plan: ContainerPlan
    restart: int
    env: dict[str, str]

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0 of the whole run."""
        return self.env.get("SLURM_PROCID") == "0"


def run_rank(layout: AttemptLayout, name: str, restart: int) -> int:
    """Become the container's program; returns only where that failed, or for the rank that
    started the container."""
    log_to(f"{rank_files.directory(layout)}/ranks.log")
    env = dict(os.environ)
    spec = codec.loads(JobSpec, read_file(layout.spec))
    plan = next((item for item in spec.plan.containers if item.name == name), None)
    if plan is None:
        raise PermanentError(f"pod.json has no container {name!r}")
    rank = RankContext(layout, spec, plan, restart, env)
    if rank.is_first:
        step = f"{env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')}"
        write_atomically(rank_files.path(layout, name, restart, "step"), step)
    try:
        bundle = rank_files.read_bundle(0)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return _run(rank, bundle)
    except (enter.StartError, OSError, PermanentError) as error:
        return _fail(rank, str(error))


def _fail(rank: RankContext, why: str) -> int:
    """The first rank that cannot start tells why; the supervisor makes it the container's state."""
    path = rank_files.path(rank.layout, rank.plan.name, rank.restart, "error")
    with contextlib.suppress(OSError):
        write_new(path, why.encode(errors="replace")[:4096])
    return START_ERROR_CODE


def _run(rank: RankContext, bundle: Bundle) -> int:
    step = f"{rank.env.get('SLURM_JOB_ID')}.{rank.env.get('SLURM_STEP_ID')}"
    dirs = join_local_dirs(rank.spec.settings.local_root, step)
    pid_path = os.path.join(dirs.work, "pause.pid")
    keeper = 0
    with lock_exclusively(os.path.join(dirs.work, "start.lock")):
        if not os.path.exists(pid_path):
            keeper = _start_keeper(rank, bundle, dirs, pid_path)
        pause_pid = int(read_file(pid_path))
    for fd in dirs.lock_fds:
        os.set_inheritable(fd, True)
    if keeper:
        return _run_beside_keeper(rank, bundle, dirs, pause_pid, keeper)
    _become_program(rank, bundle, pause_pid)
    return START_ERROR_CODE


def _become_program(rank: RankContext, bundle: Bundle, pause_pid: int) -> None:
    plan = rank.plan
    hostname = rank.spec.plan.hostname or rank.spec.plan.pod.name
    env = environment.container_environment(plan, bundle, hostname)
    env.update(crossing_environment(rank.env))
    enter.set_oom_score_adj(enter.MOST_KILLABLE)
    enter.join_namespaces(pause_pid)
    os.umask(0o022)
    enter.make_links(message_links(plan))
    enter.change_directory(plan.working_dir)
    linux.forbid_new_privileges()
    enter.reset_signals()
    enter.execute(plan.argv, env)


def _run_beside_keeper(
    rank: RankContext, bundle: Bundle, dirs: LocalDirs, pause_pid: int, keeper: int
) -> int:
    """The program as a child, so that this task can outlast it.

    A task that ends well waits for the node's other ranks: Slurm kills what is left of a step on a
    node when its last task ends, the keeper before it has cleaned up among them. One that fails
    ends at once, for Slurm must hear of it to end the others.
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
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: _forward(pid, received))
    os.close(error_write)
    for fd in dirs.lock_fds:
        os.close(fd)
    why = b""
    while chunk := os.read(error_read, 4096):
        why += chunk
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
    if os.WEXITSTATUS(status) == 0:
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


# The keeper.


def _start_keeper(rank: RankContext, bundle: Bundle, dirs: LocalDirs, pid_path: str) -> int:
    """Start the node's container and the process that holds it; the keeper's pid.

    :raises StartError: the runtime could not start the container.
    """
    command = _prepare(rank, bundle, dirs)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        code = 1
        try:
            close_files_but(ready_write)
            _keep(command, dirs, ready_write)
            code = 0
        except BaseException as error:  # a forked child must never return into its parent's code
            log("keeper failed", error=repr(error))
        os._exit(code)
    os.close(ready_write)
    with os.fdopen(ready_read, "rb") as ready:
        pause_pid = int(ready.read() or b"0")
    if not pause_pid:
        os.waitpid(keeper, 0)
        errors = read_file(_errors(dirs), 8192).decode(errors="replace").strip()
        raise enter.StartError(errors or f"{rank.spec.plan.runtime} ended before its payload ran")
    write_new(pid_path, str(pause_pid).encode())
    return keeper


def _errors(dirs: LocalDirs) -> str:
    return os.path.join(dirs.work, "runtime.err")


def _prepare(rank: RankContext, bundle: Bundle, dirs: LocalDirs) -> podinit.Open:
    plan, spec = rank.plan, rank.spec
    runtime = RUNTIMES[spec.plan.runtime]
    tool_env = node.tool_environment(rank.env)
    facts = node.probe_node(runtime.programs, spec.settings.runtime_path, tool_env["PATH"])
    unusable = runtime.unusable(facts)
    if unusable:
        raise PermanentError(unusable)
    machine = os.uname().machine
    write_new(os.path.join(dirs.work, "pause"), pause_elf(machine), mode=0o755)
    write_new(os.path.join(dirs.work, "termination-log"), b"", mode=0o666)
    scratch = os.path.join(dirs.work, "overlay")
    os.mkdir(scratch, 0o700)
    for volume in spec.plan.volumes:
        os.makedirs(os.path.join(dirs.secret, "volumes", volume.name), mode=0o755)
    known = {volume.name for volume in spec.plan.volumes}
    for content in bundle.volumes:
        if content.name in known:
            volumes.write_volume(os.path.join(dirs.secret, "volumes", content.name), content)
    mounts = [
        BindMount(os.path.join(dirs.work, "pause"), PAUSE_PATH, True),
        BindMount("/etc/hosts", "/etc/hosts", True),
        BindMount("/etc/resolv.conf", "/etc/resolv.conf", True),
        message_mount(plan, os.path.join(dirs.work, "termination-log")),
        *scratch_mounts(dirs.work),
        *volume_mounts(plan, dirs.secret),
        *(BindMount(path, path, False) for path in _launcher_paths(rank.env)),
    ]
    request = HoldRequest(plan.image.path, scratch, tuple(mounts), plan.resources.gpus > 0)
    tool_env.update(runtime.environment(dirs.work))
    return podinit.Open(
        id=1,
        argv=runtime.hold_argv(facts, request),
        env=tuple(tool_env.items()),
        uid=None,
        gid=None,
        binds=(),
    )


def _launcher_paths(env: dict[str, str]) -> tuple[str, ...]:
    """Directories by which ranks talk to the launcher's server on this node, if they exist."""
    job, step = env.get("SLURM_JOB_ID", ""), env.get("SLURM_STEP_ID", "")
    found = [env.get("PMIX_SERVER_TMPDIR", "")]
    for root in {env.get("SLURM_PMIX_TMPDIR", ""), env.get("TMPDIR", ""), "/tmp"}:
        if root.startswith("/"):
            found += glob.glob(f"{glob.escape(root)}/spmix_appdir_*{job}.{step}")
    found += ["/dev/infiniband", "/dev/xpmem", "/etc/libibverbs.d"]
    found += sorted(glob.glob("/dev/cxi*"))
    return tuple(path for path in dict.fromkeys(found) if path and os.path.exists(path))


def _keep(command: podinit.Open, dirs: LocalDirs, ready_fd: int) -> None:
    """Hold the container until every rank of this node has let its lock go."""
    os.setsid()
    for number in _TERMINATIONS:
        signal.signal(number, signal.SIG_IGN)
    errors = os.open(_errors(dirs), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    runtime = podinit.start_runtime(command, errors)
    pause_pid = podinit.read_pause_pid(runtime.stdout_fd)
    with os.fdopen(ready_fd, "wb") as ready:
        ready.write(str(pause_pid or "").encode())
    # The ranks' output must end when they do: the keeper holds none of it.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    if pause_pid:
        with contextlib.ExitStack() as stack:
            for directory in {dirs.work, dirs.secret}:
                stack.enter_context(lock_exclusively(os.path.join(directory, ".lock")))
            podinit.kill_inhabitants(pause_pid)
            os.close(runtime.stdin_fd)
            _wait_or_kill(runtime.runtime_pid)
            LocalDirs(dirs.work, dirs.secret, ()).remove()
        return
    os.waitpid(runtime.runtime_pid, 0)


def _wait_or_kill(pid: int) -> None:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
