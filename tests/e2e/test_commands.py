"""`hpk explain`, `script`, `why`, `ps` and the configuration, on real Slurm with a real kubelet."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bootstrap.lab.hosts import Machine
from tests.e2e.cluster import BUSYBOX, FLAGS, Cluster, eventually, pod
from tests.e2e.faults import PodFiles

Json = dict[str, Any]


def ps(cluster: Cluster) -> dict[str, Json]:
    text = cluster.run(["hpk", "ps", "-n", cluster.namespace, "-o", "json"]).stdout
    return {row["pod"]: row for row in json.loads(text)}


def test_what_changes_is_shown_as_it_changes(cluster: Cluster) -> None:
    watch = cluster.start(["hpk", "ps", "-n", cluster.namespace, "-w", "-o", "json"])
    assert watch.stdout is not None
    alarm = threading.Timer(240, watch.kill)
    alarm.start()
    try:
        cluster.create(pod("watched", "true"))
        statuses = []
        for line in watch.stdout:
            row = json.loads(line)
            assert row["pod"] == "watched"
            statuses.append(row["status"])
            if row["status"] == "Completed":
                break
        assert statuses[-1] == "Completed"
    finally:
        alarm.cancel()
        watch.kill()
        watch.wait(60)
        watch.stdout.close()


def why(cluster: Cluster, name: str) -> Json:
    argv = ["hpk", "why", name, "-n", cluster.namespace, "-o", "json"]
    answer: Json = json.loads(cluster.run(argv).stdout)
    return answer


def test_a_pod_that_ran_is_told_of_by_all(shared: Cluster) -> None:
    shared.create(pod("done", "sh", "-c", "exit 7", resources={"requests": {"cpu": "2"}}))
    shared.wait_phase("done", "Failed")
    (job,) = shared.job_ids("done")

    def ended() -> Json | None:
        row = ps(shared)["done"]
        return row if row["state"] in ("COMPLETED", "FAILED") else None

    row = eventually(ended, what="the job's end in hpk ps")
    assert row is not None
    assert (row["job_id"], row["status"]) == (job, "Error")
    assert row["nodes"].startswith("n")
    assert row["cpu_hours"] == pytest.approx(2 * row["elapsed_s"] / 3600)
    answer = why(shared, "done")
    assert "container main ended with exit code 7, its own" in answer["text"].lower()
    assert f"Slurm job {job} is" in answer["text"]
    assert answer["next"] == f"kubectl logs -n {shared.namespace} done"
    script = shared.run(["hpk", "script", "done", "-n", shared.namespace])
    assert "#SBATCH --cpus-per-task=2\n" in script.stdout
    assert f"Slurm job {job}" in script.stderr


def test_what_explain_shows_is_what_is_submitted(shared: Cluster) -> None:
    manifest = pod("same", "true", annotations={FLAGS: "--ntasks=2 --time=5 --comment='a b'"})
    shared.create(manifest)
    shared.wait_phase("same", "Succeeded")
    argv = ["hpk", "explain", "-n", shared.namespace, "-f", "-", "-o", "json"]
    (explained,) = json.loads(shared.run(argv, stdin=json.dumps(manifest)).stdout)
    (attempt,) = shared.run(
        ["sh", "-c", f"ls -d ~/.hpk/pods/{uid(shared, 'same')}/attempts/*"]
    ).stdout.split()
    submitted = shared.run(["hpk", "script", "same", "-n", shared.namespace]).stdout
    known = explained["script"].replace("<UID>", attempt.split("/")[-3])
    known = known.replace("<NONCE>", attempt.split("/")[-1])
    assert _unquoted(known) == _unquoted(submitted)
    assert any("was not pulled" in note for note in explained["notes"]) is False


def uid(cluster: Cluster, name: str) -> str:
    answer: str = cluster.get("pod", name)["metadata"]["uid"]
    return answer


def _unquoted(script: str) -> list[str]:
    """Placeholders need quotes that what takes their place does not."""
    return [line.replace('"', "").replace("'", "") for line in script.splitlines()]


def test_a_queued_pod_says_what_it_waits_for(shared: Cluster) -> None:
    shared.create(pod("held", "true", annotations={FLAGS: "--hold"}))
    row = eventually(
        lambda: (found := ps(shared).get("held")) and found["reason"] == "JobHeldUser" and found,
        what="Slurm's reason in hpk ps",
    )
    assert row and row["state"] == "PENDING"
    answer = why(shared, "held")
    assert "it is held by its owner" in answer["text"]
    assert answer["next"] == f"scontrol release {row['job_id']}"
    shared.kubectl("delete", "pod", "held")
    assert "There is no Pod" in why(shared, "held-never")["text"]


def test_a_refusal_reads_the_same_before_and_after(shared: Cluster) -> None:
    manifest = pod("refused", "true", annotations={FLAGS: "--ntask=2"})
    argv = ["hpk", "explain", "-n", shared.namespace, "-f", "-", "-o", "json"]
    explained = shared.run(argv, stdin=json.dumps(manifest), check=False)
    assert explained.returncode == 1
    (before,) = json.loads(explained.stdout)
    shared.create(manifest)
    status = shared.wait_phase("refused", "Failed")["status"]
    assert before["refusal"]["reason"] == status["reason"]
    told = f"{before['refusal']['message']}: {before['refusal']['remedy']}"
    assert told == status["message"]
    answer = why(shared, "refused")
    assert "--ntask" in answer["text"]
    assert answer["next"].startswith("did you mean --ntasks?; then kubectl delete pod")


@pytest.fixture
def one_job_more(shared: Cluster) -> Iterator[int]:
    """A job of the user's own, and a limit that leaves room for one beside it."""
    text = shared.run(["sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true"])
    own = int(text.stdout)
    limit = ["sacctmgr", "-i", "modify", "user", shared.user, "set"]
    shared.run([*limit, "MaxSubmitJobs=2"], user="root")
    yield own
    shared.run([*limit, "MaxSubmitJobs=-1"], user="root")
    shared.run(["scancel", str(own)])


