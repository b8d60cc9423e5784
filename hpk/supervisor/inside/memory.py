"""Whether the kernel killed something of this job for want of memory, by its cgroup's counter."""

from __future__ import annotations

import os
import re
from typing import Optional


def counter_path(cgroup_text: str, mountinfo_text: str) -> Optional[tuple[str, bool]]:
    """Directory of this process's memory cgroup, and whether it is of version 1.

    :param cgroup_text: /proc/self/cgroup; mountinfo_text: /proc/self/mountinfo.
    """
    version1 = version2 = None
    for line in cgroup_text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            version1 = path
        elif not controllers:
            version2 = path
    for line in mountinfo_text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup" and version1 is not None and "memory" in kind[2].split(","):
            return _below(version1, fields[3], fields[4]), True
    if version1 is not None:
        return None
    for line in mountinfo_text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) >= 5 and after.startswith("cgroup2 ") and version2 is not None:
            return _below(version2, fields[3], fields[4]), False
    return None


def _below(path: str, root: str, mount_point: str) -> str:
    relative = path[len(root) :] if root != "/" and path.startswith(root) else path
    return mount_point + "/" + relative.lstrip("/")


class OomCounter:
    """Counts OOM kills in the cgroup of this process and those between it and the job's.

    Slurm puts the limit on the job's or the step's cgroup, above the task's, so a kill may be
    counted at any of them.
    """

    def __init__(self) -> None:
        self._files: list[str] = []
        try:
            with open("/proc/self/cgroup") as file:
                cgroup = file.read()
            with open("/proc/self/mountinfo") as file:
                found = counter_path(cgroup, file.read())
        except OSError:
            return
        if found is None:
            return
        path, is_version1 = found
        name = "memory.oom_control" if is_version1 else "memory.events"
        while "/job_" in path:
            self._files.append(os.path.join(path, name))
            path = os.path.dirname(path)
        if not self._files:
            self._files = [os.path.join(path, name)]

    def read(self) -> int:
        """Kills so far, summed."""
        total = 0
        for path in self._files:
            try:
                with open(path) as file:
                    text = file.read()
            except OSError:
                continue
            total += sum(int(n) for n in re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE))
        return total
