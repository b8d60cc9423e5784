"""Pods as users write and watch them, through kubectl and a real Slurm.

Most Pods are started together and looked at one by one: what a test shows is in its own Pod.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import (
    BUSYBOX,
    ENTRYPOINT,
    Cluster,
    Json,
    eventually,
    main_status,
    pod,
    terminated,
)

FLAGS = "slurm-job.hpk.io/flags"
SHOW = 'for word in "$0" "$@"; do echo "[$word]"; done'
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"


def env(**values: str) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


ENDING = (
    pod("command-args", "sh", "-c", SHOW, container={"args": ["one", "two words", ""]}),
    pod("args-over-cmd", image=BUSYBOX, container={"args": ["echo", "args are all"]}),
    pod("image-alone", image=ENTRYPOINT),
    pod("image-args", image=ENTRYPOINT, container={"args": ["of the Pod"]}),
    pod("image-command", "sh", "-c", SHOW, image=ENTRYPOINT),
    pod(
        "image-env",
        image=ENTRYPOINT,
        container={"env": env(GREETING="bye"), "workingDir": "/made/for/this"},
    ),
    pod(
        "expansion",
        "sh",
        "-c",
        SHOW + '; echo "$B $C"',
        container={
            "args": ["$(B)", "$(NOBODY)", "$$(A)", "$(A)$(A)", "$A"],
            "env": env(A="1", B="<$(A)$(LATER)>", C="$$(A) $(unclosed", LATER="2"),
        },
    ),
    pod("identity", "sh", "-c", "id -u; hostname; echo $HOSTNAME; grep NoNewPrivs /proc/1/status"),
    pod("exit-three", "sh", "-c", "exit 3"),
    pod("killed", "sh", "-c", "kill -9 $$$$"),
    pod("message-file", "sh", "-c", "echo last words > /dev/termination-log; exit 1"),
    pod(
        "message-path",
        "sh",
        "-c",
        "echo elsewhere > /var/message",
        container={"terminationMessagePath": "/var/message"},
    ),
    pod(
        "message-log",
        "sh",
        "-c",
        "echo first; echo second; exit 1",
        container={"terminationMessagePolicy": "FallbackToLogsOnError"},
    ),
    pod("no-program", "no-such-program"),
    pod("no-file", "/no/such/program"),
    pod("not-executable", "/etc/passwd"),
    pod("root-writes", "sh", "-c", "cd /; touch /tmp/a /etc/b /new && mkdir -p /srv/c && ls /srv"),
    pod("user-writes", "sh", "-c", "touch /tmp/a && mkdir /new && ls -d /new", image=ENTRYPOINT),
    pod("deadline", "sleep", "1000", spec={"activeDeadlineSeconds": 2}),
    pod("debug-node", "sh", "-c", "true", spec={"nodeSelector": {"hpk.io/partition": "debug"}}),
    pod(
        "resources",
        "sh",
        "-c",
        "true",
        resources={"requests": {"cpu": "1500m", "memory": "200Mi"}, "limits": {"memory": "300Mi"}},
    ),
    pod("gpu", "sh", "-c", "true", resources={"limits": {"nvidia.com/gpu": "2"}}),
    pod(
        "flags",
        "sh",
        "-c",
        "true",
        annotations={FLAGS: "--nodes=2 --ntasks-per-node=1 --mem=111M --time=7"},
        resources={"requests": {"cpu": "2"}},
    ),
    pod(
        "flags-win",
        "sh",
        "-c",
        "true",
        annotations={FLAGS: "-c 3 --mem=123M --comment 'a comment'"},
        resources={"requests": {"cpu": "1", "memory": "1Gi"}},
    ),
    pod(
        "flags-old-name", "sh", "-c", "true", annotations={"slurm-job.knoc.io/flags": "--mem=133M"}
    ),
)


@pytest.fixture(scope="module")
def ended(shared: Cluster) -> dict[str, Json]:
    """The Pods of ENDING, ended."""
    shared.create(*ENDING)
    return shared.wait_pods(made["metadata"]["name"] for made in ENDING)


def succeeded(found: Json) -> bool:
    phase: str = found["status"]["phase"]
    return phase == "Succeeded" and terminated(found)["exitCode"] == 0


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("command-args", "[one]\n[two words]\n[]\n"),
        ("args-over-cmd", "args are all\n"),
        (
            "image-alone",
            "uid=1234 gid=2345\ncwd=/srv\nGREETING=hello\nargument=from\nargument=the image\n",
        ),
        ("image-args", "uid=1234 gid=2345\ncwd=/srv\nGREETING=hello\nargument=of the Pod\n"),
        ("image-command", "[sh]\n"),
        (
            "image-env",
            "uid=1234 gid=2345\ncwd=/made/for/this\nGREETING=bye\n"
            "argument=from\nargument=the image\n",
        ),
        (
            "expansion",
            "[<1$(LATER)>]\n[$(NOBODY)]\n[$(A)]\n[11]\n[$A]\n<1$(LATER)> $(A) $(unclosed\n",
        ),
        ("root-writes", "c\n"),
        ("user-writes", "/new\n"),
    ],
)
def test_a_container_gets_what_pod_and_image_say(
    shared: Cluster, ended: dict[str, Json], name: str, log: str
) -> None:
    assert shared.logs(name) == log
    assert succeeded(ended[name])


def test_a_container_is_root_of_its_own_and_gains_no_privileges(
    shared: Cluster, ended: dict[str, Json]
) -> None:
    uid, kernels, hostname, privileges = shared.logs("identity").splitlines()
    assert (uid, kernels, hostname) == ("0", "identity", "identity")
    assert privileges.split()


@pytest.mark.parametrize(
    ("name", "code", "reason", "message"),
    [
        ("exit-three", 3, "Error", ""),
        ("killed", 137, "Error", ""),
        ("message-file", 1, "Error", "last words\n"),
        ("message-log", 1, "Error", "first\nsecond\n"),
        ("no-program", 128, "StartError", 'exec: "no-such-program": executable file not found'),
        ("no-file", 128, "StartError", "stat /no/such/program: no such file or directory"),
        ("not-executable", 128, "StartError", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_failure_says_how(
    ended: dict[str, Json], name: str, code: int, reason: str, message: str
) -> None:
    assert ended[name]["status"]["phase"] == "Failed"
    how = terminated(ended[name])
    assert (how["exitCode"], how["reason"]) == (code, reason)
    if reason == "StartError":
        assert message in how["message"]
    else:
        assert how.get("message", "") == message
        assert how["startedAt"] <= how["finishedAt"]
    if name == "killed":
        assert how["signal"] == signal.SIGKILL


def test_a_message_may_lie_elsewhere(ended: dict[str, Json]) -> None:
    assert terminated(ended["message-path"])["message"] == "elsewhere\n"
    assert succeeded(ended["message-path"])


def test_a_deadline_ends_the_pod(ended: dict[str, Json]) -> None:
    status = ended["deadline"]["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("identity", {"cpu": "1", "node": "1", "mem": "500M"}),
        ("resources", {"cpu": "2", "node": "1", "mem": "300M"}),
        ("gpu", {"gres/gpu": "2", "node": "1"}),
        ("flags", {"cpu": "4", "node": "2", "mem": "222M"}),
        ("flags-win", {"cpu": "3", "node": "1", "mem": "123M"}),
        ("flags-old-name", {"cpu": "1", "mem": "133M"}),
    ],
)
def test_resources_and_flags_become_slurms(
    shared: Cluster, ended: dict[str, Json], name: str, wanted: dict[str, str]
) -> None:
    assert succeeded(ended[name])
    (job,) = shared.job_ids(name)
    shown = accounting(shared, job, "ReqTRES")
    tres = dict(item.split("=") for item in shown[0].split(","))
    assert {key: tres.get(key) for key in wanted} == wanted


def test_times_and_partitions_are_the_pods(shared: Cluster, ended: dict[str, Json]) -> None:
    def of(name: str) -> list[str]:
        (job,) = shared.job_ids(name)
        return accounting(shared, job, "Partition,Timelimit,User")

    assert of("flags") == ["main", "00:07:00", "alice"]
    assert of("identity") == ["main", "1-00:00:00", "alice"]
    assert of("debug-node") == ["debug", "00:30:00", "alice"]
    assert ended["debug-node"]["spec"]["nodeName"] == "debug"
    assert succeeded(ended["debug-node"])


def accounting(cluster: Cluster, job: int, fields: str) -> list[str]:
    shown = cluster.run(["sacct", "-n", "-X", "-P", "-j", str(job), "-o", fields]).stdout
    return shown.strip().split("|")


def wait_ended(cluster: Cluster, job: int) -> None:
    def over() -> bool:
        return accounting(cluster, job, "State")[0] not in ("RUNNING", "PENDING", "COMPLETING")

    eventually(over, what=f"the end of job {job}")


def test_a_pods_life_reads_as_on_any_cluster(shared: Cluster, ended: dict[str, Json]) -> None:
    listed = {
        line.split()[0]: line.split()[1:4]
        for line in shared.kubectl("get", "pods", "--no-headers").stdout.splitlines()
    }
    assert listed["command-args"] == ["0/1", "Completed", "0"]
    assert listed["exit-three"] == ["0/1", "Error", "0"]
    assert listed["no-program"] == ["0/1", "StartError", "0"]
    described = shared.kubectl("describe", "pod", "command-args").stdout
    for words in ("Reason:       Completed", "Image ID:      registry.lab:5000/busybox@sha256:"):
        assert words in described

    def reasons() -> bool:
        seen = {event["reason"] for event in shared.events("command-args")}
        return {"Scheduled", "Pulled", "SlurmJobSubmitted", "Started"} <= seen

    eventually(reasons, what="the events of a Pod's life")
    (job,) = shared.job_ids("command-args")
    events = shared.kubectl("get", "events").stdout
    assert f"Submitted as Slurm job {job} to partition main" in events
    status = main_status(ended["command-args"])
    assert status["containerID"].startswith("apptainer://")
    assert status["imageID"].startswith("registry.lab:5000/busybox@sha256:")


# A queue.


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
    told = [e["message"] for e in cluster.events("held") if e["reason"] == "SlurmJobPending"]
    assert told == [waiting["message"]]
    refused = cluster.kubectl("logs", "held", check=False)
    assert 'container "main" in pod "held" is waiting to start: SlurmJobHeldUser' in refused.stderr
    cluster.run(["scontrol", "release", str(job)])
    assert succeeded(cluster.wait_phase("held", "Succeeded", "Failed"))
    assert cluster.logs("held") == "released\n"
    assert cluster.job_ids("held") == [job]


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


# Restarts. A server on the login host counts a Pod's runs, and answers each with its number.

COUNT = """
import socket
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], flush=True)
    runs = 0
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"%d\\n" % runs)
        runs += 1
        print(runs, flush=True)
