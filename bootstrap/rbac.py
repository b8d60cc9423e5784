"""The roles of our own identities, as manifests for server-side apply. Pure data."""

from __future__ import annotations

from typing import Any

from bootstrap.identities import COREDNS_USER, KUBELET_CLIENTS_GROUP, KUBELET_USER

_GROUP = "rbac.authorization.k8s.io"
_VERSION = f"{_GROUP}/v1"


def _rule(group: str, resources: str, verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split()}


_KUBELET_RULES = [
    _rule("", "nodes", "create get list watch patch update"),
    _rule("", "nodes/status", "get patch update"),
    _rule("", "pods", "get list watch delete"),
    # Whose UID says which store this is.
    _rule("", "namespaces", "get") | {"resourceNames": ["kube-system"]},
    _rule("", "pods/status", "get patch update"),
    _rule("", "events", "create patch update"),
    _rule("events.k8s.io", "events", "create patch update"),
    # By name alone, as its pods' specs name them: who has stolen its certificate is not to be
    # handed every Secret of the cluster by one list.
    _rule("", "configmaps secrets", "get"),
    _rule("", "services", "get list watch"),
    _rule("certificates.k8s.io", "clustertrustbundles", "get list"),
    _rule("certificates.k8s.io", "podcertificaterequests", "create get"),
    _rule("node.k8s.io", "runtimeclasses", "get"),
    # Whose UID a request for a pod's certificate must name.
    _rule("", "serviceaccounts", "get"),
    _rule("discovery.k8s.io", "endpointslices", "get list watch"),
    _rule("", "serviceaccounts/token", "create"),
    _rule("authentication.k8s.io", "tokenreviews", "create"),
    _rule("authorization.k8s.io", "subjectaccessreviews", "create"),
]
_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_RULES = [_rule("coordination.k8s.io", "leases", "create get list watch patch update delete")]
_COREDNS_RULES = [
    _rule("", "services pods namespaces", "list watch"),
    _rule("discovery.k8s.io", "endpointslices", "list watch"),
]


def _object(
    kind: str, name: str, namespace: str, content: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """API path and manifest; without a namespace, of the Cluster… kind."""
    kind = kind if namespace else f"Cluster{kind}"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    scope = f"/namespaces/{namespace}" if namespace else ""
    manifest = {"apiVersion": _VERSION, "kind": kind, "metadata": metadata} | content
    return f"/apis/{_VERSION}{scope}/{kind.lower()}s/{name}", manifest


def _role(
    name: str, rules: list[dict[str, Any]], *, namespace: str = ""
) -> tuple[str, dict[str, Any]]:
    return _object("Role", name, namespace, {"rules": rules})


def _binding(
    name: str, role: str, kind: str, subject: str, *, namespace: str = ""
) -> tuple[str, dict[str, Any]]:
    role_kind = "Role" if namespace else "ClusterRole"
    content = {
        "roleRef": {"apiGroup": _GROUP, "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": _GROUP, "kind": kind, "name": subject}],
    }
    return _object("RoleBinding", name, namespace, content)


MANIFESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    _role("hpk:kubelet", _KUBELET_RULES),
    _binding("hpk:kubelet", "hpk:kubelet", "User", KUBELET_USER),
    _role("hpk:kubelet", _LEASE_RULES, namespace=_LEASE_NAMESPACE),
    _binding("hpk:kubelet", "hpk:kubelet", "User", KUBELET_USER, namespace=_LEASE_NAMESPACE),
    _role("hpk:coredns", _COREDNS_RULES),
    _binding("hpk:coredns", "hpk:coredns", "User", COREDNS_USER),
    _binding("hpk:kubelet-api-clients", "system:kubelet-api-admin", "Group", KUBELET_CLIENTS_GROUP),
)
"""In the order they are applied."""
