"""What containers may do, and what they may not do to their volumes.

With both runtimes, as root and as another uid, with nothing asked for and privileged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpk.model.rights import CAPABILITIES, DEFAULT_CAPABILITIES
from tests.e2e.cluster import FLAGS, LAMMPS, MPI_FLAGS, Cluster, Json
from tests.e2e.volume_pods import RUNTIMES, USERS, container, mounts, pod

FROZEN = ("/host", "/part", "/secret", "/projected")
LOOK = "grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status"
SCRIPT = f"""
for path in {" ".join(FROZEN)}; do
  for way in "" "unshare -Urm"; do
    $way mount -o remount,rw,bind $path 2> /dev/null && echo remounted $path
    $way umount $path 2> /dev/null && echo unmounted $path
    $way umount -l $path 2> /dev/null && echo detached $path
  done
  (echo x > $path/x) 2>&1 | grep -o 'Read-only file system'
done
mount -t tmpfs none /tmp 2> /dev/null && echo mounted
{LOOK}
touch /written/go
until [ -e /written/hook ]; do sleep 0.1; done
cat /written/hook
"""
HOOK = (
    "until [ -e /written/go ]; do sleep 0.1; done;"
    f" ({LOOK}; grep -c '^none /tmp tmpfs ' /proc/mounts) > /written/h;"
    " mv /written/h /written/hook"
)
LOOKING = """
mine=$(readlink /proc/self/ns/user)
for process in /proc/[0-9]*; do
  [ "$(readlink $process/ns/user 2> /dev/null)" = "$mine" ] && continue
  echo other
  ls $process/root/ 2> /dev/null && echo it shows its files
  cat $process/environ 2> /dev/null && echo it shows its environment
done | sort -u
"""

RANK = f"""
(echo x > /host/x) 2>&1 | grep -o 'Read-only file system'
{LOOK}
for process in /proc/[0-9]*; do
  [ "$(readlink $process/ns/user 2> /dev/null)" = "$(readlink /proc/self/ns/user)" ] || continue
  [ "$(readlink $process/ns/mnt 2> /dev/null)" = "$(readlink /proc/self/ns/mnt)" ] ||
    ls $process/root/ 2> /dev/null
done
"""


def prisoner(name: str, runtime: str, user: int, is_privileged: bool, home: str) -> Json:
    """A Pod that tries what it can, and whose hook looks at itself."""
    frozen = [{"readOnly": True}, {"readOnly": True, "subPath": "a"}, {}, {}]
    volumes = ("host", "empty", "secret", "projected")
    main = container(
        "main",
        SCRIPT,
        securityContext={"privileged": True} if is_privileged else {},
        lifecycle={"postStart": {"exec": {"command": ["sh", "-c", HOOK]}}},
        volumeMounts=mounts(
            ("empty", "/written", {"subPath": "b"}), *zip(volumes, FROZEN, frozen, strict=True)
        ),
    )
    sources = [{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}]
    return pod(
        name,
        runtime,
        user,
        main,
        volumes=[
            {"name": "host", "hostPath": {"path": home}},
            {"name": "empty", "emptyDir": {}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "projected", "projected": {"sources": sources}},
        ],
    )


def others(name: str, runtime: str, **context: object) -> Json:
    """A Pod that looks at the processes of another container and of the runtime."""
    share = {"volumeMounts": mounts(("e", "/work"))}
    return pod(
        name,
        runtime,
        0,
        container("main", f"{LOOKING} touch /work/done", securityContext=context, **share),
        container("beside", "until [ -e /work/done ]; do sleep 0.1; done", **share),
        shareProcessNamespace=True,
        volumes=[{"name": "e", "emptyDir": {}}],
    )


each = pytest.mark.parametrize(
    ("runtime", "user", "is_privileged"),
    [(r, user, is_privileged) for r in RUNTIMES for user in USERS for is_privileged in (0, 1)],
)


@pytest.fixture(scope="module")
def home(shared: Cluster) -> Iterator[str]:
    """A directory of the user's that the pods may only read."""
    path = shared.home(f"frozen-{shared.namespace}")
    try:
        shared.run(["sh", "-c", f"mkdir -p {path} && echo given > {path}/file"])
        yield path
    finally:
        shared.run(["rm", "-rf", path])


