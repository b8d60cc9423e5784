"""Kubeconfig files, with the certificates inside so that a copy works elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from bootstrap.pki import Pki
from hpk.durable import write_atomically
from hpk.model.errors import ParseError


def kubeconfig(pki: Pki, client: str, *, server: str, cluster: str) -> dict[str, Any]:
    """Credentials of one client for one API server.

    :param client: name of the client's certificate.
    :param server: ``https://ADDRESS:PORT``.
    """

    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    user = f"{cluster}-{client}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": inline(pki.authority("api")),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": inline(pki.certificate(client)),
                    "client-key-data": inline(pki.key(client)),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }


def write_kubeconfig(path: Path, config: dict[str, Any]) -> None:
    """Write it, 0600."""
    write_atomically(path, yaml.safe_dump(config, sort_keys=False))


def read_kubeconfig(path: Path) -> dict[str, Any]:
    """A kubeconfig; empty where there is no file.

    :raises ParseError: it is not one.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ParseError(f"{path}: {error}", remedy="correct or move the file") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ParseError(f"{path} is no kubeconfig", remedy="correct or move the file")
    return data


def merged(base: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """``base`` with our cluster, user and context added, or replaced where they are named alike.

    The current context changes only where there was none.
    """
    result = {"apiVersion": "v1", "kind": "Config"} | base
    for section in ("clusters", "users", "contexts"):
        names = {entry["name"] for entry in ours[section]}
        old = result.get(section) or []
        if not isinstance(old, list) or not all(isinstance(entry, dict) for entry in old):
            raise ParseError(f"kubeconfig: {section} is not a list of entries")
        kept = [entry for entry in old if entry.get("name") not in names]
        result[section] = kept + ours[section]
    if not result.get("current-context"):
        result["current-context"] = ours["current-context"]
    return result
