"""Requests, limits, flags and deadlines of a Pod, as the options of sbatch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpk.model.errors import AdmissionError
from hpk.model.job import Partition
from hpk.planning.plan import plan_pod
from tests.planning import (
    FLAGS,
    GIB,
    IMAGES,
    MAIN,
    MIB,
    SITE,
    a_pod,
    options,
    plan,
    refusal,
    with_others,
)


def resources(**amounts: str) -> dict[str, Any]:
    named = {name.replace("_", "/"): amount for name, amount in amounts.items()}
    return {"resources": {"requests": named, "limits": named}}


def flagged(flags: str, container: dict[str, Any]) -> dict[str, str | None]:
    result = options(
        plan(a_pod(annotations={"slurm-job.hpk.io/flags": flags}, container=container))
    )
    return {
        name: value
        for name, value in result.items()
        if name in ("cpus-per-task", "mem", "mem-per-cpu", "gres", "gpus-per-task")
    }


CPU_AND_MEMORY = resources(cpu="1500m", memory="1Gi")


@pytest.mark.parametrize(
    ("flags", "container", "expected"),
    [
        ("", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "1024M"}),
        ("-n4 --ntasks-per-node=2", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "2048M"}),
        ("-n2 -N1", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "2048M"}),
        ("-n4", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "512M"}),
        ("-n4 -N2-4", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "512M"}),
        ("-N2", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "1024M"}),
        ("-c1 --mem=3G", CPU_AND_MEMORY, {"cpus-per-task": "1", "mem": "3G"}),
        ("--mem-per-cpu=1G", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "1G"}),
        ("", resources(memory="200000001"), {"mem": "191M"}),
        ("", resources(memory="16Mi"), {"mem": "96M"}),
        ("", resources(memory="0", cpu="0"), {}),
        ("", resources(cpu="10m"), {"cpus-per-task": "1"}),
        ("", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"gres": "gpu:2"}),
        ("-n2 -N2", {"resources": {"limits": {"amd.com/gpu": 1}}}, {"gpus-per-task": "1"}),
        (
            "-n4 --ntasks-per-node=2",
            {"resources": {"limits": {"amd.com/gpu": "1"}}},
            {"gres": "gpu:2"},
        ),
        ("--gpus=1", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {}),
        (
            "--gres=nvme:1",
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            {"gres": "nvme:1,gpu:1"},
        ),
        ("--gres=gpu:1", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"gres": "gpu:1"}),
        (
            "",
            {"resources": {"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "2Gi"}}},
            {"cpus-per-task": "1", "mem": "2048M"},
        ),
        ("", {"resources": {"requests": {"memory": "1Gi"}}}, {"mem": "1024M"}),
    ],
)
def test_resources_become_options(
    flags: str, container: dict[str, Any], expected: dict[str, str]
) -> None:
    assert flagged(flags, container) == expected


def test_memory_nobody_asks_for_is_the_sites() -> None:
    site = dataclasses.replace(SITE, default_memory_bytes=700 * MIB)
    assert options(plan(a_pod(), site=site))["mem"] == "700M"


@pytest.mark.parametrize(
    ("flags", "container", "reason", "field"),
    [
        ("", resources(cpu="5"), "OutOfcpu", "spec.containers[0].resources.requests[cpu]"),
        ("", resources(memory="9Gi"), "OutOfmemory", "spec.containers[0].resources.limits[memory]"),
        (
            "",
            {"resources": {"limits": {"nvidia.com/gpu": "3"}}},
            "OutOfnvidia.com/gpu",
            "spec.containers[0].resources.limits",
        ),
        (
            "",
            {"resources": {"limits": {"amd.com/gpu": "3"}}},
            "OutOfamd.com/gpu",
            "spec.containers[0].resources.limits",
        ),
        ("-c5", {}, "OutOfcpu", FLAGS),
        ("-n17", {}, "OutOfcpu", FLAGS),
        ("--ntasks-per-node=5 -n10", {}, "OutOfcpu", FLAGS),
        ("-n4 --ntasks-per-node=4", resources(memory="3Gi"), "OutOfmemory", None),
        ("--mem=9000", {}, "OutOfmemory", FLAGS),
        ("-c2 --mem-per-cpu=5G", {}, "OutOfmemory", FLAGS),
        ("--gres=gpu:a100:3", {}, "OutOfnvidia.com/gpu", FLAGS),
        ("--gpus-per-node=3", {}, "OutOfnvidia.com/gpu", FLAGS),
    ],
)
def test_more_than_any_node_has(
    flags: str, container: dict[str, Any], reason: str, field: str | None
) -> None:
    error = refusal(a_pod(annotations={"slurm-job.hpk.io/flags": flags}, container=container))
    assert error.reason == reason
    assert field is None or error.field == field
    assert "Node didn't have enough resource: " in error.message


def test_overcommitted_tasks_need_no_cpus_of_their_own() -> None:
    assert plan(a_pod(annotations={"slurm-job.hpk.io/flags": "-n40 -O"}))


@pytest.mark.parametrize(
    ("partition", "spec", "flags", "time"),
    [
        (MAIN, {}, "", "1-00:00:00"),
        (MAIN, {}, "-t 5", "5"),
        (MAIN, {"activeDeadlineSeconds": 60}, "", "0-00:12:00"),
        (MAIN, {"activeDeadlineSeconds": 10**6}, "", "1-00:00:00"),
        (dataclasses.replace(MAIN, max_time_s=None), {}, "", "UNLIMITED"),
        (dataclasses.replace(MAIN, max_time_s=None, default_time_s=None), {}, "", None),
    ],
)
def test_time_limits(
    partition: Partition, spec: dict[str, Any], flags: str, time: str | None
) -> None:
    pod = a_pod(annotations={"slurm-job.hpk.io/flags": flags}, spec=spec)
    assert options(plan(pod, partition=partition)).get("time") == time


def test_a_site_may_leave_time_to_slurm() -> None:
    site = dataclasses.replace(SITE, use_partition_max_time=False)
    assert "time" not in options(plan(a_pod(), site=site))


def asks(cpu: str = "", memory: str = "", **others: str) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory, **others}
    return {"resources": {"requests": {k: v for k, v in amounts.items() if v}}}


@pytest.mark.parametrize(
    ("flags", "main", "others", "init", "expected"),
    [
        # Those that run together are added up, then rounded up.
        (
            "",
            asks("500m", "1Gi"),
            [asks("600m", "1Gi")],
            [],
            {"cpus-per-task": "2", "mem": "2048M"},
        ),
        ("", asks("400m"), [asks("600m")], [], {"cpus-per-task": "1"}),
        # An init container alone, where it needs more.
        ("", asks("1", "1Gi"), [], [asks("3", "2Gi")], {"cpus-per-task": "3", "mem": "2048M"}),
        ("", asks("2", "3Gi"), [], [asks("1", "2Gi")], {"cpus-per-task": "2", "mem": "3072M"}),
        # A sidecar counts beside the containers, and beside the init containers after it.
        (
            "",
            asks("1", "1Gi"),
            [],
            [asks("1", "1Gi") | {"restartPolicy": "Always"}, asks("3", "1Gi")],
            {"cpus-per-task": "4", "mem": "2048M"},
        ),
        (
            "",
            asks("1", "1Gi"),
            [],
            [asks("3", "3Gi"), asks("1", "1Gi") | {"restartPolicy": "Always"}],
            {"cpus-per-task": "3", "mem": "3072M"},
        ),
        # The main container per task, the others once.
        (
            "-n4 --ntasks-per-node=2",
            asks("1", "1Gi"),
            [asks("100m", "64Mi")],
            [],
            {"cpus-per-task": "1", "mem": "2112M"},
        ),
        (
            "-n2 -N1",
            asks("1", "1Gi"),
            [asks("2", "1Gi")],
            [],
            {"cpus-per-task": "2", "mem": "3072M"},
        ),
        (
            "-n4",
            asks("1", "1Gi"),
            [asks("", "1Gi")],
            [],
            {"cpus-per-task": "1", "mem-per-cpu": "2048M"},
        ),
        # One that says nothing of memory adds nothing, and takes nothing away.
        ("", asks("", "1Gi"), [{}], [], {"mem": "1024M"}),
        ("", {}, [asks("", "1Gi")], [], {}),
        (
            "-n4 --ntasks-per-node=2",
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            [],
            [],
            {"gres": "gpu:2"},
        ),
        ("", {}, [{"resources": {"limits": {"amd.com/gpu": "1"}}}], [], {"gres": "gpu:1"}),
    ],
)
def test_the_effective_request(
    flags: str,
    main: dict[str, Any],
    others: list[dict[str, Any]],
    init: list[dict[str, Any]],
    expected: dict[str, str],
) -> None:
    pod = with_others(
        *({"name": f"o{i}", **item} for i, item in enumerate(others)),
        init=tuple({"name": f"i{i}", **item} for i, item in enumerate(init)),
        annotations={"slurm-job.hpk.io/flags": flags},
        container=main,
    )
    found = options(plan(pod))
    names = ("cpus-per-task", "mem", "mem-per-cpu", "gres", "gpus-per-task")
    assert {name: found[name] for name in names if name in found} == expected


def test_a_main_container_that_says_nothing_has_slurms_default_beside_the_others() -> None:
    partition = dataclasses.replace(MAIN, default_memory_per_node_bytes=GIB)
    pod = with_others({"name": "two", **asks("", "1Gi")})
    result = plan_pod(pod, images=IMAGES, partition=partition, site=SITE)
    assert options(result)["mem"] == "2048M"


def test_two_kinds_of_gpu_are_refused() -> None:
    pod = with_others({"name": "two", "resources": {"limits": {"b.com/gpu": "1"}}})
    pod["spec"]["containers"][0] |= {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    site = dataclasses.replace(SITE, gpus={"nvidia.com/gpu": "gpu", "b.com/gpu": "gpu:b"})
    with pytest.raises(AdmissionError) as caught:
        plan(pod, site=site)
    assert caught.value.field == "spec.containers[1].resources.limits"
