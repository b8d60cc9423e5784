"""A real API server with its etcd and nothing else, for tests of what it does by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bootstrap import plan, rbac, readiness
from bootstrap.api import TlsClient
from bootstrap.binaries import ensure_all
from bootstrap.host import Identity
from bootstrap.prepare import prepare
from bootstrap.runner import Runner
from bootstrap.state import ControlPlaneState, Phase, StatePublisher
from bootstrap.tenure import Silent
from hpk.config.schema import BinariesConfig, ControlPlaneConfig
from hpk.durable import private_directory
from hpk.statefs import HpkPaths


@contextlib.asynccontextmanager
async def api_server(directory: Path) -> AsyncIterator[TlsClient]:
    """Its administrator, once it is ready. The programs are those that set-up brought."""
    paths = HpkPaths(home=directory / "home", cache=HpkPaths.from_environment().cache)
    stored = await ensure_all(paths, BinariesConfig(), Silent())
    private_directory(paths.home)
    programs = {name: one.path for name, one in stored.items()}
    site = prepare(paths, ControlPlaneConfig(), programs)
    publisher = StatePublisher(
        paths,
        ControlPlaneState(
            generation=1,
            identity=Identity.here(),
            phase=Phase.STARTING,
            message="",
            address="",
            components=(),
        ),
    )
    checks = readiness.checks(site)
    runners = [
        Runner(one, "", paths.logs / f"{one.name}.log", checks.get(one.name), publisher)
        for one in plan.components(site)[:2]
    ]
    try:
        for runner in runners:
            runner.begin()
            await runner.wait_ready(300)
        client = readiness.api_client(site)
        for path, manifest in rbac.MANIFESTS[:2]:
            client.apply(path, manifest)
        yield client
    finally:
        for runner in reversed(runners):
            await runner.stop()
