"""The error tree.

    HpkError
    ├── ParseError        something from outside is not what it must be
    ├── AdmissionError    this Pod can never run here as it is written (permanent)
    ├── TransientError    try again later: the world may change
    └── PermanentError    trying again cannot help; the remedy is the user's

Foreign exceptions are turned into these at the edge where they arise; each message names the
offending thing, and ``remedy`` says what the user can do about it.
"""

from __future__ import annotations


class HpkError(Exception):
    """An error with a remedy.

    :param message: what is wrong, naming the field, file or line.
    :param remedy: what the user can do, an imperative sentence or "".
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


class ParseError(HpkError):
    """Text or JSON from outside that does not parse; the message carries the offending part."""


class AdmissionError(HpkError):
    """A Pod that cannot run here as it is written.

    :param reason: CamelCase, becomes ``status.reason`` of the failed Pod and of its Event.
    :param field: path of the offending field, as upstream validation spells it
        (``spec.containers[0].livenessProbe``).
    """

    def __init__(self, reason: str, field: str, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{field}: {message}", remedy=remedy)
        self.reason = reason
        self.field = field


class TransientError(HpkError):
    """The operation may succeed when it is tried again."""

    def __init__(self, message: str, *, reason: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class PermanentError(HpkError):
    """The operation will fail again until somebody changes something."""

    def __init__(self, message: str, *, reason: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
