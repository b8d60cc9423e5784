"""Apptainer (and SingularityCE, which takes the same options), without root and without setuid."""

from __future__ import annotations

import posixpath
from typing import Optional

from hpk.model.errors import PermanentError
from hpk.runtimes.base import PAUSE_PATH, Holder, HoldRequest, NodeFacts, mount_option


class Apptainer:
    """See hpk.runtimes.base.Runtime."""

    name = "apptainer"
    programs: tuple[str, ...] = ("apptainer", "singularity")
    wants_image_offset = False
    longest_directory: Optional[int] = None

    def unusable(self, facts: NodeFacts) -> str:
        """See Runtime.unusable."""
        if self._program(facts) is None:
            return (
                "neither apptainer nor singularity is on this node: install it, or set the "
                "directory it is in"
            )
        if not facts.has_fuse:
            return "/dev/fuse cannot be opened on this node: ask the site to make its mode 0666"
        return ""

    def hold_argv(self, facts: NodeFacts, request: HoldRequest) -> tuple[str, ...]:
        """See Runtime.hold_argv.

        The writable layer is an overlay directory on node-local disk: ``--writable-tmpfs`` ends at
        64 MiB by default. /tmp belongs to that layer too, as in other runtimes.

        :raises PermanentError: a mount that Apptainer would leave out with no more than a warning.
        """
        for mount in request.mounts:
            target = posixpath.normpath(mount.target)
            below_shm = f"{target}/".startswith("/dev/shm/")  # noqa: S108 - inside the container
            takes = target == mount.source or (below_shm and not mount.source.startswith("/dev/"))
            if target.startswith("/dev/") and not takes:
                raise PermanentError(
                    f"apptainer mounts nothing at {target}",
                    remedy="mount it outside /dev, or use the annotation runtime: podman",
                )
        argv = [self._program(facts) or self.name, "-q", "exec"]
        argv += ["--userns", "--contain", "--cleanenv", "--no-eval", "--no-umask"]
        argv += ["--no-mount", "home,tmp,hostfs,bind-paths"]
        if not request.read_only:
            argv += ["--overlay", request.scratch]
        if request.gpus and facts.has_nvidia:
            argv.append("--nv")
        if request.gpus and facts.has_amd:
            argv.append("--rocm")
        for mount in request.mounts:
            argv += ["--mount", mount_option(mount)]
        return (*argv, request.image_path, PAUSE_PATH)

    def holder(self, facts: NodeFacts, request: HoldRequest) -> Optional[Holder]:
        """See Runtime.holder."""
        return None

    def environment(self, work_dir: str) -> tuple[tuple[str, str], ...]:
        """See Runtime.environment."""
        return (
            ("HOME", work_dir),
            ("APPTAINER_CONFIGDIR", work_dir),
            ("APPTAINER_TMPDIR", work_dir),
            ("SINGULARITY_CONFIGDIR", work_dir),
            ("SINGULARITY_TMPDIR", work_dir),
        )

    def files(self, facts: NodeFacts, work_dir: str) -> tuple[tuple[str, str], ...]:
        """See Runtime.files."""
        return ()

    def _program(self, facts: NodeFacts) -> Optional[str]:
        found = (facts.program(name) for name in self.programs)
        return next((path for path in found if path), None)
