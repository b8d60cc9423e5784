"""Who is who: the certificates every part of the control plane shows. Pure data."""

from __future__ import annotations

import ipaddress

from bootstrap.pki import Leaf

KUBELET_USER = "hpk:kubelet"
COREDNS_USER = "hpk:coredns"
KUBELET_CLIENTS_GROUP = "hpk:kubelet-api-clients"
_LOOPBACK = ("localhost", "127.0.0.1")


def first_service_ip(service_cidr: str) -> str:
    """The address of the Service ``kubernetes``."""
    return str(ipaddress.IPv4Network(service_cidr)[1])


def leaves(
    *, address: str, hostname: str, service_cidr: str, cluster_domain: str
) -> tuple[Leaf, ...]:
    """Every certificate, for a control plane at this address of this host."""
    host = (hostname, *_LOOPBACK, address)
    service = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{cluster_domain}",
        first_service_ip(service_cidr),
    )

    def client(name: str, user: str, *groups: str, authority: str = "api") -> Leaf:
        return Leaf(
            name=name,
            authority=authority,
            common_name=user,
            organizations=groups,
            client=True,
        )

    return (
        Leaf(
            name="kube-apiserver",
            authority="api",
            common_name="kube-apiserver",
            server=True,
            sans=(*host, *service),
        ),
        client("kube-apiserver-kubelet-client", "hpk:kube-apiserver", KUBELET_CLIENTS_GROUP),
        client("kube-apiserver-etcd-client", "kube-apiserver", authority="etcd"),
        client("supervise-etcd-client", "hpk:supervise", authority="etcd"),
        client("front-proxy-client", "front-proxy-client", authority="front-proxy"),
        client("kube-controller-manager", "system:kube-controller-manager"),
        client("kube-scheduler", "system:kube-scheduler"),
        client("coredns-client", COREDNS_USER),
        client("kubelet-client", KUBELET_USER),
        client("admin", "hpk:admin", "system:masters"),
        Leaf(
            name="etcd",
            authority="etcd",
            common_name="etcd",
            client=True,
            server=True,
            sans=_LOOPBACK,
        ),
        Leaf(
            name="coredns",
            authority="api",
            common_name="coredns",
            server=True,
            sans=_LOOPBACK,
        ),
        Leaf(name="kubelet", authority="api", common_name="kubelet", server=True, sans=host),
        Leaf(
            name="channel",
            authority="channel",
            common_name="channel",
            server=True,
            # The supervisor asks for this name: the host's own may change under a running pod.
            sans=(*host, "hpk-channel"),
        ),
    )
