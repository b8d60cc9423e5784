"""What a site or a user may set for the control plane: two tables of ``config.toml``.

Read from ``<sys.prefix>/etc/hpk/config.toml`` (the site's), then ``$HPK_HOME/config.toml`` (the
user's, which wins key by key). Other tables of these files belong to other parts and are not
looked at here; an unknown key within ours is an error, for a mistyped setting must not be ignored.
"""

from __future__ import annotations

import ipaddress
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths


def _dashes(name: str) -> str:
    return name.replace("_", "-")


def _network(text: str) -> str:
    network = ipaddress.IPv4Network(text)
    if network.prefixlen > 24:
        raise ValueError("must be a /24 or larger")
    return str(network)


def _address(text: str) -> str:
    return str(ipaddress.IPv4Address(text)) if text else ""


class BinariesConfig(BaseModel):
    """``[binaries]``: where upstream's programs come from.

    :param sources: in the order they are tried when a program is not there yet.
    :param mirror: replaces ``https://dl.k8s.io`` and ``https://github.com`` by
        ``MIRROR/dl.k8s.io`` and ``MIRROR/github.com``.
    :param proxy: of downloads and of Go's; "" leaves it to ``https_proxy``.
    :param ca_file: certificates to trust for downloads, besides the system's.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_dashes, populate_by_name=True
    )

    sources: tuple[Literal["download", "build"], ...] = ("download", "build")
    mirror: str = ""
    proxy: str = ""
    ca_file: str = ""


class ControlPlaneConfig(BaseModel):
    """``[control-plane]``.

    :param address: IPv4 address of this host that compute nodes reach; "" finds it.
    :param service_cidr: addresses of Services; must not overlap the site's own networks.
    :param orphan_timeout_s: how long a job goes on without any sign of a control plane.
    :param etcd_data: directory on a disk of the host; "" keeps the data in ``$HPK_HOME``.
    :param start_timeout_s: how long one component may take to become ready.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_dashes, populate_by_name=True
    )

    address: Annotated[str, AfterValidator(_address)] = ""
    cluster_name: str = Field(default="hpk", pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
    cluster_domain: str = Field(default="cluster.local", pattern=r"^[a-z0-9.-]{1,100}$")
    service_cidr: Annotated[str, AfterValidator(_network)] = "100.73.0.0/16"
    orphan_timeout_s: int = Field(default=3600, gt=0)
    etcd_data: str = ""
    start_timeout_s: int = Field(default=60, gt=0)


class Config(BaseModel):
    """Our two tables."""

    model_config = ConfigDict(
        frozen=True, alias_generator=_dashes, populate_by_name=True, extra="ignore"
    )

    binaries: BinariesConfig = BinariesConfig()
    control_plane: ControlPlaneConfig = ControlPlaneConfig()


def load_config(paths: HpkPaths, *, site: Path | None = None) -> Config:
    """The configuration in force.

    :param site: the site's file; by default that of this installation.
    :raises PermanentError: a file is not TOML or a setting is wrong; names the file or the key.
    """
    tables: dict[str, Any] = {}
    for path in (site or Path(sys.prefix) / "etc/hpk/config.toml", paths.config):
        for name, table in _read(path).items():
            if isinstance(table, dict):
                tables[name] = tables.get(name, {}) | table
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PermanentError(
            f"configuration: {where}: {first['msg']}", remedy=f"correct it in {paths.config}"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PermanentError(f"{path}: {error}", remedy="correct the file") from error
