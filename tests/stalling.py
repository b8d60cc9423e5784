"""A file system that can be made to hang, as a hard mount does whose server is gone: a real FUSE
mount whose server is stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.supervisor_bench import wait_until


def can_stall() -> bool:
    """Whether this machine lets us have one."""
    has_programs = shutil.which("fuse-overlayfs") and shutil.which("umount")
    return bool(has_programs) and os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


@dataclass
class StallingMount:
    """Mounted at ``path``."""

    path: Path
    server: subprocess.Popen[bytes]

    def stall(self) -> None:
        """From here on whoever touches it hangs."""
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The server is back."""
        self.server.send_signal(signal.SIGCONT)


@contextmanager
def stalling_mount(directory: Path) -> Iterator[StallingMount]:
    """A mount below ``directory``, gone in the end."""
    parts = {name: directory / f"stalling-{name}" for name in ("lower", "upper", "work", "mount")}
    for part in parts.values():
        part.mkdir()
    options = ",".join(f"{name}dir={parts[name]}" for name in ("lower", "upper", "work"))
    argv = ["fuse-overlayfs", "-f", "-o", options, str(parts["mount"])]
    with subprocess.Popen(argv) as server:
        try:
            wait_until(parts["mount"].is_mount)
            yield StallingMount(parts["mount"], server)
        finally:
            server.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "--lazy", str(parts["mount"])], check=True)
            server.kill()
