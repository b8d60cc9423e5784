"""Watches the Pods from the outside while things go wrong, as often as the API server answers."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from tests.chaos.world import World

_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A Pod as it was seen last."""

    uid: str
    name: str
    phase: str
    reason: str
    message: str
    never_restarts: bool


class Observer:
    """Remembers the last of each Pod."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.pods: dict[str, Seen] = {}

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def look(self) -> bool:
        """Look once; False where the API server does not answer."""
        argv = ["kubectl", "-n", self._world.cluster.namespace, "get", "pods", "-o", "json"]
        done = self._world.user([*argv, "--request-timeout=20s"])
        try:
            items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        except (ValueError, KeyError):
            return False
        for item in items:
            status = item.get("status") or {}
            seen = Seen(
                uid=item["metadata"]["uid"],
                name=item["metadata"]["name"],
                phase=status.get("phase", ""),
                reason=status.get("reason", ""),
                message=status.get("message", ""),
                never_restarts=item["spec"]["restartPolicy"] == "Never",
            )
            self.pods[seen.uid] = seen
        return True

    def _run(self) -> None:
        while not self._end.wait(_PAUSE_S):
            self.look()
