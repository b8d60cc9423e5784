"""What podinit is told where a program cannot even be forked."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpk.model.frames import TerminalSize
from hpk.supervisor.process.enter import OnHost
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.programs import start_program


class Gone(OnHost):
    """A container whose process 1 has ended."""

    def fork(self, run: Run) -> int:
        raise ProcessLookupError("the container has ended")


def _open() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("terminal", [None, TerminalSize(80, 24)])
def test_what_cannot_be_forked_is_an_os_error_and_leaves_nothing_open(
    terminal: TerminalSize | None,
) -> None:
    """Anything else would end podinit, and with it every container of the pod."""
    before = _open()
    run = Run(1, 1, ("true",), (), "/", terminal=terminal)
    with pytest.raises(ProcessLookupError):
        start_program(run, Gone(), ())
    assert _open() == before
