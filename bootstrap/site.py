"""The facts of one host and home that the control plane is made of, and where its files lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.host import Ports
from bootstrap.pki import Pki
from hpk.config.schema import ControlPlaneConfig
from hpk.statefs import HpkPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything that the components and their files depend on.

    :param programs: paths of upstream's programs by name.
    :param python: runs our own components.
    :param environment: what every component gets, nothing of a surrounding job's.
    :param cpus: of this host, usable by us.
    """

    paths: HpkPaths
    address: str
    ports: Ports
    config: ControlPlaneConfig
    programs: Mapping[str, Path]
    python: str
    environment: Mapping[str, str]
    cpus: int
    etcd_data: Path

    @property
    def pki(self) -> Pki:
        """Keys and certificates."""
        return Pki(root=self.paths.pki)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.address}:{self.ports.api}"

    def kubeconfig(self, client: str) -> Path:
        """The credentials of one component."""
        return self.paths.control_plane / f"{client}.kubeconfig"

    @property
    def scheduler_config(self) -> Path:
        """Where the scheduler's configuration lies."""
        return self.paths.control_plane / "scheduler.json"

    @property
    def corefile(self) -> Path:
        """Where CoreDNS' configuration lies."""
        return self.paths.control_plane / "Corefile"
