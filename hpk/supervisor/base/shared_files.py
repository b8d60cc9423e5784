"""The one door to the shared file system: a thread that may hang there, and nothing of the pod's
with it.

A hard mount whose server is gone stops whoever opens, writes or merely looks, for as long as it
takes: a minute of failover, a night. So the supervisor's loop and its other threads never do, but
ask here. What is under way cannot be taken back; what waits behind it is bounded, for the latest
work of a kind replaces the one before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Generic, Optional, TypeVar

from hpk.supervisor.base.job_log import log

T = TypeVar("T")


class _Question(Generic[T]):
    """Work whose result somebody waits for, until its time is over."""

    def __init__(self, work: Callable[[], T], timeout_s: float) -> None:
        self._work = work
        self.until_mono_s = time.monotonic() + timeout_s
        self.result: Optional[T] = None
        self.error: Optional[BaseException] = None
        self.is_answered = False

    def do(self) -> None:
        """The work; any error is the result."""
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error


class SharedFiles:
    """See the module's docstring.

    :param post: has something done on the loop's thread.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._changed = threading.Condition()
        self._waiting: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._is_busy = False
        self._asked: dict[object, tuple[_Question[Any], Callable[[], None]]] = {}
        self._thread: Optional[threading.Thread] = None

    def put(self, kind: object, work: Callable[[], None]) -> None:
        """Do this in its turn; it must not raise. From any thread.

        :param kind: what waits and is of the same kind is not done.
        """
        with self._changed:
            self._waiting[kind] = work
            self._changed.notify_all()
            if self._thread is None:  # not earlier: the owner may have to fork before
                self._thread = threading.Thread(target=self._run, name="shared files", daemon=True)
                self._thread.start()

    def wait(self, work: Callable[[], T], timeout_s: float) -> T:
        """The result. From any thread but the loop's.

        :raises TimeoutError: there is none yet; besides, whatever ``work`` raises.
        """
        question: _Question[T] = _Question(work, timeout_s)

        def answer() -> None:
            question.do()
            with self._changed:
                question.is_answered = True
                self._changed.notify_all()

        self.put(question, answer)
        with self._changed:
            if not self._changed.wait_for(lambda: question.is_answered, timeout_s):
                self._waiting.pop(question, None)
                raise TimeoutError("the shared file system does not answer")
        if question.error is not None:
            raise question.error
        return question.result  # type: ignore[return-value]  # T may be Optional itself

    def ask(
        self, work: Callable[[], T], then: Callable[[T], None], *, instead: T, timeout_s: float
    ) -> None:
        """Do this in its turn, then tell the loop. From the loop's thread.

        :param instead: what it is told where the work raises OSError or takes too long.
        """
        question: _Question[T] = _Question(work, timeout_s)

        def tell() -> None:
            if self._asked.pop(question, None) is not None:
                failed = question.error is not None or not question.is_answered
                then(instead if failed else question.result)  # type: ignore[arg-type]

        def answer() -> None:
            question.do()
            question.is_answered = True
            self._post(tell)

        self._asked[question] = question, tell
        self.put(question, answer)

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        return min((item.until_mono_s for item, _ in self._asked.values()), default=None)

    def tick(self) -> None:
        """Give up on what has taken too long. From the loop's thread."""
        now = time.monotonic()
        for question, tell in list(self._asked.values()):
            if now >= question.until_mono_s:
                with self._changed:
                    self._waiting.pop(question, None)
                tell()

    def finish(self, timeout_s: float) -> bool:
        """Whether all is done within the time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._is_busy, timeout_s
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                _, work = self._waiting.popitem(last=False)
                self._is_busy = True
            try:
                work()
            except Exception as error:  # of this work: nobody but this thread does the next
                log("work on the shared file system failed", error=repr(error))
