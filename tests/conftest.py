"""The lab of the tests that need one: brought up once in each process that runs tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import hypothesis
import pytest
from xdist.workermanage import WorkerController

from bootstrap.lab import control, registry, software
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from hpk.statefs import HpkPaths
from tests.labs import LAB, MAY_BE_KEPT, Silent, take_down_all_of

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

_UNFINISHED = pytest.StashKey[set[str]]()
"""Workers that have not said yet that they are through."""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The lab, up, with this checkout installed and its images in the registry."""
    was_up = MAY_BE_KEPT and control.find(LAB).init_pid(LOGIN) is not None
    if not MAY_BE_KEPT:
        asyncio.run(control.down(LAB))  # what a run that was killed has left
    try:
        asyncio.run(control.up(LAB, None, Silent()))
        made = control.find(LAB)
        if was_up:
            asyncio.run(software.install(made.lab))
        asyncio.run(registry.ensure_images(made, HpkPaths.from_environment().cache, Silent()))
        yield made
    finally:
        if not was_up:
            asyncio.run(control.down(LAB))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_UNFINISHED] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.config.stash[_UNFINISHED].add(node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController, error: object | None) -> None:
    if error is None and hasattr(node, "workeroutput"):
        node.config.stash[_UNFINISHED].discard(node.gateway.id)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker that died, or was ended in the middle of a test, has not cleared up."""
    for worker in config.stash[_UNFINISHED]:
        take_down_all_of(worker)
