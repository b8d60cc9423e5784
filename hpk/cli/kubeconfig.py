"""``hpk kubeconfig``: where the credentials are, or put them where kubectl looks by itself."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bootstrap.kubeconfig import merged, read_kubeconfig, write_kubeconfig
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths


@click.command()
@click.option("--merge", is_flag=True, help="Add the context to FILE instead of printing the path.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def kubeconfig(merge: bool, file: Path | None) -> None:
    """Print the kubeconfig's path, or merge it into FILE (default: $KUBECONFIG, ~/.kube/config)."""
    paths = HpkPaths.from_environment()
    if not paths.kubeconfig.exists():
        raise PermanentError(
            f"there is no {paths.kubeconfig} yet: it comes when the control plane can be used",
            remedy="hpk up, or hpk status --wait where it has been started",
        )
    if not merge:
        click.echo(str(paths.kubeconfig))
        return
    ours = read_kubeconfig(paths.kubeconfig)
    first = (os.environ.get("KUBECONFIG") or "").split(os.pathsep)[0]
    target = file or Path(first or Path("~/.kube/config").expanduser())
    if target.resolve() == paths.kubeconfig.resolve():
        click.echo(f"{target} is the control plane's own kubeconfig already.")
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_kubeconfig(target, merged(read_kubeconfig(target), ours))
    click.echo(f"Next: kubectl --context {ours['current-context']} get nodes")
