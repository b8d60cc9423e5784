"""Pods as users write and watch them, through kubectl and a real Slurm.

Most Pods are started together and looked at one by one: what a test shows is in its own Pod.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.cluster import (
    BUSYBOX,
    ENTRYPOINT,
    FLAGS,
    Cluster,
    Json,
    eventually,
    main_status,
    pod,
    succeeded,
    terminated,
)

SHOW = 'for word in "$0" "$@"; do echo "[$word]"; done'


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
    pod("killed", "sh", "-c", "sh -c 'kill -9 $$$$'; exit $$?"),
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
    shown = shared.accounting(job, "ReqTRES")
    tres = dict(item.split("=") for item in shown[0].split(","))
    assert {key: tres.get(key) for key in wanted} == wanted


def test_times_and_partitions_are_the_pods(shared: Cluster, ended: dict[str, Json]) -> None:
    def of(name: str) -> list[str]:
        (job,) = shared.job_ids(name)
        return shared.accounting(job, "Partition,Timelimit,User")

    assert of("flags") == ["main", "00:07:00", "alice"]
    assert of("identity") == ["main", "1-00:00:00", "alice"]
    assert of("debug-node") == ["debug", "00:30:00", "alice"]
    assert ended["debug-node"]["spec"]["nodeName"] == "debug"
    assert succeeded(ended["debug-node"])


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
        return {"Scheduled", "Pulled", "SlurmJobSubmitted", "Created", "Started"} <= seen

    eventually(reasons, what="the events of a Pod's life")
    (job,) = shared.job_ids("command-args")
    events = shared.kubectl("get", "events").stdout
    assert f"Submitted as Slurm job {job} to partition main" in events
    status = main_status(ended["command-args"])
    assert status["containerID"].startswith("apptainer://")
    assert status["imageID"].startswith("registry.lab:5000/busybox@sha256:")


def test_never_runs_once_and_has_no_previous_log(shared: Cluster, ended: dict[str, Json]) -> None:
    assert main_status(ended["exit-three"])["restartCount"] == 0
    done = shared.kubectl("logs", "exit-three", "--previous", check=False)
    assert 'previous terminated container "main" in pod "exit-three" not found' in done.stderr


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
