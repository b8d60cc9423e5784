"""All containers of the pod, in the order they begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError
from hpk.model.plan import ContainerPlan, PodPlan, RestartPolicy
from hpk.model.record import ContainerRecord
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop, Step
from hpk.supervisor.container.container import Container
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.pod import sequence

NO_MORE = 2**63
"""Beyond any offset in a log."""


class PodContainers:
    """See the module's docstring; what order is right is hpk.supervisor.pod.sequence's to say."""

    def __init__(self, plan: PodPlan, pod: PodContext, loop: Loop) -> None:
        self._loop = loop
        self._pod = pod
        self._here: Optional[Bundle] = None
        self._ephemeral: list[Container] = []
        self._init = [
            Container(
                item,
                sequence.init_restart_policy(item, plan.restart_policy),
                pod,
                loop,
                is_init=True,
            )
            for item in plan.init_containers
        ]
        self._regular = [
            Container(item, plan.restart_policy, pod, loop) for item in plan.containers
        ]
        self._init_failed = False
        self.is_leaving = False
        """Only sidecars and ephemeral ones are left, and they are told to end."""

    def __iter__(self) -> Iterator[Container]:
        """Each, in the order they begin."""
        return iter(self._init + self._regular + self._ephemeral)

    @property
    def init_records(self) -> tuple[ContainerRecord, ...]:
        """Of the init containers and sidecars."""
        return tuple(container.record for container in self._init)

    @property
    def records(self) -> tuple[ContainerRecord, ...]:
        """Of the regular ones."""
        return tuple(container.record for container in self._regular)

    @property
    def ephemeral_records(self) -> tuple[ContainerRecord, ...]:
        """Of those that were added."""
        return tuple(container.record for container in self._ephemeral)

    @property
    def is_over(self) -> bool:
        """Whether all have ended and none starts again."""
        return all(container.is_done for container in self)

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When one of them wants to be called."""
        times = (container.wake_mono_s for container in self)
        return min((item for item in times if item is not None), default=None)

    @property
    def exit_code(self) -> int:
        """The first that is not 0; what sidecars and ephemeral ones end with does not count."""
        all_but_ephemeral = self._init + self._regular
        decisive = (c.exit_code for c in all_but_ephemeral if not c.plan.restart_always)
        return next((code for code in decisive if code), 0)

    def is_any(self, step: Step) -> bool:
        """Whether one of them is there."""
        return any(container.step is step for container in self)

    def begin_next(self) -> None:
        """Begin those whose turn it is."""
        while not self._init_failed:
            views = [_view(container) for container in self._init]
            turn, index = sequence.next_turn(views)
            if turn is sequence.Turn.INIT:
                self._init[index].begin()
                self._loop.changed()
                continue
            if turn is sequence.Turn.FAILED:
                log("an init container has failed", container=self._init[index].plan.name)
                self._init_failed = True
                for container in self._regular:
                    container.stop()
            waiting = [c for c in self._regular if c.step is Step.WAITING]
            if turn is sequence.Turn.MAIN and waiting:
                for container in waiting:
                    container.begin()
                self._loop.changed()
            return

    def add(self, plans: Sequence[ContainerPlan]) -> None:
        """Begin ephemeral containers, but for those that are there.

        As upstream has it they wait for no init container, which may be what is looked for, and
        never start again.
        """
        for plan in plans:
            if any(container.plan.name == plan.name for container in self):
                continue
            log("an ephemeral container was added", container=plan.name)
            container = Container(plan, RestartPolicy.NEVER, self._pod, self._loop)
            self._ephemeral = [*self._ephemeral, container]
            if self._here is not None and _serves(self._here, plan):
                container.give_bundle(self._here)
            container.begin()
            self._loop.changed()

    def leave(self) -> bool:
        """Stop the ephemeral ones, and the sidecars, the last first, once all others have ended.

        :returns: whether that begins now.
        """
        if any(not container.is_done for container in self._regular):
            return False
        beside = self._init + self._ephemeral
        if all(container.is_done for container in beside):
            return False
        begins = not self.is_leaving
        if begins:
            self.is_leaving = True
            for container in beside:
                container.pod_stops(with_hook=True)
        for container in self._ephemeral:
            container.stop()
        for container in reversed(self._init):
            container.stop()
            if not container.is_done:
                break
        return begins

    def stop(self, *, with_hook: bool) -> None:
        """The pod is to end: all but the sidecars are told now.

        :param with_hook: there is time for preStop hooks.
        """
        for container in self:
            container.pod_stops(with_hook=with_hook)
        for container in self:
            if not container.plan.restart_always:
                container.stop()

    def kill(self, *, at_once: bool) -> None:
        """The grace period is over; see hpk.supervisor.container.stopping."""
        for container in self:
            container.stop()
            container.kill(at_once=at_once)

    def lost(self, *, is_host: bool) -> None:
        """A podinit is gone: the MPI launchers', or that of all others."""
        for container in self:
            if (container.plan.mpi is not None) == is_host:
                container.lost()

    def give_bundle(self, bundle: Bundle, here: Bundle) -> None:
        """What containers read.

        :param here: what those on this node get; ranks run on other nodes, too.
        """
        self._here = here
        for container in self:
            if _serves(here, container.plan):
                container.give_bundle(here if container.plan.mpi is None else bundle)

    def log_end(self, path: str) -> int:
        """Up to where `read_log` has something to say to a reader who waits; NO_MORE where it has
        in any case. From any thread."""
        for container in self:
            writer = container.writer(path)
            if writer is not None:
                return NO_MORE if writer.closed else writer.end
        return NO_MORE

    def read_log(self, path: str, offset: int, limit: int) -> tuple[int, bytes, bool]:
        """Where the data begin, the data, and whether nothing can follow. From any thread.

        :raises ParseError: it is no log of this pod.
        """
        for container in self:
            writer = container.writer(path)
            if writer is not None:
                closed = writer.closed  # before reading: nothing can follow what is read after it
                offset, data = writer.read(offset, limit)
                return offset, data, closed and offset + len(data) >= writer.end
        raise ParseError(f"{path!r} is no log of this pod")


def _serves(bundle: Bundle, plan: ContainerPlan) -> bool:
    """Whether it has what the container needs: one made before the container was added has not."""
    return not plan.late or any(item.name == plan.name for item in bundle.containers)


def _view(container: Container) -> sequence.InitView:
    return sequence.InitView(
        is_sidecar=container.plan.restart_always,
        begun=container.step is not Step.WAITING,
        started=container.has_started,
        done=container.is_done,
        failed=container.is_done and container.exit_code != 0,
    )
