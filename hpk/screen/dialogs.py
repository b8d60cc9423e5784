"""What lies over the screen for a while: a question, a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, RichLog, Static

from hpk.model.errors import HpkError


class Confirm(ModalScreen[bool]):
    """A question with yes and no."""

    CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: auto; height: auto; border: thick $error; padding: 1 2; }
    Confirm Static { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical():
            yield Static(f"{self._question}  y / n", markup=False)

    def action_answer(self, yes: bool) -> None:
        """Leave with the answer."""
        self.dismiss(yes)


class LogScreen(ModalScreen[None]):
    """The end of a log.

    :param read: brings it; blocks.
    """

    CSS = """
    LogScreen > Vertical { border: round $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "back"),
        Binding("r", "read", "read again"),
    ]

    def __init__(self, title: str, read: Callable[[], str]) -> None:
        super().__init__()
        self._title = title
        self._read = read

    def compose(self) -> ComposeResult:
        """The log, and the keys."""
        with Vertical() as box:
            box.border_title = self._title.replace("[", r"\[")
            yield RichLog(id="lines", wrap=True, markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Read it."""
        self.action_read()

    @work(thread=True, exclusive=True)
    def action_read(self) -> None:
        """Read it again."""
        try:
            text = self._read()
        except HpkError as error:
            text = f"! {error}"
        self.app.call_from_thread(self._show, text)

    def _show(self, text: str) -> None:
        lines = self.query_one("#lines", RichLog)
        lines.clear()
        lines.write(_printable(text) or "(empty)")

    def action_leave(self) -> None:
        """Back to the screen."""
        self.dismiss(None)


def _printable(text: str) -> str:
    """A log is whatever a program wrote: nothing in it may steer the terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else "·" for one in text)
