"""``hpk top``: one live screen of nodes, Pods and jobs."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from bootstrap.binaries import Places, find
from bootstrap.components import PROGRAMS
from bootstrap.host import free_port
from hpk.model.errors import PermanentError
from hpk.report.cluster import Cluster
from hpk.report.top import HomeSource
from hpk.screen.app import Shown, Top
from hpk.screen.browser import TopServer
from hpk.statefs import HpkPaths


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option(
    "--interval",
    type=click.FloatRange(min=1),
    default=3,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between two looks.",
)
@click.option("--browser", is_flag=True, help="Serve the screen to a browser, on 127.0.0.1.")
def top(all_namespaces: bool, namespace: str, interval: float, browser: bool) -> None:
    """Watch nodes, and Pods with their jobs: queue, time left, what is used, what it costs."""
    paths = HpkPaths.from_environment()
    Cluster(paths)  # says at once where there is none
    if browser:
        which = ["-A"] if all_namespaces else ["-n", namespace]
        argv = [sys.executable, "-m", "hpk.cli.main", "top", *which, "--interval", str(interval)]
        TopServer(argv, free_port("127.0.0.1"), click.echo).serve()
        return
    if not sys.stdout.isatty() and "TEXTUAL_DRIVER" not in os.environ:
        raise PermanentError("hpk top needs a terminal", remedy="hpk ps -A, or hpk top --browser")
    found = asyncio.run(find(Places.of(paths), PROGRAMS["kubectl"]))
    kubectl = () if found is None else (str(found.path), f"--kubeconfig={paths.kubeconfig}")
    shown = Shown(
        source=HomeSource(paths, None if all_namespaces else namespace),
        everywhere=all_namespaces,
        interval_s=interval,
        kubectl=kubectl,
    )
    Top(shown).run()
