"""What the control plane consists of: each component's argv and environment.

Pure: paths and facts in, frozen data out. No secret is in an argv; every listening socket asks
for a certificate of ours, and the two controllers that need no clients listen nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bootstrap.site import Site

_DAYS_S = 24 * 3600
_EVICTION_S = 30 * _DAYS_S
_MIB = 1 << 20
# Together, and with HPK's own processes, below what hpk-start.sh asks Slurm for.
_MEMORY_LIMITS = {
    "etcd": 512 * _MIB,
    "kube-apiserver": 1536 * _MIB,
    "kube-controller-manager": 384 * _MIB,
    "kube-scheduler": 256 * _MIB,
    "coredns": 128 * _MIB,
}
_THREADS = {"kube-apiserver": 8, "etcd": 4}
CLIENT_QPS, CLIENT_BURST = 500, 1000
"""Of the controllers and the scheduler: more than one API server of ours answers, so that the
requests' own time is the limit. Upstream's 20 and 50 are for many clients of one server."""
_ETCD_QUOTA_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentPlan:
    """One process.

    :param stage: components of one stage start together, when the stages before are ready, and
        stop together, in reverse.
    :param essential: without it there is no control plane; start-up fails if it does.
    :param stop_timeout_s: from SIGTERM to SIGKILL.
    """

    name: str
    stage: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    stop_timeout_s: float
    essential: bool = True


def components(site: Site) -> tuple[ComponentPlan, ...]:
    """All of them, in the order they start."""
    return (
        _upstream(site, "etcd", 0, _etcd(site), 6),
        _upstream(site, "kube-apiserver", 1, _kube_apiserver(site), 8),
        _upstream(site, "kube-controller-manager", 2, _kube_controller_manager(site), 4),
        _upstream(site, "kube-scheduler", 2, _kube_scheduler(site), 4),
        _upstream(site, "coredns", 2, ("-conf", str(site.corefile)), 4),
        ComponentPlan(
            name="kubelet",
            stage=2,
            argv=(site.python, "-P", "-m", "kubelet"),
            environment=_environment(site),
            stop_timeout_s=6,
            essential=False,
        ),
    )


def _upstream(
    site: Site, name: str, stage: int, arguments: tuple[str, ...], stop_timeout_s: float
) -> ComponentPlan:
    limits = {
        # On a login node of 128 cores Go would take them all, and as much memory as it likes.
        "GOMAXPROCS": str(max(1, min(site.cpus, _THREADS.get(name, 2)))),
        "GOMEMLIMIT": str(_MEMORY_LIMITS[name]),
    }
    return ComponentPlan(
        name=name,
        stage=stage,
        argv=(str(site.programs[name]), *arguments),
        environment=_environment(site) | limits,
        stop_timeout_s=stop_timeout_s,
    )


def _environment(site: Site) -> dict[str, str]:
    no_proxy = ",".join(
        (
            "localhost",
            "127.0.0.1",
            site.address,
            site.config.service_cidr,
            ".svc",
            f".{site.config.cluster_domain}",
        )
    )
    return dict(site.environment) | {
        "HPK_HOME": str(site.paths.home),
        "HPK_CACHE": str(site.paths.cache),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def _etcd(site: Site) -> tuple[str, ...]:
    pki, ports = site.pki, site.ports
    client, peer = (f"https://127.0.0.1:{port}" for port in (ports.etcd, ports.etcd_peer))
    certificate, key, ca = pki.certificate("etcd"), pki.key("etcd"), pki.authority("etcd")
    return (
        "--name=hpk",
        f"--data-dir={site.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=hpk={peer}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={ca}",
        "--client-cert-auth=true",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={ca}",
        "--peer-client-cert-auth=true",
        # Ten thousand short pods write some GiB of revisions between two compactions; past the
        # quota, by default 2 GiB, etcd refuses every write until somebody repairs it by hand.
        f"--quota-backend-bytes={_ETCD_QUOTA_BYTES}",
        "--log-level=warn",
    )


def _kube_apiserver(site: Site) -> tuple[str, ...]:
    pki, config = site.pki, site.config
    return (
        f"--bind-address={site.address}",
        f"--advertise-address={site.address}",
        f"--secure-port={site.ports.api}",
        f"--tls-cert-file={pki.certificate('kube-apiserver')}",
        f"--tls-private-key-file={pki.key('kube-apiserver')}",
        "--tls-min-version=VersionTLS12",
        f"--client-ca-file={pki.authority('api')}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # Of a user namespace, and of nothing else: that is all there is to be privileged in.
        "--allow-privileged=true",
        # ?stream=Stdout or Stderr of a log, which our kubelet has in any case.
        "--feature-gates=PodLogsQuerySplitStreams=true",
        f"--etcd-servers=https://127.0.0.1:{site.ports.etcd}",
        f"--etcd-cafile={pki.authority('etcd')}",
        f"--etcd-certfile={pki.certificate('kube-apiserver-etcd-client')}",
        f"--etcd-keyfile={pki.key('kube-apiserver-etcd-client')}",
        f"--encryption-provider-config={pki.encryption}",
        # It dials a Node's Hostname first otherwise, and our nodes' names resolve nowhere.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki.authority('api')}",
        f"--kubelet-client-certificate={pki.certificate('kube-apiserver-kubelet-client')}",
        f"--kubelet-client-key={pki.key('kube-apiserver-kubelet-client')}",
        "--requestheader-allowed-names=front-proxy-client",
        f"--requestheader-client-ca-file={pki.authority('front-proxy')}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki.certificate('front-proxy-client')}",
        f"--proxy-client-key-file={pki.key('front-proxy-client')}",
        "--enable-aggregator-routing=true",
        f"--service-account-issuer=https://kubernetes.default.svc.{config.cluster_domain}",
        f"--service-account-key-file={pki.service_account_public_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        f"--service-cluster-ip-range={config.service_cidr}",
        # A kubelet that is down for five minutes must not get its pods evicted and run twice.
        f"--default-not-ready-toleration-seconds={_EVICTION_S}",
        f"--default-unreachable-toleration-seconds={_EVICTION_S}",
        "--etcd-compaction-interval=1m",
        # Root of a pod is root of the user's own namespace, as under any rootless kubelet.
        "--allow-privileged=true",
        "--profiling=false",
    )


def _kube_controller_manager(site: Site) -> tuple[str, ...]:
    return (
        f"--kubeconfig={site.kubeconfig('kube-controller-manager')}",
        "--secure-port=0",
        "--leader-elect=false",  # our own lock has decided already
        "--use-service-account-credentials=true",
        f"--cluster-name={site.config.cluster_name}",
        f"--root-ca-file={site.pki.authority('api')}",
        f"--service-account-private-key-file={site.pki.service_account_key}",
        f"--service-cluster-ip-range={site.config.service_cidr}",
        f"--kube-api-qps={CLIENT_QPS}",
        f"--kube-api-burst={CLIENT_BURST}",
        "--concurrent-job-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-deployment-syncs=20",
        "--concurrent-statefulset-syncs=20",
        "--profiling=false",
    )


def _kube_scheduler(site: Site) -> tuple[str, ...]:
    return (f"--config={site.scheduler_config}", "--secure-port=0")
