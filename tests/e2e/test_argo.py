"""Argo Workflows as upstream ships it, with steps that are MPI runs.

One installation for the module. The workflows are created together and looked at one by one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import BUSYBOX, LAMMPS, Cluster, Json, eventually, pod, terminated
from tests.e2e.faults import PodFiles, node_of

KUSTOMIZATION = "/opt/software/examples/argo"
NAMESPACE = "argo"
SCALING = Path(__file__).parents[2] / "examples/argo/scaling.yaml"
RANKS = (2, 4, 8)
SMALL_STEPS = 8
TWO_NODES = {
    "slurm-job.hpk.io/flags": "--ntasks=4 --nodes=2",
    "slurm-job.hpk.io/mpi-flags": "true",
}
UNTIL_USR1 = ("sh", "-c", "trap 'exit 0' USR1; echo ready; sleep 600 & wait")
LOST = "sleep 4711"
TIMEOUT_S = 300
"""For all workflows together, on a busy machine."""


def workflow(name: str, *templates: Json, **spec: Any) -> Json:
    """A Workflow that begins with its first template."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {"entrypoint": templates[0]["name"], "templates": list(templates), **spec},
    }


def step(name: str, *command: str, image: str = BUSYBOX, **template: Any) -> Json:
    """A template of one container."""
    return {"name": name, "container": {"image": image, "command": list(command)}, **template}


def mpi_step(name: str, *command: str, **template: Any) -> Json:
    made = step(name, *command, image=LAMMPS, metadata={"annotations": TWO_NODES}, **template)
    made["container"]["resources"] = {"requests": {"cpu": "1", "memory": "128Mi"}}
    return made


def output(name: str, path: str) -> Json:
    return {"parameters": [{"name": name, "valueFrom": {"path": path}}]}


def parameter(name: str, value: str) -> Json:
    return {"parameters": [{"name": name, "value": value}]}


def example() -> Json:
    whole: Json = yaml.safe_load(SCALING.read_text())
    whole["metadata"] = {"name": "scaling"}
    return whole


def proof() -> Json:
    """The example, but each run proves what MPI did, and nobody makes a table of that."""
    whole = example()
    whole["metadata"] = {"name": "proof"}
    dag, melt, _ = whole["spec"]["templates"]
    dag["dag"]["tasks"] = dag["dag"]["tasks"][:1]
    melt["container"]["args"] = [
        'mpi-proof > /tmp/out; [ "$PMIX_RANK" != 0 ] || grep "^{" /tmp/out > /tmp/run'
    ]
    return whole


def parts() -> Json:
    """Parameters, results, artifacts and volumes between and within steps."""
    tasks: list[Json] = [
        {"name": "answer", "template": "answer"},
        {"name": "double", "template": "double"},
        {
            "name": "compare",
            "template": "compare",
            "depends": "answer && double",
            "arguments": {
                "parameters": [
                    {"name": "n", "value": "{{tasks.answer.outputs.parameters.n}}"},
                    {"name": "twice", "value": "{{tasks.double.outputs.result}}"},
                ]
            },
        },
        {"name": "given", "template": "given"},
        {"name": "set", "template": "set"},
    ]
    double: Json = {"image": BUSYBOX, "command": ["sh"], "source": "echo $((21 * 2))"}
    return workflow(
        "parts",
        {"name": "dag", "dag": {"tasks": tasks}},
        step("answer", "sh", "-c", "printf 21 > /tmp/n", outputs=output("n", "/tmp/n")),
        {"name": "double", "script": double},
        {
            "name": "compare",
            "inputs": {"parameters": [{"name": "n"}, {"name": "twice"}]},
            "script": {
                **double,
                "source": "test $(({{inputs.parameters.n}} * 2)) = {{inputs.parameters.twice}}",
            },
        },
        # Argo's init container puts the artifact into an emptyDir; both nodes' ranks read it.
        mpi_step(
            "given",
            *("bash", "-euc", 'echo "$PMIX_RANK $SLURMD_NODENAME $(cat /data/given)"; mpi-proof'),
            inputs={
                "artifacts": [{"name": "given", "path": "/data/given", "raw": {"data": "it's $1"}}]
            },
        ),
        {
            "name": "set",
            "volumes": [{"name": "work", "emptyDir": {}}],
            "containerSet": {
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
                "containers": [
                    {
                        "name": "first",
                        "image": BUSYBOX,
                        "command": ["sh", "-c", "echo handed over > /work/it"],
                    },
                    {
                        "name": "main",
                        "image": BUSYBOX,
                        "command": ["sh", "-c", "cat /work/it"],
                        "dependencies": ["first"],
                    },
                ],
            },
            "outputs": output("it", "/work/it"),
        },
    )


