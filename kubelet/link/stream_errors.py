"""What becomes of a stream that comes to nothing."""

from __future__ import annotations

from hpk.model.errors import HpkError


class StreamLostError(HpkError):
    """The way to the program is gone: its supervisor hung up, or its node."""


class StreamRefusedError(HpkError):
    """Nothing was begun: there is no such container that runs, no way to its node, no such thing
    asked for. The message is the client's."""
