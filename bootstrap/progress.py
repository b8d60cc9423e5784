"""Shows steps with their elapsed time: drawn live on a terminal, line by line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class StepProgress:
    """A line per named step. Fulfils bootstrap.binaries.Reporter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def step(self, name: str, text: str) -> None:
        """Say what is being done for ``name``."""
        self._finished.discard(name)
        self._started.setdefault(name, time.monotonic())
        if self._live:
            task = self._task(name)
            self._progress.update(task, description=_escape(text), total=None, completed=0)
        elif text.split(":")[0] != self._last.get(name):
            self._last[name] = text.split(":")[0]
            self._print(name, text)

    def done(self, name: str, text: str) -> None:
        """Say that ``name`` is finished; again only after another step."""
        if name in self._finished:
            return
        self._finished.add(name)
        self._started.setdefault(name, time.monotonic())
        if self._live:
            task = self._task(name)
            self._progress.update(task, description=_escape(text), total=1, completed=1)
        else:
            self._print(name, f"done: {text}")

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("", total=None, name=name)
        return self._tasks[name]

    def _print(self, name: str, text: str) -> None:
        elapsed_s = time.monotonic() - self._started[name]
        line = f"{name:<24} {elapsed_s:6.1f} s  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