def in_turn(*templates: str) -> Json:
    """One step of each template after the other."""
    return {"name": "all", "steps": [[{"name": name, "template": name}] for name in templates]}


def many(name: str, count: int) -> Json:
    """Small steps side by side, no more than the lab has room for."""
    return workflow(
        name,
        {
            "name": "all",
            "steps": [
                [
                    {
                        "name": "one",
                        "template": "one",
                        "withSequence": {"count": str(count)},
                        "arguments": parameter("n", "{{item}}"),
                    }
                ]
            ],
        },
        step(
            "one",
            *("sh", "-c", "echo {{inputs.parameters.n}} > /tmp/n"),
            inputs={"parameters": [{"name": "n"}]},
            outputs=output("n", "/tmp/n"),
        ),
    )


def workflows() -> list[Json]:
    sleep = ("sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 600 & wait")
    second = step("second", "true")
    on_podman: Json = {
        "metadata": {"annotations": {"slurm-job.hpk.io/runtime": "podman"}},
        "outputs": output("n", "/tmp/n"),
    }
    return [
        example(),
        proof(),
        parts(),
        many("many", SMALL_STEPS),
        workflow("three", mpi_step("main", "mpi-proof", "--exit", "2:3")),
        workflow(
            "retry",
            step("main", "sh", "-c", "exit $((3 * (1 - {{retries}})))", retryStrategy={"limit": 3}),
        ),
        workflow("suspended", step("main", "true"), suspend=True),
        workflow("stopped", step("main", *sleep)),
        workflow("stopped-mpi", mpi_step("main", *sleep)),
        workflow("terminated", step("main", *sleep)),
        workflow("paused", in_turn("first", "second"), step("first", *UNTIL_USR1), second),
        workflow("lost", step("main", "sh", "-c", f"echo ready; exec {LOST}")),
        workflow("deadline", step("main", *sleep, activeDeadlineSeconds=3)),
        workflow("podman", step("main", "sh", "-c", "echo 42 > /tmp/n", **on_podman)),
    ]


@pytest.fixture(scope="module")
def argo(control_plane: Cluster) -> Iterator[Cluster]:
    """Argo, installed as a user does it; the namespace of its workflows."""
    cluster = Cluster(machine=control_plane.machine, user=control_plane.user, namespace=NAMESPACE)
    with _installed(cluster):
        cluster.create(*workflows())
        yield cluster


@contextlib.contextmanager
def _installed(cluster: Cluster) -> Iterator[None]:
    try:
        cluster.kubectl("apply", "-k", KUSTOMIZATION)
        cluster.kubectl(
            *("rollout", "status", "deployment/workflow-controller", "--timeout=120s"),
            timeout_s=150,
        )
        yield
        cluster.kubectl("delete", "workflows", "--all", "--timeout=60s")
        eventually(lambda: len(jobs(cluster)) == 1, what="only the controller's job is left")
    finally:
        cluster.kubectl(
            *("delete", "-k", KUSTOMIZATION, "--ignore-not-found", "--timeout=120s"), timeout_s=150
        )
        eventually(lambda: not jobs(cluster), what="no job of Argo's namespace is left")


def jobs(cluster: Cluster) -> list[str]:
    """The names of the namespace's jobs in Slurm's queue."""
    names = cluster.run(["squeue", "--me", "-h", "-o", "%j"]).stdout.split()
    return [name for name in names if name.startswith(f"{cluster.namespace}/")]


def ended(cluster: Cluster, name: str, *, timeout_s: float = TIMEOUT_S) -> Json:
    """The status of a Workflow, once it has one for good."""

    def look() -> Json | None:
        status: Json = cluster.get("workflow", name).get("status", {})
        return status if status.get("finishedAt") else None

    try:
        found = eventually(look, timeout_s=timeout_s, what=f"the end of workflow {name}")
    except BaseException:
        print(cluster.kubectl("get", "pods", "-o", "wide", check=False).stdout)
        print(cluster.kubectl("logs", "deployment/workflow-controller", "--tail=50").stdout)
        raise
    assert found is not None
    return found


def reasons(status: Json) -> list[str]:
    """What Argo says of the steps that did not succeed."""
    return [
        f"{node['displayName']}: {node['phase']}: {node.get('message')}"
        for node in status["nodes"].values()
        if node["phase"] != "Succeeded"
    ]


def pods_of(cluster: Cluster, name: str) -> list[Json]:
    """The Pods of a Workflow."""
    found: list[Json] = cluster.get("pods", "-l", f"workflows.argoproj.io/workflow={name}")["items"]
    return found


