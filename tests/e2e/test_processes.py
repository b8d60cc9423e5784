"""What a container's processes see and reach: their own, or all of the pod's."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import BUSYBOX, Cluster, Json

RUNTIME = "slurm-job.hpk.io/runtime"
WAIT = "until [ -e /work/done ]; do sleep 0.1; done"
ALONE = f"""
cat /proc/$$$$/comm /proc/1/comm; echo $$$$
{WAIT}
ls -d /proc/[0-9]* | wc -l
ls /bin | grep -x busybox
"""
KILLER = """
exec 2> /dev/null  # the shell may say there what it has killed
sleep 1000 &
kill -9 -1
kill -9 1
wait $!
echo $?
umount /proc || echo kept
touch /work/done
"""
SEES = f"sleep 4711 & {WAIT}; wait $!; echo $?"
SEEN = """
echo $$$$
until set -- $(ps | grep '[s]leep 4711$') && [ "$1" ]; do sleep 0.1; done
kill -9 $1
touch /work/done
"""


ENTERED = """
read now _ < /proc/uptime
end=$$(( $${now%.*} + 6 ))
while [ $${now%.*} -lt $$end ]; do
  read now _ < /proc/uptime
  for process in /proc/[0-9]*; do
    [ $$process = /proc/1 ] || ! [ -e $$process/fd/8 ] || echo $$process
  done
done
ls /tmp/probed
"""
"""Says who of the container's processes has more descriptors than a program begins with."""


def pod(name: str, runtime: str, scripts: dict[str, str], **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {RUNTIME: runtime}},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "work", "emptyDir": {}}],
            "containers": [
                {
                    "name": container,
                    "image": BUSYBOX,
                    "command": ["sh", "-c", script],
                    "securityContext": {"runAsUser": uid},
                    "volumeMounts": [{"name": "work", "mountPath": "/work"}],
                }
                for (container, script), uid in zip(scripts.items(), (0, 4711), strict=False)
            ],
            **spec,
        },
    }


@pytest.fixture(scope="module")
def ended(shared: Cluster) -> dict[str, Json]:
    own, seen = {"killer": KILLER, "alone": ALONE}, {"sees": SEES, "seen": SEEN}
    pods = [
        made
        for runtime in ("apptainer", "podman")
        for made in (
            pod(f"{runtime}-own", runtime, own),
            pod(f"{runtime}-shared", runtime, seen, shareProcessNamespace=True),
        )
    ]
    for runtime in ("apptainer", "podman"):
        entered = pod(f"{runtime}-entered", runtime, {"main": ENTERED})
        probe = {"exec": {"command": ["touch", "/tmp/probed"]}, "periodSeconds": 1}
        entered["spec"]["containers"][0]["readinessProbe"] = probe
        pods.append(entered)
    shared.create(*pods)
    return shared.wait_pods([item["metadata"]["name"] for item in pods])


def exit_codes(found: Json) -> list[int]:
    statuses = found["status"]["containerStatuses"]
    return [status["state"]["terminated"]["exitCode"] for status in statuses]


@pytest.mark.parametrize("runtime", ["apptainer", "podman"])
def test_a_container_is_alone_with_its_processes(
    shared: Cluster, ended: dict[str, Json], runtime: str
) -> None:
    """Its program is process 1; what one container kills is no process of the others, nor of the
    runtime, which shows them their images; nor does it see the pod's /proc below its own."""
    name = f"{runtime}-own"
    assert exit_codes(ended[name]) == [0, 0]
    assert shared.logs(name, "-c", "killer").split() == ["137", "kept"]
    assert shared.logs(name, "-c", "alone").split() == ["sh", "sh", "1", "3", "busybox"]


@pytest.mark.parametrize("runtime", ["apptainer", "podman"])
def test_containers_that_share_their_processes(
    shared: Cluster, ended: dict[str, Json], runtime: str
) -> None:
    name = f"{runtime}-shared"
    assert exit_codes(ended[name]) == [0, 0]
    assert shared.logs(name, "-c", "sees").split() == ["137"]
    assert int(shared.logs(name, "-c", "seen")) > 1


@pytest.mark.parametrize("runtime", ["apptainer", "podman"])
def test_nobody_looks_into_what_enters_a_container(
    shared: Cluster, ended: dict[str, Json], runtime: str
) -> None:
    """A probe's process is there before it has left the node's files and podinit's descriptors
    behind; of these the program gets none."""
    name = f"{runtime}-entered"
    assert exit_codes(ended[name]) == [0]
    assert shared.logs(name).split() == ["/tmp/probed"]
