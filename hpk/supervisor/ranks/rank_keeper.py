"""The process that holds a node's container for all ranks of a run there."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import threading
import time

from hpk.durable import read_file, write_new
from hpk.flock import exclusive_lock
from hpk.model.bundle import Bundle
from hpk.model.errors import PermanentError
from hpk.model.frozen import dataclass
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, JobSpec
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.linux import close_files_but
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.inside import environment, mounts, node
from hpk.supervisor.inside.localdir import LocalDirs, NodeRoots, node_roots, sweep_local_dirs
from hpk.supervisor.inside.pod_volumes import PodVolumes, VolumeDirs
from hpk.supervisor.inside.sub_path import VolumeError
from hpk.supervisor.link import forwarder
from hpk.supervisor.link.control_plane import ControlPlane
from hpk.supervisor.process import execution
from hpk.supervisor.process.opening import Wanted, open_command
from hpk.supervisor.process.places import Mount
from hpk.supervisor.process.pod_messages import Open
from hpk.supervisor.process.runtime_process import kill_inhabitants, read_pause_pid, start_runtime


@dataclass(frozen=True)
class PodPlace:
    """Where the pod's emptyDirs are.

    :param host: Slurm's name of the supervisor's node.
    :param disk: on that node's disk, or in a job of several nodes on the shared file system.
    :param memory: on that node.
    """

    host: str
    disk: str
    memory: str


@dataclass(frozen=True)
class RankContext:
    """What a rank knows when it starts."""

    layout: AttemptLayout
    spec: JobSpec
    plan: ContainerPlan
    restart: int
    env: dict[str, str]
    place: PodPlace

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0 of the whole run."""
        return self.env.get("SLURM_PROCID") == "0"


def api_port_path(dirs: LocalDirs) -> str:
    """The file that says where the ranks of this node find the API server."""
    return os.path.join(dirs.work, "api.port")


def start_keeper(rank: RankContext, bundle: Bundle, dirs: LocalDirs, pid_path: str) -> int:
    """Start the node's container and the process that holds it; the keeper's pid.

    The keeper forwards to the API server, too, as the supervisor does for the pod's other
    containers.

    :raises StartError: the runtime could not start the container.
    """
    command = _prepare(rank, bundle, dirs)
    listener = forwarder.listen()
    write_new(api_port_path(dirs), str(forwarder.port_of(listener)).encode())
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        code = 1
        try:
            close_files_but(ready_write, listener.fileno())
            files = SharedFiles(lambda event: event())
            plane = ControlPlane(rank.spec.settings.endpoint_path, files)
            to_api = forwarder.Forwarder(listener, plane)
            roots = node_roots(rank.layout, rank.spec.settings.local_root, rank.env)
            _keep(command, dirs, roots, ready_write, to_api)
            code = 0
        except BaseException as error:  # a forked child must never return into its parent's code
            log("keeper failed", error=repr(error))
        os._exit(code)
    os.close(ready_write)
    listener.close()
    with os.fdopen(ready_read, "rb") as ready:
        pause_pid = int(ready.read() or b"0")
    if not pause_pid:
        os.waitpid(keeper, 0)
        errors = read_file(_errors(dirs), 8192).decode(errors="replace").strip()
        why = errors or f"{rank.spec.plan.runtime} ended before its payload ran"
        raise execution.StartError(why)
    write_new(pid_path, str(pause_pid).encode())
    return keeper


def _errors(dirs: LocalDirs) -> str:
    return os.path.join(dirs.work, "runtime.err")


def _prepare(rank: RankContext, bundle: Bundle, dirs: LocalDirs) -> Open:
    plan, spec = environment.with_sub_paths(rank.plan, bundle), rank.spec
    runtime = RUNTIMES[spec.plan.runtime]
    tool_env = node.tool_environment(rank.env)
    facts = node.probe_node(runtime.programs, spec.settings.runtime_path, tool_env["PATH"])
    unusable = runtime.unusable(facts)
    if unusable:
        raise PermanentError(unusable)
    mounts.write_node_files(dirs.work, spec.plan, "")
    roots = node_roots(rank.layout, spec.settings.local_root, rank.env)
    volumes = PodVolumes(spec, _volume_dirs(rank, dirs), roots)
    volumes.prepare()
    volumes.write(bundle)
    try:
        seen = volumes.mounts_of(plan)
    except VolumeError as error:
        raise PermanentError(str(error)) from error
    launchers = (Mount(os.path.realpath(p), p, False) for p in _launcher_paths(rank.env))
    seen_all = (*seen, *launchers)
    wanted = Wanted(
        image_path=plan.image.path,
        directory=dirs.work,
        roots=dirs.roots,
        mounts=mounts.container_mounts(plan, dirs, dirs.work, seen_all, identity=True),
        own=volumes.own_directories,
        gpus=plan.resources.gpus > 0,
        uid=os.getuid(),
        gid=os.getgid(),
        read_only=plan.read_only_root,
    )
    return open_command(1, runtime, facts, wanted, env=tool_env)


def _volume_dirs(rank: RankContext, dirs: LocalDirs) -> VolumeDirs:
    """The pod's emptyDirs where this node sees them; memory of its own on the other nodes."""
    is_pods_host = node.host_name(rank.env) == rank.place.host
    return VolumeDirs(
        projected=os.path.join(dirs.secret, "volumes"),
        disk=rank.place.disk,
        memory=rank.place.memory if is_pods_host else os.path.join(dirs.secret, "memory"),
        # podman would give them the node's, with every other pod's in it.
        shm=os.path.join(dirs.secret, "shm") if dirs.secret != dirs.work else "",
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


def _keep(
    command: Open,
    dirs: LocalDirs,
    roots: NodeRoots,
    ready_fd: int,
    to_api: forwarder.Forwarder,
) -> None:
    """Hold the container until every rank of this node has let its lock go."""
    os.setsid()
    for number in execution.TERMINATIONS:
        signal.signal(number, signal.SIG_IGN)
    errors = os.open(_errors(dirs), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    runtime = start_runtime(command, errors)
    pause_pid = read_pause_pid(runtime.stdout_fd)
    with os.fdopen(ready_fd, "wb") as ready:
        ready.write(str(pause_pid or "").encode())
    # The ranks' output must end when they do: the keeper holds none of it.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    if pause_pid:
        to_api.start()
        threading.Thread(target=sweep_local_dirs, args=(roots,), name="sweep", daemon=True).start()
        with contextlib.ExitStack() as stack:
            for directory in {dirs.work, dirs.secret}:
                stack.enter_context(exclusive_lock(os.path.join(directory, ".lock")))
            kill_inhabitants(pause_pid)
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