def outputs(status: Json, template: str) -> list[str]:
    """The first output parameter of each of a template's steps that succeeded."""
    return [
        node["outputs"]["parameters"][0]["value"]
        for node in status["nodes"].values()
        if (node.get("templateName"), node["type"], node["phase"]) == (template, "Pod", "Succeeded")
    ]


def result(status: Json, name: str) -> str:
    """What a script's step has printed."""
    (node,) = (node for node in status["nodes"].values() if node["displayName"] == name)
    answer: str = node["outputs"]["result"]
    return answer


def main_exit_code(found: Json) -> int:
    (code,) = (
        item["state"]["terminated"]["exitCode"]
        for item in found["status"]["containerStatuses"]
        if item["name"] == "main"
    )
    answer: int = code
    return answer


def ready(cluster: Cluster, name: str, ranks: int = 1) -> str:
    """The Pod of a Workflow's step, once its program runs in all its ranks."""

    def look() -> str:
        found = pods_of(cluster, name)
        if not found:
            return ""
        pod: str = found[0]["metadata"]["name"]
        log = cluster.kubectl("logs", pod, "-c", "main", check=False)
        return pod if log.stdout.count("ready") == ranks else ""

    return eventually(look, timeout_s=TIMEOUT_S, what=f"the program of {name}, in all its ranks")


def patch(cluster: Cluster, name: str, **spec: object) -> None:
    cluster.kubectl("patch", "workflow", name, "--type=merge", f"-p={json.dumps({'spec': spec})}")


@pytest.mark.parametrize(
    ("name", "ranks", "shutdown"),
    [("stopped", 1, "Stop"), ("stopped-mpi", 4, "Stop"), ("terminated", 1, "Terminate")],
)
def test_a_workflow_that_is_shut_down_ends_its_steps_by_sigterm(
    argo: Cluster, name: str, ranks: int, shutdown: str
) -> None:
    pod = ready(argo, name, ranks)
    patch(argo, name, shutdown=shutdown)
    status = ended(argo, name)
    assert status["phase"] == "Failed"
    assert shutdown in status["message"]
    assert main_exit_code(argo.wait_phase(pod, "Failed")) == 5


