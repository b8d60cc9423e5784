"""podman, rootless, with no subordinate ids, no daemon and no storage outside the job's own.

It gets the image the cache already holds, shown as a directory on this node, and makes an overlay
over it (``--rootfs DIR:O``): nothing is pulled or unpacked a second time. It runs as root of the
supervisor's user namespace, so that it re-executes itself into none of its own, and only starts the
container; conmon, which stays, and the image's FUSE server are ended by the supervisor.
"""

from __future__ import annotations

import os
from typing import Optional

from hpk.runtimes.base import PAUSE_PATH, Holder, HoldRequest, NodeFacts, mount_option

_OVERLAY_FOR_USERS = (5, 11)
"""The first kernel that lets a user namespace mount an overlay."""
_LONGEST_RUNROOT = 50
"""podman refuses a longer one, for the sake of its sockets (libpod/options.go, WithRunRoot)."""
_SERVERS = ("squashfuse_ll", "squashfuse")
_CONFIGURATION = """\
[containers]
log_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
no_pivot_root = false
"""
_STORAGE = """\
[storage]
driver = "overlay"
[storage.options.overlay]
ignore_chown_errors = "true"
"""


class Podman:
    """See hpk.runtimes.base.Runtime."""

    name = "podman"
    programs: tuple[str, ...] = ("podman", "crun", *_SERVERS, "unsquashfs", "fuse-overlayfs")
    wants_image_offset = True
    longest_directory: Optional[int] = _LONGEST_RUNROOT - len("/w/overlay/run")

    def unusable(self, facts: NodeFacts) -> str:
        """See Runtime.unusable."""
        if facts.program("podman") is None:
            return "podman is not on this node: install it, or set the directory it is in"
        if not facts.has_cgroup2:
            return (
                "/sys/fs/cgroup of this node is not cgroup2, which podman's crun needs: boot it "
                "with systemd.unified_cgroup_hierarchy=1, or use apptainer"
            )
        if _server(facts) is None and facts.program("unsquashfs") is None:
            return (
                "this node has neither squashfuse (with /dev/fuse of mode 0666) nor unsquashfs to "
                "show podman an image: install one"
            )
        if facts.kernel < _OVERLAY_FOR_USERS and not _fuse_overlayfs(facts):
            major, minor = facts.kernel
            return (
                f"Linux {major}.{minor} lets no user mount an overlay, and fuse-overlayfs is not "
                "on this node: install it"
            )
        return ""

    def hold_argv(self, facts: NodeFacts, request: HoldRequest) -> tuple[str, ...]:
        """See Runtime.hold_argv.

        The container's user namespace maps one id, whoever it is to be; all others are the pod's.
        """
        storage = request.scratch
        argv = [facts.program("podman") or self.name]
        argv += ["--root", f"{storage}/storage", "--runroot", f"{storage}/run"]
        argv += ["--tmpdir", f"{storage}/state", "--storage-driver", "overlay"]
        argv += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        if facts.kernel < _OVERLAY_FOR_USERS:
            argv += ["--storage-opt", f"overlay.mount_program={_fuse_overlayfs(facts)}"]
        argv += ["run", "--detach", "--interactive", "--pidfile", f"{storage}/pid"]
        argv += ["--log-driver", "none", "--sig-proxy=false", "--no-hosts", "--workdir", "/"]
        argv += ["--network", "host", "--ipc", "host", "--uts", "host", "--pid", "host"]
        argv += ["--cgroupns", "host", "--cgroups", "no-conmon"]
        argv += ["--uidmap", f"{request.uid}:0:1", "--gidmap", f"{request.gid}:0:1"]
        argv += ["--user", f"{request.uid}:{request.gid}"]
        argv += ["--security-opt", "seccomp=unconfined", "--security-opt", "label=disable"]
        if request.read_only:
            argv += ["--read-only", "--read-only-tmpfs=false"]
        if request.gpus and facts.has_nvidia:
            argv += ["--device", "nvidia.com/gpu=all"]
        if request.gpus and facts.has_amd:
            argv += ["--device", "/dev/kfd", "--device", "/dev/dri"]
        for mount in request.mounts:
            argv += ["--mount", mount_option(mount)]
        return (*argv, "--rootfs", f"{_image_root(request)}:O", PAUSE_PATH)

    def holder(self, facts: NodeFacts, request: HoldRequest) -> Optional[Holder]:
        """See Runtime.holder."""
        argv: tuple[str, ...] = ()
        server = _server(facts)
        root, offset = _image_root(request), request.image_offset
        if offset is not None and server is not None:
            argv = (server, "-f", "-o", f"ro,offset={offset}", request.image_path, root)
        elif offset is not None:
            program = facts.program("unsquashfs") or "unsquashfs"
            argv = (program, "-n", "-q", "-f", "-d", root, "-o", str(offset), request.image_path)
        return Holder(
            image_path=request.image_path,
            image_root=root,
            image_argv=argv,
            image_mounts=server is not None,
            pid_file=f"{request.scratch}/pid",
        )

    def environment(self, work_dir: str) -> tuple[tuple[str, str], ...]:
        """See Runtime.environment."""
        return (
            ("HOME", work_dir),
            ("TMPDIR", work_dir),
            ("XDG_RUNTIME_DIR", work_dir),
            ("XDG_CONFIG_HOME", work_dir),
            ("XDG_DATA_HOME", work_dir),
            ("CONTAINERS_CONF", f"{work_dir}/containers.conf"),
            ("CONTAINERS_STORAGE_CONF", f"{work_dir}/storage.conf"),
            # It is in a user namespace already, and must not make one with newuidmap, nor the
            # pause process that keeps that one open.
            ("_CONTAINERS_USERNS_CONFIGURED", "done"),
            ("_CONTAINERS_ROOTLESS_UID", str(os.getuid())),
            ("_CONTAINERS_ROOTLESS_GID", str(os.getgid())),
        )

    def files(self, facts: NodeFacts, work_dir: str) -> tuple[tuple[str, str], ...]:
        """See Runtime.files. They take the place of the site's and the user's own, which may name
        storage on a shared file system; locks are files, for shared memory would outlive us."""
        return (
            (f"{work_dir}/containers.conf", _CONFIGURATION),
            (f"{work_dir}/storage.conf", _STORAGE),
        )


def _image_root(request: HoldRequest) -> str:
    return f"{request.scratch}/image"


def _server(facts: NodeFacts) -> Optional[str]:
    found = (facts.program(name) for name in _SERVERS) if facts.has_fuse else ()
    return next((path for path in found if path), None)


def _fuse_overlayfs(facts: NodeFacts) -> str:
    return (facts.program("fuse-overlayfs") or "") if facts.has_fuse else ""
