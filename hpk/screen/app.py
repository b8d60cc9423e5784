"""`hpk top`: one live screen of nodes, Pods and their jobs, and keys that act on a Pod.

The same program runs in a terminal and, by hpk.screen.browser, behind a browser's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from textual import work
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Static

from hpk import subproc
from hpk.model.errors import HpkError
from hpk.report.ps import PsRow
from hpk.report.top import Picture
from hpk.screen.cells import NODE_TITLES, POD_TITLES, memory, node_cells, pod_cells
from hpk.screen.dialogs import Confirm, LogScreen

Table = DataTable[Any]


class Source(Protocol):
    """Where the screen has it from.

    :raises HpkError: each; what is behind it does not answer, or refuses.
    """

    async def picture(self) -> Picture:
        """Everything as of now."""

    def log(self, namespace: str, pod: str) -> str:
        """The end of the logs of a Pod's containers. Blocks."""

    def delete(self, namespace: str, pod: str) -> None:
        """Delete a Pod. Blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What to show.

    :param everywhere: Pods of all namespaces.
    :param kubectl: the program and the options that lead it here; nothing where there is none.
    """

    source: Source
    everywhere: bool
    interval_s: float
    kubectl: tuple[str, ...]


class Top(App[None]):
    """The screen."""

    TITLE = "hpk top"
    CSS = """
    #summary { height: 1; padding: 0 1; background: $panel; }
    #nodes { height: auto; max-height: 30%; }
    #pods { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "log", "logs"),
        Binding("e", "exec", "exec"),
        Binding("d", "delete", "delete"),
        Binding("r", "refresh", "refresh"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown
        self._picture = Picture(nodes=(), pods=())

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static("reading …", id="summary", markup=False)
        yield DataTable(id="nodes", cursor_type="none")
        yield DataTable(id="pods", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Columns, and the first look."""
        self._table("nodes").add_columns(*NODE_TITLES)
        pods = self._table("pods")
        pods.add_columns(*POD_TITLES)
        pods.focus()
        self._look_on()

    @work(exclusive=True, group="look")
    async def _look_on(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._shown.interval_s)

    async def _look(self) -> None:
        try:
            self._picture = await self._shown.source.picture()
        except HpkError as error:
            self.query_one("#summary", Static).update(f"! {error}")
            return
        self._draw()

    def _draw(self) -> None:
        picture = self._picture
        _fill(self._table("nodes"), {row.name: node_cells(row) for row in picture.nodes})
        used, everywhere = picture.usage, self._shown.everywhere
        pods = {
            f"{row.namespace}/{row.pod}": pod_cells(
                row, used.get((row.namespace, row.pod)), with_namespace=everywhere
            )
            for row in picture.pods
        }
        _fill(self._table("pods"), pods)
        self.query_one("#summary", Static).update(_summary(picture))

    def _table(self, name: str) -> Table:
        return self.query_one(f"#{name}", DataTable)

    @property
    def _chosen(self) -> PsRow | None:
        table = self._table("pods")
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value
        return next((r for r in self._picture.pods if f"{r.namespace}/{r.pod}" == key), None)

    def action_refresh(self) -> None:
        """Look now."""
        self._look_on()

    def action_log(self) -> None:
        """Show the end of the log."""
        if (row := self._chosen) is not None:
            source = self._shown.source
            self.push_screen(
                LogScreen(f"{row.namespace}/{row.pod}", lambda: source.log(row.namespace, row.pod))
            )

    def action_delete(self) -> None:
        """Delete the Pod, once that is confirmed."""
        row = self._chosen
        if row is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._delete(row)

        self.push_screen(Confirm(f"Delete Pod {row.namespace}/{row.pod}?"), answered)

    @work(thread=True)
    def _delete(self, row: PsRow) -> None:
        try:
            self._shown.source.delete(row.namespace, row.pod)
        except HpkError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.call_from_thread(self._look_on)

    async def action_exec(self) -> None:
        """A shell in the Pod, in this terminal."""
        row = self._chosen
        if row is None:
            return
        if not self._shown.kubectl:
            self.notify("no kubectl: hpk setup binaries brings it", severity="error")
            return
        what = ("exec", "-it", "-n", row.namespace, row.pod, "--", "sh")
        try:
            with self.suspend():
                await subproc.run_in_terminal([*self._shown.kubectl, *what])
        except SuspendNotSupported:
            self.notify("exec needs a terminal: kubectl exec -it", severity="warning")
        except HpkError as error:
            self.notify(str(error), severity="error", markup=False)


def _fill(table: Table, rows: dict[str, tuple[str, ...]]) -> None:
    """Make the table show these rows, by key, and leave the cursor on its Pod."""
    at = table.cursor_row
    shown = [key.value for key in table.rows]
    if shown == list(rows):
        for row, cells in enumerate(rows.values()):
            for column, text in enumerate(cells):
                if table.get_cell_at(Coordinate(row, column)) != text:
                    table.update_cell_at(Coordinate(row, column), text, update_width=True)
        return
    chosen = shown[at] if at < len(shown) else None
    table.clear()
    for key, cells in rows.items():
        table.add_row(*cells, key=key)
    keys = list(rows)
    if keys:
        table.move_cursor(row=keys.index(chosen) if chosen in rows else min(at, len(keys) - 1))


def _summary(picture: Picture) -> str:
    states: dict[str, int] = {}
    for row in picture.pods:
        states[row.status] = states.get(row.status, 0) + 1
    said = ", ".join(f"{count} {status}" for status, count in sorted(states.items()))
    used = picture.usage.values()
    parts = [time.strftime("%H:%M:%S"), said or "no Pods"]
    if picture.usage:
        cpus, bytes_ = sum(one.cpus for one in used), sum(one.memory_bytes for one in used)
        parts.append(f"in use: {cpus:.1f} CPUs, {memory(bytes_)}")
    parts.append(f"cost so far: {picture.cpu_hours:.2f} CPU-hours")
    if picture.gpu_hours:
        parts.append(f"{picture.gpu_hours:.2f} GPU-hours")
    return " · ".join(parts)