"""


@pytest.fixture
def counter(cluster: Cluster) -> Iterator[str]:
    """A shell command that prints 0 when it runs first, then 1, …"""
    process = cluster.start(["python3", "-c", COUNT])
    assert process.stdout is not None
    port = int(process.stdout.readline())
    address = next(h.address for h in cluster.machine.lab.hosts if h.name == LOGIN)
    yield f"nc {address} {port}"
    process.terminate()
    process.wait(30)
    process.stdout.close()


def test_on_failure_restarts_in_the_same_job_until_it_succeeds(
    cluster: Cluster, counter: str
) -> None:
    # The first restart comes at once, the second after a while.
    script = f"run=$({counter}); echo this is run $run; test $run -gt 1"
    cluster.create(pod("again", "sh", "-c", script, restart_policy="OnFailure"))

    def backs_off() -> Json | None:
        (status,) = cluster.get("pod", "again")["status"].get("containerStatuses") or [{}]
        waiting = status.get("state", {}).get("waiting") or {}
        return status if waiting.get("reason") == "CrashLoopBackOff" else None

    status = eventually(backs_off, what="CrashLoopBackOff")
    assert status is not None
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off 10s restarting failed container=main" in status["state"]["waiting"]["message"]
    line = cluster.kubectl("get", "pod", "again", "--no-headers").stdout.split()
    assert line[1:3] == ["0/1", "CrashLoopBackOff"]
    assert cluster.logs("again") == "this is run 1\n"
    found = cluster.wait_phase("again", "Succeeded", "Failed")
    assert succeeded(found)
    status = main_status(found)
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert cluster.logs("again") == "this is run 2\n"
    assert cluster.logs("again", "--previous") == "this is run 1\n"
    assert len(cluster.job_ids("again")) == 1


def test_always_restarts_a_container_that_succeeded(cluster: Cluster, counter: str) -> None:
    script = f"run=$({counter}); echo run $run; test $run = 0 || exec sleep 100000"
    cluster.create(pod("always", "sh", "-c", script, restart_policy="Always"))

    def runs_again() -> Json | None:
        found = cluster.get("pod", "always")
        (status,) = found["status"].get("containerStatuses") or [{}]
        return found if status.get("restartCount") == 1 and status.get("ready") else None

    found = eventually(runs_again, what="a second run")
    assert found is not None
    assert found["status"]["phase"] == "Running"
    last = main_status(found)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (0, "Completed")
    assert cluster.logs("always", "--previous") == "run 0\n"
    cluster.kubectl("delete", "pod", "always", "--timeout=60s")


def test_never_runs_once_and_has_no_previous_log(shared: Cluster, ended: dict[str, Json]) -> None:
    assert main_status(ended["exit-three"])["restartCount"] == 0
    done = shared.kubectl("logs", "exit-three", "--previous", check=False)
    assert 'previous terminated container "main" in pod "exit-three" not found' in done.stderr


# Controllers.


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
        wait_ended(cluster, job)


# Watching, waiting, deleting.


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
    wait_ended(cluster, job)
    killing = [event for event in cluster.events("stays") if event["reason"] == "Killing"]
    assert killing[0]["message"] == "Stopping container main"


# The service account.

RELAY = """
import http.client, json, os, ssl, socket, sys
host, port = sys.argv[1:]
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        namespace, token, *ca = lines.read().decode().split("\\n", 2)
context = ssl.create_default_context(cadata=ca[0])
for path in (f"/api/v1/namespaces/{namespace}/pods", "/api", "/api/v1/secrets"):
    api = http.client.HTTPSConnection(host, int(port), context=context)
    api.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = api.getresponse()
    text = answer.read().decode()
    print(json.dumps([path, answer.status, json.loads(text).get("message", "")]), flush=True)
