"""The last word on an exec or attach: a metav1.Status, and what of it older protocols carry.

Source: k8s.io/cri-streaming, pkg/streaming/remotecommand, status.go and exec.go.
"""

from __future__ import annotations

import json
from typing import Any

_MOST_CHARACTERS = 4096
"""Of a message: it comes from a job."""

SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


def exit_status(command: tuple[str, ...], exit_code: int) -> dict[str, Any]:
    """The Status of a program that has ended."""
    if exit_code == 0:
        return SUCCESS
    shown = " ".join(command)
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": _bounded(
            "command terminated with non-zero exit code: error executing command"
            f" [{shown}], exit code {exit_code}"
        ),
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


def internal_error(message: str) -> dict[str, Any]:
    """The Status of what could not be done."""
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": _bounded(f"Internal error occurred: {message}"),
        "code": 500,
    }


def status_bytes(status: dict[str, Any], *, as_text: bool) -> bytes:
    """What goes on the error stream.

    :param as_text: protocols before the fourth: the message, nothing for a success.
    """
    if as_text:
        return str(status.get("message", "")).encode()
    return json.dumps(status).encode()


def _bounded(message: str) -> str:
    return message if len(message) <= _MOST_CHARACTERS else message[:_MOST_CHARACTERS] + "…"
