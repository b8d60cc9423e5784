"""Annotations of a Pod: the flags, and how its command becomes an MPI run."""

from __future__ import annotations

import pytest

from hpk.model.plan import MpiPlan, SupervisorSettings
from tests.planning import a_pod, options, plan, refusal


@pytest.mark.parametrize("prefix", ["slurm.hpk.io", "slurm-job.knoc.io", "slurm-job.vk.io"])
def test_annotations_of_all_prefixes(prefix: str) -> None:
    result = plan(a_pod(annotations={f"{prefix}/flags": "--nice=5", f"{prefix}/mpi-flag": "true"}))
    assert options(result)["nice"] == "5"
    assert result.containers[0].mpi == MpiPlan("pmix")


def test_the_same_annotation_twice() -> None:
    same = {"slurm-job.hpk.io/flags": "-n2", "slurm-job.vk.io/flags": "-n2", "other/flags": "x"}
    assert options(plan(a_pod(annotations=same)))["ntasks"] == "2"
    error = refusal(a_pod(annotations=same | {"slurm-job.vk.io/flags": "-n3"}))
    assert (error.reason, error.field) == (
        "InvalidAnnotation",
        "metadata.annotations[slurm-job.vk.io/flags]",
    )


@pytest.mark.parametrize(
    ("annotations", "field", "part"),
    [
        ({"slurm-job.hpk.io/flag": "-n2"}, "slurm-job.hpk.io/flag", "did you mean flags?"),
        ({"slurm-job.hpk.io/runtime": "docker"}, "slurm-job.hpk.io/runtime", "apptainer"),
        ({"slurm-job.hpk.io/mpi": "gpi"}, "slurm-job.hpk.io/mpi", "pmix, none"),
        ({"slurm-job.hpk.io/mpi": "pmix"}, "slurm-job.hpk.io/mpi", "mpi-flags"),
        ({"slurm-job.hpk.io/mpi-flags": "-x A"}, "slurm-job.hpk.io/mpi-flags", "-x"),
        ({"slurm-job.hpk.io/flags": "-p debug"}, "slurm-job.hpk.io/flags", "nodeSelector"),
        ({"slurm-job.hpk.io/flags": "-t 2-0"}, "slurm-job.hpk.io/flags", "1-00:00:00"),
        ({"slurm-job.hpk.io/flags": "-N 5"}, "slurm-job.hpk.io/flags", "has 4"),
        ({"anything": "a\0b"}, "anything", "NUL"),
        ({"slurm-job.hpk.io/orphan-timeout": "2d"}, "slurm-job.hpk.io/orphan-timeout", "seconds"),
        ({"slurm-job.hpk.io/orphan-timeout": "0"}, "slurm-job.hpk.io/orphan-timeout", "'never'"),
    ],
)
def test_annotations_that_are_refused(annotations: dict[str, str], field: str, part: str) -> None:
    error = refusal(a_pod(annotations=annotations))
    assert error.field == f"metadata.annotations[{field}]"
    assert part in str(error)


@pytest.mark.parametrize(
    ("policy", "annotation", "settled_s"),
    [
        ("Never", None, 10**9),
        ("OnFailure", None, 10**9),
        ("Always", None, 5),
        ("Always", "never", 10**9),
        ("Never", "90", 90),
    ],
)
def test_how_long_a_pod_goes_on_without_a_control_plane(
    policy: str, annotation: str | None, settled_s: int
) -> None:
    """A training of days must outlive its control plane; a Deployment must not hold a node."""
    annotations = {} if annotation is None else {"slurm-job.hpk.io/orphan-timeout": annotation}
    made = plan(a_pod(annotations=annotations, spec={"restartPolicy": policy}))
    settings = SupervisorSettings(
        endpoint_path="/e",
        channel_ca_path="/c",
        heartbeat_path="/h",
        orphan_timeout_s=5,
        local_root="/tmp",
        runtime_path=(),
    )
    assert settings.for_pod(made).orphan_timeout_s == settled_s


def test_the_partition_may_agree() -> None:
    assert "partition" not in options(plan(a_pod(annotations={"slurm-job.hpk.io/flags": "-pmain"})))


def test_launcher_options_imply_tasks_where_the_flags_say_nothing() -> None:
    annotations = {"slurm-job.hpk.io/mpi-flags": "-np 4 --map-by ppr:2:node --bind-to core"}
    result = plan(a_pod(annotations=annotations))
    assert options(result)["ntasks"] == "4"
    assert options(result)["ntasks-per-node"] == "2"
    assert result.containers[0].mpi == MpiPlan(
        "pmix", ("--ntasks=4", "--ntasks-per-node=2", "--cpu-bind=cores")
    )


def test_cpus_of_a_rank_are_asked_for_where_the_flags_say_nothing() -> None:
    asked = {"slurm-job.hpk.io/mpi-flags": "-np 2 --map-by ppr:1:node:PE=2"}
    result = plan(a_pod(annotations=asked))
    assert options(result)["cpus-per-task"] == "2"
    assert result.containers[0].mpi == MpiPlan(
        "pmix", ("--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=2")
    )
    flags = {"slurm-job.hpk.io/flags": "--cpus-per-task=3"}
    assert options(plan(a_pod(annotations={**asked, **flags})))["cpus-per-task"] == "3"


def test_more_ranks_than_tasks_are_refused() -> None:
    annotations = {"slurm-job.hpk.io/flags": "-n2", "slurm-job.hpk.io/mpi-flags": "-np 4"}
    error = refusal(a_pod(annotations=annotations))
    assert error.field == "metadata.annotations[slurm-job.hpk.io/mpi-flags]"


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_mpi_switched_off(value: str) -> None:
    result = plan(a_pod(annotations={"slurm-job.hpk.io/mpi-flags": value}))
    assert result.containers[0].mpi is None


def test_mpi_launcher_none() -> None:
    annotations = {"slurm-job.hpk.io/mpi-flags": "true", "slurm-job.hpk.io/mpi": "none"}
    assert plan(a_pod(annotations=annotations)).containers[0].mpi is None