"""


def test_the_service_account_works_with_what_is_in_the_container(cluster: Cluster) -> None:
    """Token, CA and address as the container has them make a verified request.

    The container hands them to a client beside it, which sees the API server's own port.
    """
    cluster.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    cluster.kubectl(
        "create",
        "rolebinding",
        "r",
        "--role=reader",
        f"--serviceaccount={cluster.namespace}:default",
    )
    server = json.loads(cluster.run(["kubectl", "config", "view", "-o", "json"]).stdout)
    url = server["clusters"][0]["cluster"]["server"].removeprefix("https://")
    api_host, _, api_port = url.rpartition(":")
    relay = cluster.start(["python3", "-c", RELAY, api_host, api_port])
    assert relay.stdout is not None
    try:
        port = int(relay.stdout.readline())
        script = (
            f"cd {SECRETS};"
            f" (cat namespace; echo; cat token; echo; cat ca.crt) | nc {api_host} {port};"
            " echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT;"
            " if touch x 2>/dev/null; then echo writable; fi"
        )
        cluster.create(pod("account", "sh", "-c", script))
        cluster.wait_phase("account", "Succeeded", "Failed")
        answers = [json.loads(line) for line in relay.communicate(timeout=60)[0].splitlines()]
    finally:
        relay.kill()
        relay.wait()
    assert [answer[1] for answer in answers] == [200, 200, 403], answers
    assert f"system:serviceaccount:{cluster.namespace}:default" in answers[2][2]
    # That a client gets through there is shown in test_sharing.
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", cluster.logs("account"))


def test_a_pod_may_do_without_a_token(shared: Cluster, ended: dict[str, Json]) -> None:
    spec = {"automountServiceAccountToken": False}
    shared.create(pod("tokenless", "sh", "-c", f"ls {SECRETS} 2>&1 || true", spec=spec))
    assert succeeded(shared.wait_phase("tokenless", "Succeeded", "Failed"))
    assert "No such file or directory" in shared.logs("tokenless")


# The kubelet's own API.


def test_the_kubelet_answers_only_who_may_ask(shared: Cluster, ended: dict[str, Json]) -> None:
    node: Any = shared.get("node", "main")["status"]
    address = next(a["address"] for a in node["addresses"] if a["type"] == "InternalIP")
    base = f"{address}:{node['daemonEndpoints']['kubeletEndpoint']['Port']}"
    path = f"/containerLogs/{shared.namespace}/command-args/main"
    token = shared.kubectl("create", "token", "default").stdout.strip()
    stranger = (
        "umask 077; cd $(mktemp -d); openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
        " -nodes -keyout k -out c -days 1 -subj /O=system:masters/CN=kubernetes-admin 2>/dev/null;"
        f" curl -sk --cert c --key k -o /dev/null -w %{{http_code}} https://{base}{path}"
    )
    for command in (
        f"curl -sk -o /dev/null -w %{{http_code}} https://{base}{path}",
        f"curl -sk -o /dev/null -w %{{http_code}} https://{base}/pods",
        f"curl -sk -o /dev/null -w %{{http_code}} -H 'Authorization: Bearer {token}' https://{base}/pods",
        f"curl -sk -o /dev/null -w %{{http_code}} http://{base}/pods",
        stranger,
    ):
        done = shared.run(["bash", "-c", command], check=False)
        assert done.stdout[-3:] in ("000", "401"), (command, done.stdout)
    # Verified, but without the right.
    pki = "/home/alice/.hpk/pki/coredns-client"
    command = f"curl -sk --cert {pki}.crt --key {pki}.key -w %{{http_code}} https://{base}{path}"
    assert shared.run(["bash", "-c", command]).stdout.endswith("403")
    proxied = shared.run(["kubectl", "get", "--raw", "/api/v1/nodes/main/proxy/pods"]).stdout
    assert "command-args" in {item["metadata"]["name"] for item in json.loads(proxied)["items"]}
