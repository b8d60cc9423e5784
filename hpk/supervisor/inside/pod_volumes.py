"""The pod's volumes on this node: where they are, and what of them a container sees."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from hpk.model.bundle import Bundle
from hpk.model.frozen import dataclass
from hpk.model.layout import AttemptLayout
from hpk.model.plan import (
    ContainerPlan,
    EmptyDirVolume,
    JobSpec,
    PodPlan,
    VolumeMount,
)
from hpk.supervisor.base.paths import is_inside
from hpk.supervisor.inside import volumes
from hpk.supervisor.inside.host_path import check_allowed, host_path_source
from hpk.supervisor.inside.localdir import LocalDirs, NodeRoots, clear_away, make_roots
from hpk.supervisor.inside.sub_path import VolumeError, sub_path_source
from hpk.supervisor.process.places import Mount

_SHM = "/dev/shm"


@dataclass(frozen=True)
class VolumeDirs:
    """Where volumes are made.

    :param projected: what comes in the bundle; never on a shared file system. Each node its own.
    :param disk: parent of emptyDirs.
    :param memory: parent of those in memory; each node its own, for no memory is shared.
    :param shm: the pod's /dev/shm, "" for the runtime's own.
    """

    projected: str
    disk: str
    memory: str
    shm: str


def pod_dirs(layout: AttemptLayout, dirs: LocalDirs, env: Mapping[str, str]) -> VolumeDirs:
    """Those of the pod, on the supervisor's node.

    :param env: of the batch script; it says how many nodes the job has got.
    """
    on_tmpfs = dirs.secret != dirs.work
    return VolumeDirs(
        projected=os.path.join(dirs.secret, "volumes"),
        disk=shared_disk(layout) if spans_nodes(env) else os.path.join(dirs.work, "empty-dirs"),
        memory=os.path.join(dirs.secret, "memory"),
        shm=os.path.join(dirs.secret, "shm") if on_tmpfs else "",
    )


def shared_disk(layout: AttemptLayout) -> str:
    """Where the emptyDirs of a pod are that has several nodes: on the shared file system."""
    return os.path.join(layout.root, "empty-dirs")


def spans_nodes(env: Mapping[str, str]) -> bool:
    """Whether the job of this environment has more than one node."""
    return env.get("SLURM_JOB_NUM_NODES", env.get("SLURM_NNODES", "1")) != "1"


class PodVolumes:
    """See the module's docstring."""

    def __init__(self, spec: JobSpec, where: VolumeDirs, roots: NodeRoots) -> None:
        self.where = where
        plan: PodPlan = spec.plan
        # A volume's directory has its number, for its name is of a length that the user chose.
        self._projected = {v.name: f"{n}" for n, v in enumerate(plan.volumes)}
        self._numbers = {v.name: f"{n}" for n, v in enumerate(plan.empty_dirs)}
        self._empty_dirs = {volume.name: volume for volume in plan.empty_dirs}
        self._host_paths = {volume.name: volume for volume in plan.host_paths}
        own = [os.path.dirname(spec.settings.endpoint_path), *spec.settings.own_directories]
        self._shared_own = tuple(os.path.realpath(path) for path in own)
        self._roots = roots

    @property
    def own_directories(self) -> tuple[str, ...]:
        """HPK's directories that this node has now; real paths."""
        return tuple(dict.fromkeys((*self._shared_own, *self._roots.own)))

    def prepare(self) -> None:
        """Make the directories that are there from the start."""
        for name in self._projected:
            os.makedirs(self._projected_directory(name), mode=0o755, exist_ok=True)
        for volume in self._empty_dirs.values():
            _make_open(self.empty_dir(volume), 0o777)
        if self.where.shm:
            _make_open(self.where.shm, 0o1777)

    def empty_dir(self, volume: EmptyDirVolume) -> str:
        """Where an emptyDir is."""
        parent = self.where.memory if volume.memory else self.where.disk
        return os.path.join(parent, self._numbers[volume.name])

    def _projected_directory(self, name: str) -> str:
        return os.path.join(self.where.projected, self._projected[name])

    def write(self, bundle: Bundle) -> None:
        """Make the volumes show what came.

        :raises OSError: they cannot be written.
        :raises ParseError: the bundle is not what it must be.
        """
        for volume in bundle.volumes:
            if volume.name in self._projected:
                volumes.write_volume(self._projected_directory(volume.name), volume)

    def waits_for_bundle(self, plan: ContainerPlan) -> bool:
        """Whether a container's mounts can be told only once the bundle is there."""
        return any(
            mount.sub_path_expr or (mount.sub_path and mount.volume in self._projected)
            for mount in plan.mounts
        )

    def mounts_of(self, plan: ContainerPlan) -> tuple[Mount, ...]:
        """What a container sees of the volumes, in its order; the pod's /dev/shm first.

        :raises VolumeError: a volume is not as the Pod wants it.
        :raises PermanentError: it never can be.
        """
        found = []
        if any(mount.volume in self._host_paths for mount in plan.mounts):
            make_roots(self._roots)
        own = self.own_directories
        if self.where.shm:
            found.append(Mount(os.path.realpath(self.where.shm), _SHM, False))
        for mount in plan.mounts:
            in_shm = is_inside(posixpath.normpath(mount.mount_path), _SHM)
            if in_shm and plan.mpi is not None and self._is_memory(mount):
                continue  # the ranks of a node have one container, whose own is memory too
            source = self._source(plan, mount, own)
            read_only = mount.read_only or mount.volume in self._projected
            is_foreign = mount.volume in self._host_paths
            found.append(Mount(source, mount.mount_path, read_only, is_foreign))
        return tuple(found)

    def _is_memory(self, mount: VolumeMount) -> bool:
        volume = self._empty_dirs.get(mount.volume)
        return volume is not None and volume.memory

    def _source(self, plan: ContainerPlan, mount: VolumeMount, own: tuple[str, ...]) -> str:
        is_projected = mount.volume in self._projected
        host_path = self._host_paths.get(mount.volume)
        if is_projected:
            root = os.path.realpath(self._projected_directory(mount.volume))
        elif mount.volume in self._empty_dirs:
            root = os.path.realpath(self.empty_dir(self._empty_dirs[mount.volume]))
        elif host_path is not None:
            root = host_path_source(host_path, own)
        else:
            raise VolumeError("CreateContainerError", f"the Pod has no volume {mount.volume!r}")
        if not mount.sub_path:
            return root
        try:
            source = sub_path_source(root, mount.sub_path, create=not is_projected)
        except VolumeError as error:
            raise VolumeError(
                error.reason,
                f'failed to prepare subPath for volumeMount "{mount.volume}" of container '
                f'"{plan.name}": {error}',
            ) from error
        if host_path is not None:
            check_allowed(host_path, source, own)
        return source

    def remove_shared(self) -> None:
        """Remove what lies outside the node's own directories."""
        if os.path.isdir(self.where.disk):
            clear_away(self.where.disk)


def _make_open(path: str, mode: int) -> None:
    os.makedirs(path, exist_ok=True)
    os.chmod(path, mode)
