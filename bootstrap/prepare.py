"""Everything that must lie on the disk before the first component starts. Takes the lock as held.

Steps: directories, address and ports, certificates, credentials, configuration files.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap import configuration, encryption, host, identities, pki
from bootstrap.kubeconfig import kubeconfig, write_kubeconfig
from bootstrap.site import Site
from hpk import subproc
from hpk.config.load import SITE_VARIABLE
from hpk.config.schema import ControlPlaneConfig
from hpk.durable import private_directory, write_atomically
from hpk.model import codec
from hpk.statefs import HpkPaths

_KEPT = (
    *("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE"),
    SITE_VARIABLE,
)


def component_environment() -> dict[str, str]:
    """What every component gets, whatever surrounds us: nothing of a Slurm job's."""
    return subproc.base_environment(
        {name: os.environ[name] for name in _KEPT if name in os.environ}
    )


def prepare(paths: HpkPaths, config: ControlPlaneConfig, programs: Mapping[str, Path]) -> Site:
    """Write all files; returns the facts that the components depend on. Blocks.

    :raises PermanentError: an address, a port, or a place for etcd's data cannot be had.
    """
    for directory in (paths.home, paths.control_plane, paths.kubelet, paths.logs, paths.pods):
        private_directory(directory)
    address = host.find_address(config.address)
    etcd_data = Path(config.etcd_data) if config.etcd_data else paths.control_plane / "etcd"
    host.probe_data_directory(etcd_data)
    site = Site(
        paths=paths,
        address=address,
        ports=host.choose_ports(paths.control_plane / "ports.json", address),
        config=config,
        programs=programs,
        python=sys.executable,
        environment=component_environment(),
        cpus=len(os.sched_getaffinity(0)),
        etcd_data=etcd_data,
    )
    pki.ensure(
        site.pki,
        identities.leaves(
            address=address,
            hostname=socket.gethostname(),
            service_cidr=config.service_cidr,
            cluster_domain=config.cluster_domain,
        ),
    )
    encryption.ensure(site.pki.encryption)
    for client in configuration.clients():
        write_kubeconfig(site.kubeconfig(client), _credentials(site, client))
    write_atomically(site.corefile, configuration.corefile(site))
    scheduler = json.dumps(configuration.scheduler_config(site), indent=1) + "\n"
    write_atomically(site.scheduler_config, scheduler)
    settings = codec.dumps(configuration.kubelet_settings(site)) + "\n"
    write_atomically(paths.kubelet / "settings.json", settings)
    return site


def write_admin_kubeconfig(site: Site) -> None:
    """The user's own credentials: that they are there says that they can be used."""
    write_kubeconfig(site.paths.kubeconfig, _credentials(site, "admin"))


def _credentials(site: Site, client: str) -> dict[str, object]:
    return kubeconfig(site.pki, client, server=site.server, cluster=site.config.cluster_name)