def test_every_run_of_the_fan_out_has_its_ranks_on_several_hosts(argo: Cluster) -> None:
    status = ended(argo, "proof")
    assert status["phase"] == "Succeeded", reasons(status)
    proofs = sorted(map(json.loads, outputs(status, "melt")), key=lambda item: item["world"])
    sums = [ranks * (ranks + 1) // 2 for ranks in RANKS]
    assert all(2 <= item.pop("hosts") <= 4 for item in proofs)
    assert proofs == [
        {"world": ranks, "sum": right, "expected": right, "ok": True}
        for ranks, right in zip(RANKS, sums, strict=True)
    ]


def test_the_scaling_table_is_made_of_what_the_runs_measured(argo: Cluster) -> None:
    status = ended(argo, "scaling")
    assert status["phase"] == "Succeeded", reasons(status)
    runs = sorted(text.split() for text in outputs(status, "melt"))
    (table,) = (pod for pod in pods_of(argo, "scaling") if "-table-" in pod["metadata"]["name"])
    head, *rows = [
        line.split()
        for line in argo.logs(table["metadata"]["name"], "-c", "main").splitlines()
        if not line.startswith("time=")
    ]
    assert head == ["ranks", "hosts", "seconds", "speed-up"]
    assert [row[0] for row in rows] == [str(ranks) for ranks in RANKS]
    first = float(runs[0][2])
    for run, row in zip(runs, rows, strict=True):
        assert row[:2] == run[:2]
        assert 2 <= int(row[1]) <= 4
        assert float(row[2]) == pytest.approx(float(run[2]), abs=0.001)
        assert float(row[3]) == pytest.approx(first / float(run[2]), abs=0.01)


def test_parameters_results_artifacts_and_volumes_reach_whom_they_should(argo: Cluster) -> None:
    status = ended(argo, "parts")
    assert status["phase"] == "Succeeded", reasons(status)
    assert outputs(status, "answer") == ["21"]
    assert result(status, "double") == "42"
    assert outputs(status, "set") == ["handed over"]
    (given,) = (pod for pod in pods_of(argo, "parts") if "-given-" in pod["metadata"]["name"])
    lines = argo.logs(given["metadata"]["name"], "-c", "main").splitlines()
    read = sorted(line.split(" ", 2) for line in lines if line.endswith(" it's $1"))
    assert [line[0] for line in read] == ["0", "1", "2", "3"]
    assert len({line[1] for line in read}) == 2
    assert sum('"world":4' in line for line in lines) == 1
    assert sum("sub-process exited" in line for line in lines) == 1  # of one emissary


def test_small_steps_all_succeed(argo: Cluster) -> None:
    status = ended(argo, "many")
    assert status["phase"] == "Succeeded", reasons(status)
    assert sorted(map(int, outputs(status, "one"))) == list(range(SMALL_STEPS))


def test_the_exit_code_of_a_rank_is_the_steps(argo: Cluster) -> None:
    status = ended(argo, "three")
    assert status["phase"] == "Failed"
    (pod,) = pods_of(argo, "three")
    assert main_exit_code(pod) == 3
    assert "exit code 3" in status["message"]


def test_a_failed_step_is_tried_again(argo: Cluster) -> None:
    status = ended(argo, "retry")
    assert status["phase"] == "Succeeded", reasons(status)
    assert sorted(map(main_exit_code, pods_of(argo, "retry"))) == [0, 3]


def test_a_suspended_workflow_starts_when_it_is_resumed(argo: Cluster) -> None:
    eventually(
        lambda: argo.get("workflow", "suspended").get("status"), what="the controller's first look"
    )
    assert pods_of(argo, "suspended") == []
    patch(argo, "suspended", suspend=None)
    assert ended(argo, "suspended")["phase"] == "Succeeded"


def test_a_workflow_that_is_suspended_while_it_runs_ends_its_step_and_starts_no_other(
    argo: Cluster,
) -> None:
    pod = ready(argo, "paused")
    patch(argo, "paused", suspend=True)
    argo.kubectl("exec", pod, "-c", "main", "--", "kill", "-USR1", "1")

    def has_ended() -> bool:
        nodes = argo.get("workflow", "paused")["status"]["nodes"].values()
        return any(node["type"] == "Pod" and node["phase"] == "Succeeded" for node in nodes)

    eventually(has_ended, timeout_s=TIMEOUT_S, what="the end of the first step")
    assert len(pods_of(argo, "paused")) == 1
    patch(argo, "paused", suspend=None)
    status = ended(argo, "paused")
    assert status["phase"] == "Succeeded", reasons(status)
    assert len(pods_of(argo, "paused")) == 2


def test_a_step_runs_on_podman(argo: Cluster) -> None:
    status = ended(argo, "podman")
    assert status["phase"] == "Succeeded", reasons(status)
    assert outputs(status, "main") == ["42"]
    (pod,) = pods_of(argo, "podman")
    assert pod["status"]["containerStatuses"][0]["containerID"].startswith("podman://")


def test_a_step_whose_emissary_is_killed_ends(argo: Cluster) -> None:
    """It leaves no exit code, for which Argo's other container waits until it is signalled."""
    pod = ready(argo, "lost")
    host = node_of(argo, PodFiles.of(argo, pod).job_id())
    pattern = f"^/var/run/argo/argoexec emissary.*{LOST}"
    argo.run(["pkill", "-9", "-f", pattern], host=host, user="root")
    assert ended(argo, "lost")["phase"] == "Failed"
    assert main_exit_code(argo.wait_phase(pod, "Failed")) == 137


def test_a_step_over_its_deadline_fails(argo: Cluster) -> None:
    status = ended(argo, "deadline")
    assert status["phase"] == "Failed"
    (pod,) = pods_of(argo, "deadline")
    assert pod["status"]["reason"] == "DeadlineExceeded"


def test_kubectl_exec_of_kill_does_what_argo_does(argo: Cluster) -> None:
    command = (
        "sh",
        "-c",
        "trap 'echo caught' USR1; trap 'exit 7' TERM; echo ready; while :; do sleep 1; done",
    )
    argo.create(pod("killed", *command))
    eventually(lambda: "ready" in argo.kubectl("logs", "killed", check=False).stdout)
    argo.kubectl("exec", "killed", "--", "kill", "-USR2", "1")  # which it does not catch
    argo.kubectl("exec", "killed", "--", "kill", "-USR1", "1")
    eventually(lambda: "caught" in argo.logs("killed"))
    argo.kubectl("exec", "killed", "--", "sh", "-c", "kill -TERM 1")
    assert terminated(argo.wait_phase("killed", "Failed"))["exitCode"] == 7
    argo.kubectl("delete", "pod", "killed")


@pytest.mark.long
def test_fifty_small_steps(argo: Cluster) -> None:
    argo.create(many("fifty", 50))
    status = ended(argo, "fifty", timeout_s=900)
    assert status["phase"] == "Succeeded", reasons(status)
    assert sorted(map(int, outputs(status, "one"))) == list(range(50))
