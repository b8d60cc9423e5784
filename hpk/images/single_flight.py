"""Several who want the same thing at once share one attempt at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hpk.model.errors import TransientError

T = TypeVar("T")


class FlightEndedError(TransientError):
    """The attempt was ended by `close`."""


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class SingleFlight(Generic[T]):
    """Attempts by key. An attempt nobody waits for any more is cancelled."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def do(self, key: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the attempt under way for this key, or of a new one.

        :raises FlightEndedError: `close` was called meanwhile.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.create_task(attempt(), name=f"flight {key}"))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting += 1
        try:
            # The shield keeps one caller's cancellation from the others.
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if flight.task.cancelled() and not (caller and caller.cancelling()):
                raise FlightEndedError("the attempt was ended before it was done") from error
            raise
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                self._forget(key, flight.task)
                flight.task.cancel()

    async def close(self) -> None:
        """Cancel every attempt and wait for their ends."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            task.exception()  # seen: whoever waits gets it, and perhaps nobody waits any more

    def _forget(self, key: str, task: asyncio.Task[T]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
