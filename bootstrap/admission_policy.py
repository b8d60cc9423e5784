"""What the API server itself refuses, as manifests for server-side apply. Pure data.

Pods and pod templates with fields that HPK does not handle: there, whoever creates them is looking.
Nothing that admission accepts may be refused, so what cannot be evaluated passes.
"""

from __future__ import annotations

from typing import Any

from bootstrap.identities import KUBELET_USER
from hpk.planning.pod_policy import annotation_refusals, spec_variables

_GROUP = "admissionregistration.k8s.io"
_VERSION = f"{_GROUP}/v1"
PODS = "hpk-pods"
TOKENS = "hpk-kubelet-tokens"
LABEL = "hpk.io/unsupported-fields"
"""Of a Namespace: deny, warn or off, instead of the configuration's."""
_ACTIONS = {"deny": "Deny", "warn": "Warn"}
_SHOWN = 5
_CRON = 'request.kind.kind == "CronJob"'
_POD = 'request.kind.kind == "Pod"'
_CRON_TEMPLATE = "spec.jobTemplate.spec.template"

Manifest = tuple[str, dict[str, Any]]


def manifests(unsupported_fields: str) -> tuple[Manifest, ...]:
    """In the order they are applied.

    :param unsupported_fields: ``deny``, ``warn`` or ``off``, of namespaces without the label.
    """
    return (
        _policy(PODS, _pods()),
        *(_policy_binding(action, unsupported_fields) for action in _ACTIONS),
        _policy(TOKENS, _tokens()),
        _binding(TOKENS, {"policyName": TOKENS, "validationActions": ["Deny"]}),
    )


def _policy(name: str, spec: dict[str, Any]) -> Manifest:
    return _object("ValidatingAdmissionPolicy", "validatingadmissionpolicies", name, spec)


def _binding(name: str, spec: dict[str, Any]) -> Manifest:
    kind, resource = "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"
    return _object(kind, resource, name, spec)


def _object(kind: str, resource: str, name: str, spec: dict[str, Any]) -> Manifest:
    manifest = {"apiVersion": _VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return f"/apis/{_VERSION}/{resource}/{name}", manifest


def _policy_binding(action: str, default: str) -> Manifest:
    if action == default:
        others = sorted({"deny", "warn", "off"} - {action})
        selector = {"key": LABEL, "operator": "NotIn", "values": others}
    else:
        selector = {"key": LABEL, "operator": "In", "values": [action]}
    spec = {
        "policyName": PODS,
        "validationActions": [_ACTIONS[action]],
        "matchResources": {"namespaceSelector": {"matchExpressions": [selector]}},
    }
    return _binding(f"{PODS}-{action}", spec)


def _rule(group: str, resources: str, operations: str) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": operations.split(),
        "resources": resources.split(),
    }


def _pods() -> dict[str, Any]:
    parts, of_spec = spec_variables("variables.pod.spec", 'variables.root + "spec"')
    found = "variables.refusals"
    return {
        "failurePolicy": "Ignore",
        "matchConstraints": {
            "resourceRules": [
                _rule("", "pods", "CREATE"),
                _rule("", "replicationcontrollers", "CREATE UPDATE"),
                _rule("apps", "daemonsets deployments replicasets statefulsets", "CREATE UPDATE"),
                _rule("batch", "cronjobs jobs", "CREATE UPDATE"),
            ]
        },
        # What is there already may be scaled, labelled and finished.
        "matchConditions": [
            {
                "name": "the-template-is-new",
                "expression": 'request.operation == "CREATE" || '
                f"({_CRON} ? object.{_CRON_TEMPLATE} != oldObject.{_CRON_TEMPLATE}"
                " : object.spec.template != oldObject.spec.template)",
            }
        ],
        "variables": [
            _variable(
                "pod",
                f"{_POD} ? object : {_CRON} ? object.{_CRON_TEMPLATE} : object.spec.template",
            ),
            _variable(
                "root",
                f'{_POD} ? "" : {_CRON} ? "{_CRON_TEMPLATE}." : "spec.template."',
            ),
            _variable(
                "annotations",
                '"metadata" in variables.pod ? ('
                + annotation_refusals("variables.pod.metadata", 'variables.root + "metadata"')
                + ") : []",
            ),
            *(_variable(name, expression) for name, expression in parts.items()),
            _variable("refusals", f"variables.annotations + {of_spec}"),
        ],
        "validations": [
            {
                "expression": f"size({found}) == 0",
                "messageExpression": f"size({found}) > {_SHOWN}"
                f' ? {found}.slice(0, {_SHOWN}).join("; ") + "; and more"'
                f' : {found}.join("; ")',
            }
        ],
    }


def _variable(name: str, expression: str) -> dict[str, str]:
    return {"name": name, "expression": expression}


def _tokens() -> dict[str, Any]:
    """The kubelet makes tokens for Pods alone: the API server then checks that the Pod is there and
    that the service account is the Pod's."""
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [_rule("", "serviceaccounts/token", "CREATE")]},
        "matchConditions": [
            {
                "name": "by-the-kubelet",
                "expression": f'request.userInfo.username == "{KUBELET_USER}"',
            }
        ],
        "validations": [
            {
                "expression": "has(object.spec.boundObjectRef)"
                " && has(object.spec.boundObjectRef.kind)"
                ' && object.spec.boundObjectRef.kind == "Pod"',
                "message": "the kubelet makes tokens for Pods alone",
            }
        ],
    }
