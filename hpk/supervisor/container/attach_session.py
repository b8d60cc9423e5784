"""Somebody who joins the program of a container: `kubectl attach`, `kubectl run -it`."""

from __future__ import annotations

import os
from typing import Callable, Optional

from hpk.model.frames import AttachOpen, StreamClosed, StreamError, TerminalSize
from hpk.model.stream_frames import STDERR, STDIN, STDOUT
from hpk.supervisor.base.streams import StreamTable
from hpk.supervisor.container.ends import to_nobody
from hpk.supervisor.container.fan_out import Reader, Tap
from hpk.supervisor.container.program_io import ProgramIo

_TOO_SLOW = "the container has written faster than this attach was read; its log has all of it"


class AttachSession:
    """See the module's docstring; a hpk.supervisor.base.streams.Session.

    As upstream's runtimes have it, who has nothing more to type has left, unless the container's
    input ends with that (``stdinOnce``): then he sees what it still has to say.

    :param on_end: called once, when the last word is said.
    """

    def __init__(
        self, frame: AttachOpen, table: StreamTable, program: ProgramIo, on_end: Callable[[], None]
    ) -> None:
        self._frame = frame
        self._table = table
        self._program = program
        self._on_end = on_end
        self._reader: Optional[Reader] = None
        self._leaves_with_input = False
        self._is_over = False

    def begin(self) -> None:
        """Join it."""
        frame, program = self._frame, self._program
        outputs: dict[int, int] = {}
        inputs: dict[int, int] = {}
        taps: dict[str, Tap] = {}
        try:
            for channel, stream in self._asked():
                outputs[channel], write = os.pipe2(os.O_CLOEXEC)
                taps[stream] = _tap(write)
            given = program.take_input() if frame.stdin else None
            if frame.stdin:
                inputs[STDIN] = to_nobody() if given is None else given
        except OSError as error:  # no more descriptors, or threads: for now
            self._give_up(outputs, taps, f"cannot attach: {error}")
            return
        if frame.size is not None:
            program.resize(frame.size)
        self._leaves_with_input = given is not None and not program.ends_with_reader
        self._reader = Reader(taps, is_waited_for=given is not None, on_end=self._on_output_end)
        program.output.fan_out.add(self._reader)
        self._table.carry(frame.id, outputs=outputs, inputs=inputs, on_input_end=self._on_input_end)

    def _asked(self) -> list[tuple[int, str]]:
        asked = [(STDOUT, "stdout")] if self._frame.stdout else []
        if self._frame.stderr and not self._program.is_terminal:
            asked.append((STDERR, "stderr"))
        return asked

    def _give_up(self, outputs: dict[int, int], taps: dict[str, Tap], why: str) -> None:
        for tap in taps.values():
            tap.end()
        for fd in outputs.values():
            os.close(fd)
        frame_id = self._frame.id
        self._finish(StreamClosed(frame_id, error=StreamError.NOT_STARTED, message=why))

    def resize(self, size: TerminalSize) -> None:
        """See Session.resize."""
        self._program.resize(size)

    def hang_up(self) -> None:
        """See Session.hang_up."""
        self._leave()

    def _on_input_end(self) -> None:
        if self._leaves_with_input:
            self._leave()

    def end(self, *, lost: str = "") -> None:
        """The container has ended.

        :param lost: unused; its output has an end all the same.
        """
        self._leave()

    def _leave(self) -> None:
        if self._reader is not None and not self._is_over:
            self._program.output.fan_out.remove(self._reader)
            self._reader.leave()

    def _on_output_end(self, is_cut_off: bool) -> None:
        if is_cut_off:
            closed = StreamClosed(self._frame.id, error=StreamError.LOST, message=_TOO_SLOW)
        else:
            closed = StreamClosed(self._frame.id)
        self._finish(closed, cut=is_cut_off)

    def _finish(self, closed: StreamClosed, *, cut: bool = False) -> None:
        if not self._is_over:
            self._is_over = True
            self._table.finish(closed, cut=cut)
            self._on_end()


def _tap(fd: int) -> Tap:
    try:
        return Tap(fd)
    except RuntimeError as error:
        os.close(fd)
        raise OSError(str(error)) from error
