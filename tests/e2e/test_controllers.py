"""Jobs and Deployments: their Pods come, end and are replaced as on any cluster."""

from __future__ import annotations

from bootstrap.admission_policy import LABEL
from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.volume_pods import container, mounts


def template(*command: str) -> Json:
    made = pod("unused", *command)
    return {"metadata": {"labels": {"app": "it"}}, "spec": made["spec"]}


def test_a_job_runs_its_completions(cluster: Cluster) -> None:
    script = "echo done by $HOSTNAME"
    spec: Json = {"completions": 3, "parallelism": 2, "template": template("sh", "-c", script)}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "three"}, "spec": spec}
    cluster.create(job)
    cluster.kubectl("wait", "job/three", "--for=condition=complete", "--timeout=100s")
    pods = cluster.get("pods", "-l", "job-name=three")["items"]
    assert len(pods) == 3
    for made in pods:
        name = made["metadata"]["name"]
        assert cluster.logs(name) == f"done by {name}\n"
        assert len(cluster.job_ids(name)) == 1


def test_a_job_gives_up_after_its_backoff_limit(cluster: Cluster) -> None:
    spec: Json = {"backoffLimit": 0, "template": template("false")}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bad"}, "spec": spec}
    cluster.create(job)
    cluster.kubectl("wait", "job/bad", "--for=condition=failed", "--timeout=100s")
    assert len(cluster.pods()) == 1


def test_a_deployment_keeps_its_replicas(cluster: Cluster) -> None:
    made = template("sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1; done")
    made["spec"]["restartPolicy"] = "Always"
    selector = {"matchLabels": {"app": "it"}}
    spec: Json = {"replicas": 2, "selector": selector, "template": made}
    cluster.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "two"}, "spec": spec}
    )
    cluster.kubectl("rollout", "status", "deployment/two", "--timeout=100s")
    first = set(cluster.pods())
    assert len(first) == 2
    gone = sorted(first)[0]
    cluster.kubectl("delete", "pod", gone, "--timeout=60s")
    cluster.kubectl("rollout", "status", "deployment/two", "--timeout=100s")
    assert gone not in cluster.pods()
    cluster.kubectl("scale", "deployment/two", "--replicas=0")
    eventually(lambda: not cluster.pods(), what="no replica")
    for name in first:
        (job,) = cluster.job_ids(name)
        cluster.wait_job_ended(job)


def test_a_deployment_that_cannot_run_waits_with_its_reason_and_makes_no_others(
    cluster: Cluster,
) -> None:
    # The API server would refuse it by itself.
    cluster.run(["kubectl", "label", "namespace", cluster.namespace, f"{LABEL}=off"])
    made = template("sh", "-c", "sleep 600")
    made["spec"] |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}
    ports = [{"containerPort": 80, "hostIP": "127.0.0.1"}]
    made["spec"]["containers"][0]["ports"] = ports
    selector = {"matchLabels": {"app": "it"}}
    spec: Json = {"replicas": 1, "selector": selector, "template": made}
    cluster.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "held"}, "spec": spec}
    )

    def refused() -> Json | None:
        for name in cluster.pods():
            found = cluster.get("pod", name)
            conditions = {c["type"]: c for c in found["status"].get("conditions") or []}
            if "hpk.io/Admitted" in conditions:
                return found
        return None

    found = eventually(refused, what="a Pod that says why it waits")
    assert found is not None
    assert found["status"]["phase"] == "Pending"
    (status,) = found["status"]["containerStatuses"]
    assert status["state"]["waiting"]["reason"] == "UnsupportedField"
    assert "spec.containers[0].ports[0].hostIP" in status["state"]["waiting"]["message"]
    name = found["metadata"]["name"]
    eventually(
        lambda: [e for e in cluster.events(name) if e["reason"] == "UnsupportedField"],
        what="the event of a refusal",
    )
    assert list(cluster.pods()) == [name]
    fix = '{"spec":{"template":{"spec":{"containers":[{"name":"main","ports":null}]}}}}'
    cluster.kubectl("patch", "deployment", "held", "-p", fix)
    cluster.kubectl("rollout", "status", "deployment/held", "--timeout=100s")


def test_what_another_controller_says_of_a_pod_is_repaired_or_left_as_it_is_its_own(
    cluster: Cluster,
) -> None:
    made = pod("web", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    cluster.create(made)
    cluster.wait_phase("web", "Running")

    def conditions() -> dict[str, str]:
        found = cluster.get("pod", "web")["status"]["conditions"]
        return {c["type"]: c["status"] for c in found}

    eventually(lambda: conditions()["Ready"] == "True", what="a Pod that is ready")
    # As the node lifecycle controller does when a node was not heard of, and a controller's own.
    drift = (
        '{"status":{"conditions":[{"type":"Ready","status":"False"},'
        '{"type":"example.com/mine","status":"True"}]}}'
    )
    cluster.kubectl("patch", "pod", "web", "--subresource=status", "-p", drift)
    eventually(lambda: conditions()["Ready"] == "True", what="a Pod that is ready again")
    assert conditions()["example.com/mine"] == "True"


def test_a_deployment_with_a_config_map_and_a_secret(cluster: Cluster) -> None:
    cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v1"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "w"}},
    )
    script = (
        'echo "$P $(cat /c/k)"; while ! grep -q v2 /c/k; do sleep 0.2; done; echo now v2; sleep 600'
    )
    main = container(
        "main",
        script,
        env=[{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}],
        volumeMounts=mounts(("c", "/c")),
    )
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [main],
            "volumes": [{"name": "c", "configMap": {"name": "c"}}],
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "d"}},
            "template": template,
        },
    }
    cluster.create(deployment)
    cluster.kubectl("rollout", "status", "deployment/d", "--timeout=120s", timeout_s=150)
    names = list(cluster.pods())
    assert len(names) == 2

    def all_say(text: str) -> bool:
        return all(cluster.logs(name) == text for name in names)

    eventually(lambda: all_say("w v1\n"), what="both logs")
    cluster.kubectl("patch", "configmap", "c", "-p", '{"data":{"k":"v2"}}')
    eventually(lambda: all_say("w v1\nnow v2\n"), timeout_s=120, what="the update in both")
    cluster.kubectl("delete", "deployment", "d", "--wait=false")
