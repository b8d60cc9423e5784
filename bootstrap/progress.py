"""Shows steps with their elapsed time: drawn live on a terminal, line by line elsewhere.

Where there is no terminal, a step that takes long says so again every quarter of a minute, with
how far it has come: nobody should wonder whether a build of minutes has died.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_REMIND_S = 15.0


class StepProgress:
    """A line per named step. Fulfils bootstrap.binaries.Reporter.

    :param remind_s: how long there may be silence where there is no terminal.
    """

    def __init__(self, console: Console, *, remind_s: float = _REMIND_S) -> None:
        self._console = console
        self._live = console.is_terminal
        self._remind_s = remind_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reminder = threading.Thread(target=self._remind, daemon=True)
        self._running: dict[str, str] = {}
        self._spoke_at = time.monotonic()
        self._started: dict[str, float] = {}
        self._last: dict[str, str] = {}
        self._finished: set[str] = set()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.fields[name]:<24}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )

    def __enter__(self) -> StepProgress:
        if self._live:
            self._progress.start()
        else:
            self._reminder.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()
        else:
            self._ended.set()
            self._reminder.join()

    def step(self, name: str, text: str) -> None:
        """Say what is being done for ``name``; what follows a colon in ``text`` is a mere count."""
        with self._lock:
            self._finished.discard(name)
            self._started.setdefault(name, time.monotonic())
            # What spoke last stands last.
            self._running.pop(name, None)
            self._running[name] = text
            if self._live:
                task = self._task(name)
                self._progress.update(task, description=_escape(text), total=None, completed=0)
            elif text.split(":")[0] != self._last.get(name):
                self._last[name] = text.split(":")[0]
                self._print(name, text)

    def done(self, name: str, text: str) -> None:
        """Say that ``name`` is finished; again only after another step."""
        with self._lock:
            if name in self._finished:
                return
            self._finished.add(name)
            self._started.setdefault(name, time.monotonic())
            self._running.pop(name, None)
            if self._live:
                task = self._task(name)
                self._progress.update(task, description=_escape(text), total=1, completed=1)
            else:
                self._print(name, f"done: {text}")

    def _remind(self) -> None:
        while not self._ended.wait(self._silent_until() - time.monotonic()):
            with self._lock:
                if self._running and time.monotonic() >= self._silent_until():
                    # One step waits for another: the innermost is the one at work.
                    name = next(reversed(self._running))
                    self._print(name, self._running[name])
                elif not self._running:
                    self._spoke_at = time.monotonic()

    def _silent_until(self) -> float:
        return self._spoke_at + self._remind_s

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, name=name)
        return self._tasks[name]

    def _print(self, name: str, text: str) -> None:
        self._spoke_at = time.monotonic()
        elapsed_s = self._spoke_at - self._started[name]
        line = f"{name:<24} {elapsed_s:6.1f} s  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