def test_a_submit_limit_is_waited_out(shared: Cluster, one_job_more: int) -> None:
    shared.create(pod("first", "true", annotations={FLAGS: "--hold"}))
    eventually(lambda: shared.job_ids("first"), what="the first Pod's job")
    shared.create(pod("second", "true"))
    eventually(
        lambda: ps(shared)["second"]["status"] == "SlurmSubmitLimit", what="the limit as status"
    )
    answer = why(shared, "second")
    assert "AssocMaxSubmitJobLimit" in answer["text"]
    assert answer["next"].startswith("nothing: it is submitted again by itself")
    shared.kubectl("delete", "pod", "first")
    shared.wait_phase("second", "Succeeded")
    assert len(shared.job_ids("second")) == 1
    state = shared.run(["squeue", "-h", "-j", str(one_job_more), "-o", "%T %r"]).stdout
    assert state.split() == ["PENDING", "JobHeldUser"]


def test_many_wait_at_a_submit_limit_as_one(shared: Cluster, one_job_more: int) -> None:
    shared.create(pod("stopper", "true", annotations={FLAGS: "--hold"}))
    eventually(lambda: shared.job_ids("stopper"), what="the first Pod's job")
    names = [f"crowd-{number}" for number in range(12)]
    shared.create(*(pod(name, "true") for name in names))

    def all_wait() -> bool:
        table = ps(shared)
        return all(table[name]["status"] == "SlurmSubmitLimit" for name in names)

    eventually(all_wait, what="the limit as the status of each")
    files = [PodFiles.of(shared, name) for name in names]
    # Whoever asked Slurm has one directory, and the others none.
    assert max(len(one.attempts()) for one in files) == 1
    assert max(len(one.steps()) for one in files if one.exists) <= 2
    shared.kubectl("delete", "pod", "stopper")
    for name in names:
        shared.wait_phase(name, "Succeeded", timeout_s=180)
    assert [len(shared.job_ids(name)) for name in names] == [1] * len(names)


@pytest.fixture(scope="module")
def carol(machine: Machine) -> Iterator[Cluster]:
    """The control plane of the user with no default account, who has two accounts."""
    found = Cluster(machine=machine, user="carol")
    with contextlib.ExitStack() as afterwards:
        for made, removed in (
            (
                "add account special Cluster=lab Description=special Organization=lab",
                "delete account special",
            ),
            ("add user carol Account=special", "delete user carol Account=special"),
        ):
            argv = ["sacctmgr", "-i", *removed.split()]
            afterwards.callback(found.run, argv, user="root", check=False)
            found.run(["sacctmgr", "-i", *made.split()], user="root", check=False)
        afterwards.callback(found.run, ["rm", "-f", found.home(".hpk/config.toml")])
        afterwards.callback(found.run, ["hpk", "down", "--cancel-jobs"], timeout_s=120)
        found.run(["hpk", "up"], timeout_s=180)
        yield found


def account(cluster: Cluster, name: str, namespace: str) -> str:
    found = Cluster(machine=cluster.machine, user=cluster.user, namespace=namespace)
    (job,) = found.job_ids(name)
    return cluster.run(["sacct", "-n", "-X", "-P", "-j", str(job), "-o", "Account"]).stdout.strip()


def test_an_account_comes_from_the_configuration(carol: Cluster) -> None:
    carol.create(pod("without", "true"))
    failed = carol.wait_phase("without", "Failed")
    assert failed["status"]["reason"] == "SlurmInvalidAccount"
    answer = why(carol, "without")
    assert "Invalid account" in answer["text"]
    assert "--account" in answer["next"]

    text = '[slurm]\naccount = "users"\n[namespaces.climate]\naccount = "special"\n'
    carol.run(["sh", "-c", "cat > ~/.hpk/config.toml"], stdin=text)
    shown = json.loads(carol.run(["hpk", "config", "show", "-o", "json"]).stdout)
    by_key = {one["key"]: one for one in shown}
    assert by_key["slurm.account"]["origin"] == carol.home(".hpk/config.toml")
    carol.run(["hpk", "down", "--cancel-jobs"], timeout_s=120)
    carol.run(["hpk", "up"], timeout_s=180)
    carol.run(["kubectl", "create", "namespace", "climate"])
    climate = Cluster(machine=carol.machine, user=carol.user, namespace="climate")
    eventually(
        lambda: climate.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
        what="the namespace's default service account",
    )
    carol.create(pod("with", "true"))
    climate.create(pod("special", "true"))
    carol.wait_phase("with", "Succeeded")
    climate.wait_phase("special", "Succeeded")
    assert account(carol, "with", "default") == "users"
    assert account(carol, "special", "climate") == "special"
    explained = carol.run(["hpk", "explain", "-f", "-"], stdin=json.dumps(pod("x", image=BUSYBOX)))
    assert f"slurm.account in {carol.home('.hpk/config.toml')}" in explained.stdout


def test_a_mistyped_setting_stops_hpk_up_with_its_place(carol: Cluster) -> None:
    other = carol.home("other-hpk")
    argv = ["sh", "-c", f"mkdir -p {other} && echo '[slurm]\nacount = 1' > {other}/config.toml"]
    carol.run(argv)
    done = carol.run(["env", f"HPK_HOME={other}", "hpk", "up"], check=False)
    carol.run(["rm", "-r", other])
    assert done.returncode == 1
    assert f"{other}/config.toml: slurm.acount: there is no such setting" in done.stderr
    assert "did you mean account?" in done.stderr
