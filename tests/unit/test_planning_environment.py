"""Variables of a container: what is known at admission, and what only the kubelet can tell."""

from __future__ import annotations

from typing import Any

import pytest

from hpk.model.plan import EnvKind, EnvSource, EnvVar, ImageConfig, ImagePlan
from hpk.planning.plan import plan_pod
from tests.planning import MAIN, SITE, a_pod, plan, refusal


def variables(*env: dict[str, Any], **container: Any) -> Any:
    return plan(a_pod(container={"env": list(env), **container})).containers[0]


def test_what_is_known_and_stays_is_no_reason_to_wait() -> None:
    container = variables(
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
        {
            "name": "MIB",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        },
        {
            "name": "CPU",
            "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}},
        },
        {"name": "ALL", "value": "$(NAME).$(NODE)"},
        resources={"requests": {"cpu": "1500m"}, "limits": {"memory": "1Gi"}},
    )
    assert not container.late
    assert {v.name: v.value for v in container.env} | {"PATH": ""} == {
        "PATH": "",
        "NAME": "melt-x7k2p",
        "NODE": "main",
        "SA": "default",
        "MIB": "1024",
        "CPU": "1500",
        "ALL": "melt-x7k2p.main",
    }


@pytest.mark.parametrize(
    ("resource", "divisor", "flags", "value"),
    [
        # Where there is no limit: what the job has on its first node.
        ("limits.cpu", "1", "", "1"),
        ("limits.cpu", "0", "-c3", "3"),
        ("limits.cpu", "1", "-c2 -n4 --ntasks-per-node=2", "4"),
        ("limits.memory", "1Mi", "--mem=512", "512"),
        ("limits.memory", "1Gi", "", "8"),
        ("requests.cpu", "1", "", "0"),
        ("requests.memory", "1", "", "0"),
    ],
)
def test_resource_fields(resource: str, divisor: str, flags: str, value: str) -> None:
    source = {"resourceFieldRef": {"resource": resource, "divisor": divisor}}
    pod = a_pod(
        annotations={"slurm-job.hpk.io/flags": flags},
        container={"env": [{"name": "V", "valueFrom": source}]},
    )
    assert plan(pod).containers[0].env[-1] == EnvVar("V", value)


@pytest.mark.parametrize(
    ("value_from", "source"),
    [
        (
            {"configMapKeyRef": {"name": "c", "key": "k"}},
            EnvSource(EnvKind.CONFIG_MAP_KEY, "c", "k"),
        ),
        (
            {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
            EnvSource(EnvKind.SECRET_KEY, "s", "k", optional=True),
        ),
        (
            {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}},
            EnvSource(EnvKind.FIELD, key="metadata.labels['a.b/c']"),
        ),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, EnvSource(EnvKind.FIELD, key="status.podIP")),
    ],
)
def test_late_variables_stay_as_they_are_written(
    value_from: dict[str, Any], source: EnvSource
) -> None:
    container = variables(
        {"name": "V", "valueFrom": value_from},
        {"name": "W", "value": "$(V)"},
        command=["run", "$(W)"],
    )
    assert container.late
    assert container.env[-2:] == (EnvVar("V", "", source), EnvVar("W", "$(V)"))
    assert container.argv == ("run", "$(W)")


def test_the_images_words_are_never_expanded() -> None:
    image = ImagePlan("i", "i@sha256:1", "/i.sif", ImageConfig(("sh", "$(A)"), ("$$(A)", "$A")))
    pod = a_pod(container={"envFrom": [{"secretRef": {"name": "s"}}]})
    (container,) = plan_pod(pod, images={"main": image}, partition=MAIN, site=SITE).containers
    assert container.argv == ("sh", "$$(A)", "$$$$(A)", "$$A")


def test_env_from() -> None:
    sources = [
        {"prefix": "P_", "configMapRef": {"name": "c"}},
        {"secretRef": {"name": "s", "optional": True}},
    ]
    container = variables(envFrom=sources)
    assert container.env_from == (
        EnvSource(EnvKind.CONFIG_MAP, "c", prefix="P_"),
        EnvSource(EnvKind.SECRET, "s", optional=True),
    )


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}, "fieldRef.fieldPath"),
        ({"valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}, "fieldRef.fieldPath"),
        (
            {"valueFrom": {"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}},
            "fieldRef.apiVersion",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}},
            "resourceFieldRef.resource",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}},
            "resourceFieldRef.divisor",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"containerName": "no", "resource": "limits.cpu"}}},
            "resourceFieldRef.containerName",
        ),
        ({"valueFrom": {"secretKeyRef": {"name": "s"}}}, "secretKeyRef.key"),
    ],
)
def test_sources_that_cannot_be(item: dict[str, Any], field: str) -> None:
    error = refusal(a_pod(container={"env": [{"name": "V", **item}]}))
    assert error.field == f"spec.containers[0].env[0].valueFrom.{field}"
