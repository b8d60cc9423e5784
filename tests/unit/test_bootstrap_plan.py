"""The plan of the control plane: what must be in it whatever else changes."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest

from bootstrap import configuration, encryption, plan, rbac
from bootstrap.host import Ports
from bootstrap.plan import ComponentPlan
from bootstrap.site import Site
from hpk.config.schema import ControlPlaneConfig
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
SITE = Site(
    paths=HpkPaths(home=Path("/home/a b/.hpk"), cache=Path("/scratch/a b")),
    address="10.1.2.3",
    ports=Ports(api=1, kubelet=2, channel=3, etcd=4, etcd_peer=5, dns=6),
    config=ControlPlaneConfig(),
    programs={name: Path(f"/opt/{name}") for name in PROGRAMS},
    python="/opt/bin/python",
    environment={"HOME": "/home/a b", "PATH": "/usr/bin"},
    cpus=128,
    etcd_data=Path("/home/a b/.hpk/control-plane/etcd"),
)
COMPONENTS = {component.name: component for component in plan.components(SITE)}


def _flags(component: ComponentPlan) -> dict[str, str]:
    pairs = (argument.partition("=") for argument in component.argv[1:])
    return {name: value for name, _, value in pairs}


def test_the_order() -> None:
    assert [(one.name, one.stage) for one in plan.components(SITE)] == [
        ("etcd", 0),
        ("kube-apiserver", 1),
        ("kube-controller-manager", 2),
        ("kube-scheduler", 2),
        ("coredns", 2),
        ("kubelet", 2),
    ]
    assert [name for name, one in COMPONENTS.items() if not one.essential] == ["kubelet"]


def test_nothing_listens_without_asking_who_calls() -> None:
    api = _flags(COMPONENTS["kube-apiserver"])
    assert api["--anonymous-auth"] == "false"
    assert api["--authorization-mode"] == "Node,RBAC"
    assert api["--bind-address"] == "10.1.2.3"
    etcd = _flags(COMPONENTS["etcd"])
    assert etcd["--client-cert-auth"] == etcd["--peer-client-cert-auth"] == "true"
    assert etcd["--listen-client-urls"] == "https://127.0.0.1:4"
    assert etcd["--listen-peer-urls"] == "https://127.0.0.1:5"
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert _flags(COMPONENTS[name])["--secure-port"] == "0"
    corefile = configuration.corefile(SITE)
    assert "client_auth require_and_verify" in corefile
    assert "bind 127.0.0.1" in corefile
    assert corefile.count("://") == 1
    for plugin in ("health", "ready", "prometheus", "pprof", "forward"):
        assert f"\n    {plugin}" not in corefile


def test_authorities_are_not_mixed_up() -> None:
    flags = _flags(COMPONENTS["kube-apiserver"])
    pki = SITE.pki
    assert flags["--client-ca-file"] == str(pki.authority("api"))
    assert flags["--etcd-cafile"] == str(pki.authority("etcd"))
    assert flags["--requestheader-client-ca-file"] == str(pki.authority("front-proxy"))
    assert configuration.kubelet_settings(SITE).channel_ca == str(pki.authority("channel"))


def test_secrets_are_encrypted_with_a_key_that_is_made_once(tmp_path: Path) -> None:
    assert _flags(COMPONENTS["kube-apiserver"])["--encryption-provider-config"] == str(
        SITE.pki.encryption
    )
    path = tmp_path / "encryption.json"
    encryption.ensure(path)
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    (rule,) = json.loads(text)["resources"]
    assert rule["resources"] == ["secrets"]
    first, second = rule["providers"]
    assert len(base64.b64decode(first["secretbox"]["keys"][0]["secret"])) == 32
    assert second == {"identity": {}}
    encryption.ensure(path)
    assert path.read_text() == text


def test_pods_are_not_evicted_because_the_kubelet_rests() -> None:
    flags = _flags(COMPONENTS["kube-apiserver"])
    for name in ("not-ready", "unreachable"):
        assert int(flags[f"--default-{name}-toleration-seconds"]) >= 7 * 24 * 3600
    assert flags["--kubelet-preferred-address-types"] == "InternalIP"


def test_nobody_is_throttled_by_a_default_that_is_for_many_clients() -> None:
    """At 20 requests a second a Job of 10,000 pods takes eight minutes to be made."""
    flags = _flags(COMPONENTS["kube-controller-manager"])
    assert int(flags["--kube-api-qps"]) >= 500
    assert int(flags["--kube-api-burst"]) >= 1000
    connection = configuration.scheduler_config(SITE)["clientConnection"]
    assert (connection["qps"], connection["burst"]) == (500, 1000)


def test_etcd_syncs() -> None:
    assert not any("fsync" in argument for argument in COMPONENTS["etcd"].argv)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_large_host_is_not_taken_whole(name: str) -> None:
    environment = COMPONENTS[name].environment
    assert int(environment["GOMAXPROCS"]) <= 8
    assert int(environment["GOMEMLIMIT"]) <= 4 << 30
    one_cpu = plan.components(dataclasses.replace(SITE, cpus=1))
    assert {one.environment.get("GOMAXPROCS", "1") for one in one_cpu} == {"1"}


def test_environments_hold_what_they_must_and_no_more() -> None:
    for component in COMPONENTS.values():
        environment = dict(component.environment)
        assert "10.1.2.3" in environment.pop("NO_PROXY").split(",")
        assert environment.pop("no_proxy")
        assert environment.pop("HPK_HOME") == "/home/a b/.hpk"
        assert environment.pop("HPK_CACHE") == "/scratch/a b"
        environment.pop("GOMAXPROCS", "")
        environment.pop("GOMEMLIMIT", "")
        assert environment == {"HOME": "/home/a b", "PATH": "/usr/bin"}


def test_placement_is_slurms() -> None:
    (profile,) = configuration.scheduler_config(SITE)["profiles"]
    disabled = {entry["name"] for entry in profile["plugins"]["multiPoint"]["disabled"]}
    assert disabled == {
        "NodeResourcesFit",
        "NodeResourcesBalancedAllocation",
        "NodePorts",
        "InterPodAffinity",
    }
    (spread,) = profile["pluginConfig"]
    assert spread["args"]["defaultConstraints"] == []


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a{b}", "a$b", "ä", "a\\b"])
def test_a_path_that_coredns_could_misread_is_refused(name: str) -> None:
    paths = HpkPaths(home=Path("/home") / name, cache=Path("/c"))
    with pytest.raises(PermanentError, match="HPK_HOME"):
        configuration.corefile(dataclasses.replace(SITE, paths=paths))


def test_the_kubelets_role_is_small() -> None:
    granted = {
        (resource, verb)
        for path, manifest in rbac.MANIFESTS
        if path.endswith("roles/hpk:kubelet")
        for rule in manifest["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {verb for resource, verb in granted if resource == "secrets"} == {"get"}
    for denied in (("pods", "create"), ("pods", "update"), ("nodes", "delete")):
        assert denied not in granted
    assert not any("*" in pair for pair in granted)
    assert not any(resource.startswith("nodes/proxy") for resource, _ in granted)
    leases = [path for path, manifest in rbac.MANIFESTS if "leases" in str(manifest)]
    assert all("/namespaces/kube-node-lease/" in path for path in leases)
