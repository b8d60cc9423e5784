"""What a pod is called, and what its /etc/hosts says."""

from __future__ import annotations

from typing import Any

import pytest

from hpk.model.errors import AdmissionError
from hpk.model.ids import PodRef, PodUid
from hpk.model.plan import HostAlias, PodPlan, RestartPolicy
from hpk.planning.base.names import Names, plan_names
from hpk.supervisor.inside.hosts import hosts_file, pod_hostname

NODE = "127.0.0.1\tlocalhost\n10.0.0.1 n1"


def names(pod: str = "web-0", **spec: Any) -> Names:
    return plan_names({"metadata": {"name": pod, "namespace": "ns"}, "spec": spec}, "cluster.local")


def plan(given: Names, pod: str = "web-0") -> PodPlan:
    return PodPlan(
        pod=PodRef("ns", pod, PodUid("u")),
        partition="main",
        options=(),
        containers=(),
        volumes=(),
        restart_policy=RestartPolicy.NEVER,
        grace_period_s=30,
        active_deadline_s=None,
        runtime="apptainer",
        hostname=given.hostname,
        domain=given.domain,
        host_network=given.host_network,
        host_aliases=given.host_aliases,
    )


@pytest.mark.parametrize(
    ("spec", "called", "line"),
    [
        ({}, "web-0", "10.0.0.1\tweb-0"),
        ({"hostname": "db"}, "db", "10.0.0.1\tdb"),
        ({"subdomain": "s"}, "web-0", "10.0.0.1\tweb-0.s.ns.svc.cluster.local\tweb-0"),
        (
            {"hostname": "db", "subdomain": "s", "setHostnameAsFQDN": True},
            "db.s.ns.svc.cluster.local",
            "10.0.0.1\tdb.s.ns.svc.cluster.local\tdb",
        ),
        ({"setHostnameAsFQDN": True}, "web-0", "10.0.0.1\tweb-0"),
        ({"hostname": "db", "hostnameOverride": "x.y"}, "x.y", "10.0.0.1\tx.y"),
        ({"hostNetwork": True}, "n1", None),
    ],
)
def test_what_a_pod_is_called(spec: dict[str, Any], called: str, line: str | None) -> None:
    made = plan(names(**spec))
    assert pod_hostname(made, "n1") == called
    host = " (host network)" if made.host_network else ""
    head = f"# Kubernetes-managed hosts file{host}.\n"
    assert hosts_file(NODE, made, "10.0.0.1") == f"{head}{NODE}\n" + (f"{line}\n" if line else "")


def test_a_long_name_is_cut_as_upstream_cuts_it() -> None:
    pod = "a" * 62 + "-b" * 10
    assert pod_hostname(plan(names(pod), pod), "n1") == "a" * 62


def test_aliases() -> None:
    given = names(hostAliases=[{"ip": "10.1.2.3", "hostnames": ["a", "b.c"]}, {"ip": "::1"}])
    assert given.host_aliases == (HostAlias("10.1.2.3", ("a", "b.c")), HostAlias("::1", ()))
    text = hosts_file(NODE, plan(given), "")
    assert text.endswith("n1\n\n# Entries added by HostAliases.\n10.1.2.3\ta\tb.c\n::1\t\n")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hostAliases": [{"ip": "10.0.0.1 x", "hostnames": []}]}, "spec.hostAliases[0].ip"),
        (
            {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b\n10.0.0.2 c"]}]},
            "spec.hostAliases[0].hostnames[1]",
        ),
        ({"hostname": "A b"}, "spec.hostname"),
        ({"subdomain": "a.b"}, "spec.subdomain"),
        ({"hostnameOverride": "a b"}, "spec.hostnameOverride"),
        ({"subdomain": "s" * 40, "setHostnameAsFQDN": True}, "spec.setHostnameAsFQDN"),
    ],
)
def test_names_that_cannot_be(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(AdmissionError) as refused:
        names(**spec)
    assert refused.value.field == field
