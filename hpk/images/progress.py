"""What is being done about an image, told to everybody who waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Tell = Callable[[str], None]
"""Is called with each new state, in words for the Pod's status."""


class Progress:
    """States of the attempts under way, by the key of their flight."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._listening: dict[str, list[Tell]] = {}

    @contextlib.contextmanager
    def following(self, key: str, tell: Tell) -> Iterator[None]:
        """Have ``tell`` called with the present state and each later one."""
        listeners = self._listening.setdefault(key, [])
        listeners.append(tell)
        try:
            if key in self._said:
                tell(self._said[key])
            yield
        finally:
            listeners.remove(tell)
            if not listeners:
                self._listening.pop(key, None)
                self._said.pop(key, None)

    def say(self, key: str, text: str) -> None:
        """The attempt has come to this state."""
        if key not in self._listening:
            return
        self._said[key] = text
        for tell in tuple(self._listening[key]):
            tell(text)
