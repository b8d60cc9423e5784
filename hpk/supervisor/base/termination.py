"""What a container's end looks like in its record.

Source: kubernetes pkg/kubelet/container/runtime.go (the limits), kuberuntime_container.go,
status/status_manager.go (normalizeStatus).
"""

from __future__ import annotations

import os
from typing import Optional

from hpk.model.record import ContainerPhase, ContainerState

MAX_MESSAGE_BYTES = 4096
MAX_POD_MESSAGE_BYTES = 12 * 1024
MAX_LOG_MESSAGE_BYTES = 2048
MAX_LOG_MESSAGE_LINES = 80
START_ERROR_CODE = 128
FALLBACK_TO_LOGS = "FallbackToLogsOnError"


def exit_code_of(status: int) -> tuple[int, int]:
    """(exit code as a shell reports it, signal or 0) of a waitpid status."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0


def ended(
    status: int, *, message: str, oom: bool, started_at_s: Optional[float], finished_at_s: float
) -> ContainerState:
    """The state of a container whose process ended."""
    code, signal = exit_code_of(status)
    reason = "OOMKilled" if oom and code else ("Completed" if code == 0 else "Error")
    return ContainerState(
        phase=ContainerPhase.TERMINATED,
        reason=reason,
        message=message,
        exit_code=code,
        signal=signal,
        started_at_s=started_at_s,
        finished_at_s=finished_at_s,
    )


def not_started(name: str, why: str, at_s: float) -> ContainerState:
    """The state of a container that could not be started, in containerd's words."""
    return ContainerState(
        phase=ContainerPhase.TERMINATED,
        reason="StartError",
        message=f'failed to start container "{name}": {why}'[:MAX_MESSAGE_BYTES],
        exit_code=START_ERROR_CODE,
        started_at_s=None,
        finished_at_s=at_s,
    )


def overtaken(why: str, *, started_at_s: Optional[float], at_s: float) -> ContainerState:
    """The state of a container whose end nobody could watch any more."""
    return ContainerState(
        phase=ContainerPhase.TERMINATED,
        reason="ContainerStatusUnknown",
        message=why[:MAX_MESSAGE_BYTES],
        exit_code=137,
        started_at_s=started_at_s,
        finished_at_s=at_s,
    )


def never_ran(at_s: float) -> ContainerState:
    """The state of a container whose pod ended before it began."""
    return ContainerState(
        phase=ContainerPhase.TERMINATED,
        reason="ContainerStatusUnknown",
        message="The pod was stopped before the container was started",
        exit_code=137,
        finished_at_s=at_s,
    )


def bytes_for_each(containers: int) -> int:
    """How long a termination message may be where a pod has so many containers."""
    return min(MAX_MESSAGE_BYTES, MAX_POD_MESSAGE_BYTES // max(1, containers))


def cut(text: str, limit: int) -> str:
    """Its first ``limit`` bytes; no character is cut in two."""
    return text.encode()[:limit].decode(errors="ignore")


def read_message(path: str) -> str:
    """The termination message the container left in its file."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def message_from_log(tail: bytes) -> str:
    """The end of a CRI log as a termination message."""
    texts: list[bytes] = []
    start = True
    for line in tail.split(b"\n"):  # splitlines would split at \r too
        fields = line.split(b" ", 3)
        if len(fields) != 4:
            continue
        if start or not texts:
            texts.append(fields[3])
        else:
            texts[-1] += fields[3]
        start = fields[2] == b"F"
    text = b"\n".join(texts[-MAX_LOG_MESSAGE_LINES:])
    if texts and start:
        text += b"\n"
    return text[-MAX_LOG_MESSAGE_BYTES:].decode(errors="replace")
