"""What the components' configuration files say. Pure; bootstrap.prepare writes them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import jinja2

from bootstrap.plan import CLIENT_BURST, CLIENT_QPS
from bootstrap.site import Site
from hpk.model.errors import PermanentError
from hpk.model.settings import KubeletSettings

_CADDY_SAFE = frozenset(string.ascii_letters + string.digits + "/._-+=@,: ")


def clients() -> tuple[str, ...]:
    """The components that get a kubeconfig."""
    return ("kube-controller-manager", "kube-scheduler", "coredns-client", "kubelet-client")


def scheduler_config(site: Site) -> dict[str, Any]:
    """KubeSchedulerConfiguration: where a pod goes is Slurm's business.

    A virtual node stands for a partition, and a pod that does not fit now is to queue there.
    """
    disabled = (
        "NodeResourcesFit",
        "NodeResourcesBalancedAllocation",
        "NodePorts",
        "InterPodAffinity",
    )
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {
            "kubeconfig": str(site.kubeconfig("kube-scheduler")),
            "qps": CLIENT_QPS,
            "burst": CLIENT_BURST,
        },
        "leaderElection": {"leaderElect": False},
        "enableProfiling": False,
        "profiles": [
            {
                "schedulerName": "default-scheduler",
                "plugins": {"multiPoint": {"disabled": [{"name": name} for name in disabled]}},
                "pluginConfig": [
                    {
                        "name": "PodTopologySpread",
                        "args": {
                            "apiVersion": "kubescheduler.config.k8s.io/v1",
                            "kind": "PodTopologySpreadArgs",
                            "defaultingType": "List",
                            "defaultConstraints": [],
                        },
                    }
                ],
            }
        ],
    }


def corefile(site: Site) -> str:
    """CoreDNS' configuration."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("bootstrap"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML; every value passes |caddy
    )
    templates.filters["caddy"] = _caddy
    return templates.get_template("Corefile.j2").render(
        port=site.ports.dns,
        certificate=site.pki.certificate("coredns"),
        key=site.pki.key("coredns"),
        client_ca=site.pki.authority("api"),
        cluster_domain=site.config.cluster_domain,
        kubeconfig=site.kubeconfig("coredns-client"),
    )


def _caddy(value: Path) -> str:
    """A path as a quoted word of a Corefile.

    :raises PermanentError: a character that the format might take for something else.
    """
    text = str(value)
    odd = sorted(set(text) - _CADDY_SAFE)
    if odd:
        raise PermanentError(
            f"{text!r}: {odd[0]!r} cannot stand in a path of CoreDNS' configuration",
            remedy="set HPK_HOME to a directory with a plainer name",
        )
    return f'"{text}"'


def kubelet_settings(site: Site) -> KubeletSettings:
    """What our kubelet is told."""
    pki = site.pki
    return KubeletSettings(
        kubeconfig=str(site.kubeconfig("kubelet-client")),
        cluster_name=site.config.cluster_name,
        address=site.address,
        port=site.ports.kubelet,
        tls_cert=str(pki.certificate("kubelet")),
        tls_key=str(pki.key("kubelet")),
        client_ca=str(pki.authority("api")),
        channel_port=site.ports.channel,
        channel_cert=str(pki.certificate("channel")),
        channel_key=str(pki.key("channel")),
        channel_ca=str(pki.authority("channel")),
        api_host=site.address,
        api_port=site.ports.api,
        orphan_timeout_s=site.config.orphan_timeout_s,
    )
