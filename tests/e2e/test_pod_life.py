"""A Pod on its way, as kubectl shows it: queued, waiting for a node, running, deleted."""

from __future__ import annotations

from tests.e2e.cluster import FLAGS, Cluster, Json, eventually, pod, succeeded


def test_a_queued_pod_shows_slurms_reason_until_it_runs(cluster: Cluster) -> None:
    cluster.create(
        pod("held", "sh", "-c", "echo released", annotations={FLAGS: "--hold"}),
        pod("later", "true", annotations={FLAGS: "--begin=now+1hour"}),
    )

    def waits(name: str, reason: str) -> Json | None:
        (status,) = cluster.get("pod", name)["status"].get("containerStatuses") or [{}]
        waiting: Json = status.get("state", {}).get("waiting") or {}
        return waiting if waiting.get("reason") == reason else None

    waiting = eventually(lambda: waits("held", "SlurmJobHeldUser"), what="the reason of a hold")
    (job,) = cluster.job_ids("held")
    assert waiting is not None
    assert waiting["message"] == f"Slurm job {job} is queued: JobHeldUser"
    assert cluster.get("pod", "held")["status"]["phase"] == "Pending"
    eventually(lambda: waits("later", "SlurmBeginTime"), what="the reason of a later begin")
    line = cluster.kubectl("get", "pod", "held", "--no-headers").stdout.split()
    assert line[1:3] == ["0/1", "SlurmJobHeldUser"]
    assert (
        f"Slurm job {job} is queued: JobHeldUser"
        in cluster.kubectl("describe", "pod", "held").stdout
    )
    told = [e["message"] for e in cluster.events("held") if e["reason"] == "SlurmJobSubmitted"]
    assert told == [f"Submitted as Slurm job {job} to partition main; {waiting['message']}"]
    refused = cluster.kubectl("logs", "held", check=False)
    assert 'container "main" in pod "held" is waiting to start: SlurmJobHeldUser' in refused.stderr
    cluster.run(["scontrol", "release", str(job)])
    assert succeeded(cluster.wait_phase("held", "Succeeded", "Failed"))
    assert cluster.logs("held") == "released\n"
    assert cluster.job_ids("held") == [job]


def test_a_renamed_job_is_still_its_pods(cluster: Cluster) -> None:
    cluster.create(pod("renamed", "true", annotations={FLAGS: "--begin=now+1hour"}))

    def waits(reason: str) -> bool:
        (status,) = cluster.get("pod", "renamed")["status"].get("containerStatuses") or [{}]
        waiting: Json = status.get("state", {}).get("waiting") or {}
        return waiting.get("reason") == reason

    eventually(lambda: waits("SlurmBeginTime"), what="the reason of a later begin")
    (job,) = cluster.job_ids("renamed")
    cluster.run(["scontrol", "update", f"jobid={job}", "name=something-else"])
    # What Slurm says of the job under its new name still reaches the Pod.
    cluster.run(["scontrol", "hold", str(job)])
    eventually(lambda: waits("SlurmJobHeldUser"), what="the reason of a hold")
    cluster.run(["scontrol", "update", f"jobid={job}", "starttime=now"])
    cluster.run(["scontrol", "release", str(job)])
    assert succeeded(cluster.wait_phase("renamed", "Succeeded", "Failed"))


def test_a_cordoned_or_missing_node_keeps_a_pod_waiting_with_the_schedulers_word(
    cluster: Cluster,
) -> None:
    selected: Json = {"nodeSelector": {"hpk.io/partition": "debug"}}
    nowhere: Json = {"nodeSelector": {"hpk.io/partition": "nowhere"}}
    cluster.run(["kubectl", "cordon", "debug"])
    try:
        cluster.create(pod("cordoned", "true", spec=selected), pod("nowhere", "true", spec=nowhere))
        for name, words in (
            ("cordoned", "were unschedulable"),
            ("nowhere", "node affinity/selector"),
        ):

            def told(name: str = name, words: str = words) -> bool:
                events = [e for e in cluster.events(name) if e["reason"] == "FailedScheduling"]
                return any(words in event["message"] for event in events)

            eventually(told, what=f"the scheduler's word about {name}")
            assert cluster.get("pod", name)["status"]["phase"] == "Pending"
    finally:
        cluster.run(["kubectl", "uncordon", "debug"])
    assert succeeded(cluster.wait_phase("cordoned", "Succeeded", "Failed", timeout_s=180))


def test_get_pods_watch_shows_a_life_and_a_deletion(cluster: Cluster) -> None:
    watch = cluster.start(
        ["kubectl", "--namespace", cluster.namespace, "get", "pods", "--watch", "--no-headers"]
    )
    try:
        script = "sleep 1; echo $$$$ > /dev/termination-log"
        cluster.create(pod("watched", "sh", "-c", script))
        cluster.kubectl("wait", "pod/watched", "--for=jsonpath={.status.phase}=Succeeded")
        cluster.kubectl("delete", "pod", "watched", "--timeout=60s")
    finally:
        watch.terminate()
        text, _ = watch.communicate(timeout=30)
    seen = [line.split()[2] for line in text.splitlines() if line.startswith("watched")]
    order = list(dict.fromkeys(seen))
    wanted = ["Pending", "ContainerCreating", "Running", "Completed"]
    assert [word for word in order if word in wanted] == wanted
    assert set(order) <= {*wanted, "Terminating", "SlurmPriority", "SlurmResources", "SlurmNone"}


def test_wait_for_ready_and_delete_of_a_running_pod(cluster: Cluster) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo hello; while true; do sleep 0.1; done"
    cluster.create(pod("stays", "sh", "-c", script))
    cluster.kubectl("wait", "pod/stays", "--for=condition=Ready", "--timeout=90s")
    line = cluster.kubectl("get", "pod", "stays", "-o", "wide", "--no-headers").stdout.split()
    assert line[1:4] == ["1/1", "Running", "0"]
    assert line[6] == "main"
    (job,) = cluster.job_ids("stays")
    cluster.kubectl("delete", "pod", "stays", "--timeout=60s")
    assert cluster.kubectl("get", "pod", "stays", check=False).returncode != 0
    cluster.wait_job_ended(job)
    killing = [event for event in cluster.events("stays") if event["reason"] == "Killing"]
    assert killing[0]["message"] == "Stopping container main"