@pytest.fixture(scope="module")
def ran(shared: Cluster, home: str) -> dict[str, Json]:
    meta = {"apiVersion": "v1", "metadata": {"name": "s"}}
    shared.create({**meta, "kind": "Secret", "stringData": {"k": "v"}})
    shared.create({**meta, "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
    pods = [
        prisoner(f"{runtime}-{user}-{is_privileged}", runtime, user, bool(is_privileged), home)
        for runtime in RUNTIMES
        for user in USERS
        for is_privileged in (0, 1)
    ]
    shared.create(*pods)
    return shared.wait_pods([item["metadata"]["name"] for item in pods], timeout_s=150)


@each
def test_what_is_mounted_read_only_stays_so(
    shared: Cluster, ran: dict[str, Json], home: str, runtime: str, user: int, is_privileged: int
) -> None:
    """And a hook has what the program has."""
    name = f"{runtime}-{user}-{is_privileged}"
    log = shared.logs(name)
    assert ran[name]["status"]["phase"] == "Succeeded", (log, ran[name]["status"])
    lines = log.splitlines()
    may_mount = bool(is_privileged and user == 0)
    assert lines[:4] == ["Read-only file system"] * 4
    assert lines[4 : 4 + may_mount] == ["mounted"] * may_mount
    program, hook = lines[4 + may_mount : 8 + may_mount], lines[8 + may_mount :]
    kept = CAPABILITIES if is_privileged else DEFAULT_CAPABILITIES
    mask = sum(1 << CAPABILITIES.index(capability) for capability in kept)
    wanted = [f"CapEff:\t{0 if user else mask:016x}", f"CapBnd:\t{mask:016x}", "NoNewPrivs:\t0"]
    filters = [f"Seccomp:\t{0 if is_privileged and user else 2}"]
    assert program == wanted + filters
    assert hook == [*wanted, *filters, f"{int(may_mount)}"]
    assert shared.run(["sh", "-c", f"ls {home}; cat {home}/file"]).stdout == "file\ngiven\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("added", [[], ["SYS_PTRACE"]], ids=len)
def test_nobody_looks_into_the_runtimes_processes(
    shared: Cluster, runtime: str, added: list[str]
) -> None:
    """Where processes are shared they are in sight, and /proc/PID/root of some is the node's."""
    name = f"looks-{runtime}-{len(added)}"
    shared.create(others(name, runtime, capabilities={"add": added}))
    shared.wait_phase(name, "Succeeded", "Failed")
    assert shared.logs(name, "-c", "main") == "other\n"


def test_ranks_have_no_capabilities_and_the_filter(shared: Cluster, home: str) -> None:
    """And look into nobody: the node's processes are in sight of them."""
    main = container("main", RANK, volumeMounts=mounts(("host", "/host", {"readOnly": True})))
    main["image"] = LAMMPS
    made = pod(
        "ranks",
        "apptainer",
        0,
        main,
        annotations={FLAGS: "--ntasks=2", MPI_FLAGS: "true"},
        volumes=[{"name": "host", "hostPath": {"path": home}}],
    )
    del made["spec"]["securityContext"]
    shared.create(made)
    found = shared.wait_phase("ranks", "Succeeded", "Failed")
    log = shared.logs("ranks")
    assert found["status"]["phase"] == "Succeeded", (log, found["status"])
    mask = sum(1 << CAPABILITIES.index(capability) for capability in DEFAULT_CAPABILITIES)
    status = [f"CapEff:\t{0:016x}", f"CapBnd:\t{mask:016x}", "NoNewPrivs:\t0", "Seccomp:\t2"]
    assert sorted(log.splitlines()) == sorted([*status, "Read-only file system"] * 2)
