"""A kubelet's settings, for tests of its parts, which need a few of them each."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from hpk.model.settings import KubeletSettings

_NOTHING = KubeletSettings(
    kubeconfig="",
    cluster_name="",
    address="127.0.0.1",
    port=0,
    tls_cert="",
    tls_key="",
    client_ca="",
    channel_port=0,
    channel_cert="",
    channel_key="",
    channel_ca="",
    api_host="",
    api_port=0,
    orphan_timeout_s=1,
)


def kubelet_settings(**changes: Any) -> KubeletSettings:
    """Settings that say nothing but what is given."""
    return dataclasses.replace(_NOTHING, **changes)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
