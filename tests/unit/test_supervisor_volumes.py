"""The supervisor's pieces for pods of many containers: their order, volumes."""

from __future__ import annotations

import os
import queue
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpk.model import codec
from hpk.model.bundle import Bundle, ContainerBundle
from hpk.model.errors import PermanentError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import (
    EmptyDirVolume,
    HostPathVolume,
    JobSpec,
    MpiPlan,
    ProjectedVolume,
    RestartPolicy,
    VolumeMount,
)
from hpk.runtimes.base import BindMount, HoldRequest, NodeFacts
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor.inside import environment, mounts, size_limits
from hpk.supervisor.inside.host_path import host_path_source
from hpk.supervisor.inside.localdir import LocalDirs, NodeRoots
from hpk.supervisor.inside.pod_volumes import PodVolumes, VolumeDirs, pod_dirs
from hpk.supervisor.inside.sub_path import VolumeError, sub_path_source
from hpk.supervisor.pod import sequence
from hpk.supervisor.pod.sequence import InitView, Turn
from hpk.supervisor.process.places import Mount
from hpk.trees import remove_tree
from tests.deep_tree import make_deep
from tests.supervisor_peer import container, env, volume, write_attempt

WAITING = InitView(False, False, False, False, False)
RUNNING = InitView(False, True, True, False, False)
DONE = InitView(False, True, True, True, False)
UNKNOWN = "only recognise file, directory, socket, block device and character device"
FAILED = InitView(False, True, True, True, True)
SIDECAR_WAITING = InitView(True, False, False, False, False)
SIDECAR_STARTING = InitView(True, True, False, False, False)
SIDECAR = InitView(True, True, True, False, False)


@pytest.mark.parametrize(
    ("inits", "turn"),
    [
        ((), (Turn.MAIN, 0)),
        ((WAITING, WAITING), (Turn.INIT, 0)),
        ((RUNNING, WAITING), (Turn.WAIT, 0)),
        ((DONE, WAITING), (Turn.INIT, 1)),
        ((DONE, DONE), (Turn.MAIN, 0)),
        ((DONE, FAILED, WAITING), (Turn.FAILED, 1)),
        ((SIDECAR_WAITING, WAITING), (Turn.INIT, 0)),
        ((SIDECAR_STARTING, WAITING), (Turn.WAIT, 0)),
        ((SIDECAR, WAITING), (Turn.INIT, 1)),
        ((SIDECAR, DONE), (Turn.MAIN, 0)),
    ],
)
def test_whose_turn_it_is(inits: tuple[InitView, ...], turn: tuple[Turn, int]) -> None:
    assert sequence.next_turn(inits) == turn


def test_when_init_containers_start_again() -> None:
    plain, sidecar = container((), "x"), container((), "x", restart_always=True)
    assert sequence.init_restart_policy(sidecar, RestartPolicy.NEVER) is RestartPolicy.ALWAYS
    assert sequence.init_restart_policy(plain, RestartPolicy.ALWAYS) is RestartPolicy.ON_FAILURE
    assert sequence.init_restart_policy(plain, RestartPolicy.NEVER) is RestartPolicy.NEVER


@pytest.mark.parametrize(
    ("kind", "made", "message"),
    [
        ("", "none", ""),
        ("", "file", ""),
        ("Directory", "directory", ""),
        (
            "Directory",
            "none",
            'failed, {} is not a directory, unable to determine its type: path "{}" does not exist',
        ),
        ("Directory", "file", "failed: {} is not a directory, it's a File"),
        ("DirectoryOrCreate", "none", ""),
        ("DirectoryOrCreate", "file", "failed: {} is not a directory, it's a File"),
        ("File", "file", ""),
        ("File", "directory", "failed: {} is not a file, it's a Directory"),
        ("FileOrCreate", "none", ""),
        ("FileOrCreate", "directory", "failed: {} is not a file, it's a Directory"),
        ("Socket", "socket", ""),
        ("Socket", "file", "failed: {} is not a socket file, it's a File"),
        ("CharDevice", "device", ""),
        ("CharDevice", "file", "failed: {} is not a character device, it's a File"),
        ("BlockDevice", "device", "failed: {} is not a block device, it's a CharDevice"),
        (
            "File",
            "pipe",
            f"failed, {{}} is not a file, unable to determine its type: {UNKNOWN}",
        ),
    ],
)
def test_host_path_types(tmp_path: Path, kind: str, made: str, message: str) -> None:
    path = tmp_path / "x y"
    if made == "directory":
        path.mkdir()
    elif made == "file":
        path.write_text("")
    elif made == "pipe":
        os.mkfifo(path)
    elif made == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif made == "device":
        path = Path("/dev/null")
    plan = HostPathVolume("v", str(path), kind)
    if not message:
        assert host_path_source(plan, ()) == str(path)
        assert path.is_file() == (kind in ("File", "FileOrCreate") or made == "file")
        return
    with pytest.raises(VolumeError) as caught:
        host_path_source(plan, ())
    says = f"hostPath type check {message.replace('{}', str(path))}"
    assert str(caught.value) == f'MountVolume.SetUp failed for volume "v" : {says}'
    assert caught.value.reason == "ContainerCreating"
    if made == "none":
        assert not path.exists()


CLOSED = """
import os, sys
from hpk.model.plan import HostPathVolume
from hpk.supervisor.inside.host_path import host_path_source
from hpk.supervisor.inside.sub_path import VolumeError
os.setgid(65534)
os.setuid(65534)
for kind in ("", "Directory", "DirectoryOrCreate", "FileOrCreate"):
    for path in sys.argv[1:]:
        try:
            print(host_path_source(HostPathVolume("v", path, kind), ()))
        except VolumeError as error:
            print(error.reason, error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody who may not look")
def test_what_may_not_be_looked_at_is_told_in_upstreams_words() -> None:
    with tempfile.TemporaryDirectory() as root:  # pytest's own are closed to others
        there, new = f"{root}/there", f"{root}/new"
        Path(there).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", CLOSED, there, new],
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
    volume, denied = (
        'ContainerCreating MountVolume.SetUp failed for volume "v" : ',
        "permission denied",
    )
    spec = "CreateContainerError failed to generate spec: failed to"
    assert done.stdout.splitlines() == [
        f'{spec} stat "{there}": stat {there}: {denied}',
        f'{spec} stat "{new}": stat {new}: {denied}',
        *(
            f"{volume}hostPath type check failed, {path} is not a directory, unable to determine "
            f"its type: stat {path}: {denied}"
            for path in (there, new)
        ),
        f"{volume}mkdir {there}: {denied}",
        f"{volume}mkdir {new}: {denied}",
        f"{volume}open {there}: {denied}",
        f"{volume}open {new}: {denied}",
    ]


def test_a_host_path_leads_nowhere_of_ours(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "link").symlink_to(own)
    for path in ("own", "link", "link/deeper", "own/../own/x"):
        with pytest.raises(PermanentError, match="HPK's own"):
            host_path_source(HostPathVolume("v", str(tmp_path / path), ""), (str(own),))
    assert not list(own.iterdir())
    beside = HostPathVolume("v", str(tmp_path / "own2"), "")
    assert host_path_source(beside, (str(own),)) == str(tmp_path / "own2")


def test_sub_paths_stay_in_their_volume(tmp_path: Path) -> None:
    root = tmp_path / "volume"
    root.mkdir()
    root.chmod(0o777)
    (tmp_path / "outside").mkdir()
    (root / "out").symlink_to("../outside")
    (root / "absolute").symlink_to("/etc")
    (root / "in").symlink_to("here")
    made = sub_path_source(str(root), "a/b c", create=True)
    assert made == str(root / "a" / "b c")
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o777
    assert sub_path_source(str(root), "in/x", create=True) == str(root / "here" / "x")
    for path in ("out", "out/x", "absolute", "absolute/passwd", "../outside"):
        with pytest.raises(VolumeError, match="leads out of its volume"):
            sub_path_source(str(root), path, create=True)
    with pytest.raises(VolumeError, match="is not in its volume"):
        sub_path_source(str(root), "missing", create=False)
    (root / "file").write_text("")
    with pytest.raises(VolumeError, match="failed to create"):
        sub_path_source(str(root), "file/x", create=True)
    assert not list((tmp_path / "outside").iterdir())


def pod_volumes(tmp_path: Path, **plan: Any) -> PodVolumes:
    layout = write_attempt(tmp_path / "attempt", None, container((), "x"), **plan)
    spec = codec.loads(JobSpec, Path(layout.spec).read_text())
    where = [tmp_path / name for name in ("projected", "disk", "memory", "shm")]
    for path in where:
        path.mkdir(exist_ok=True)
    roots = NodeRoots((str(tmp_path),), (), layout.token)
    made = PodVolumes(spec, VolumeDirs(*map(str, where)), roots)
    made.prepare()
    return made


def test_what_a_container_sees_of_the_volumes(tmp_path: Path) -> None:
    volumes = pod_volumes(
        tmp_path,
        volumes=(ProjectedVolume("cm", 0o644, (), (), ()),),
        empty_dirs=(EmptyDirVolume("e", False, None), EmptyDirVolume("m", True, None)),
        host_paths=(HostPathVolume("h", str(tmp_path), "Directory"),),
    )
    plan = container(
        (),
        "x",
        mounts=(
            VolumeMount("e", "/e", False),
            VolumeMount("e", "/part", True, "a/b"),
            VolumeMount("m", "/m", False),
            VolumeMount("cm", "/cm", False),
            VolumeMount("h", "/h", True),
        ),
    )
    assert not volumes.waits_for_bundle(plan)
    assert volumes.mounts_of(plan) == (
        Mount(str(tmp_path / "shm"), "/dev/shm", False),
        Mount(str(tmp_path / "disk" / "0"), "/e", False),
        Mount(str(tmp_path / "disk" / "0" / "a" / "b"), "/part", True),
        Mount(str(tmp_path / "memory" / "1"), "/m", False),
        Mount(str(tmp_path / "projected" / "0"), "/cm", True),
        Mount(str(tmp_path), "/h", True, is_foreign=True),
    )
    assert stat.S_IMODE((tmp_path / "disk" / "0").stat().st_mode) == 0o777


def test_the_ranks_of_a_node_have_one_dev_shm(tmp_path: Path) -> None:
    made = pod_volumes(tmp_path, empty_dirs=(EmptyDirVolume("m", True, None),))
    plan = container((), "x", mounts=(VolumeMount("m", "/dev/shm/", False),))
    sources = [m.source for m in made.mounts_of(plan)]
    assert sources == [str(tmp_path / "shm"), str(tmp_path / "memory" / "0")]
    ranks = made.mounts_of(replace(plan, mpi=MpiPlan("pmix")))
    assert [m.source for m in ranks] == [str(tmp_path / "shm")]


def test_a_part_of_a_bundles_volume_waits_for_it(tmp_path: Path) -> None:
    volumes = pod_volumes(tmp_path, volumes=(ProjectedVolume("cm", 0o644, (), (), ()),))
    plan = container((), "x", mounts=(VolumeMount("cm", "/etc/app.conf", True, "app.conf"),))
    assert volumes.waits_for_bundle(plan)
    with pytest.raises(VolumeError, match='volumeMount "cm" of container "main"') as caught:
        volumes.mounts_of(plan)
    assert caught.value.reason == "CreateContainerConfigError"
    volumes.write(Bundle((volume("cm", **{"app.conf": "x"}),), ()))
    (_, bind) = volumes.mounts_of(plan)
    assert Path(bind.source).read_text() == "x"
    assert not Path(bind.source).is_symlink()


def test_empty_dirs_of_several_nodes_are_shared(tmp_path: Path) -> None:
    dirs = LocalDirs("/work", "/secret", ())
    one = pod_dirs(AttemptLayout("/a"), dirs, {"SLURM_JOB_NUM_NODES": "1"})
    two = pod_dirs(AttemptLayout("/a"), dirs, {"SLURM_JOB_NUM_NODES": "2"})
    assert one.disk.startswith("/work/")
    assert two.disk.startswith("/a/")
    assert one.memory == two.memory
    assert pod_dirs(AttemptLayout("/a"), LocalDirs("/work", "/work", ()), {}).shm == ""


def test_the_pods_own_directories_are_forbidden(tmp_path: Path) -> None:
    volumes = pod_volumes(
        tmp_path,
        host_paths=(HostPathVolume("h", str(tmp_path / "attempt" / "logs"), ""),),
        own_directories=(str(tmp_path / "cache"),),
    )
    with pytest.raises(PermanentError, match="HPK's own"):
        volumes.mounts_of(container((), "x", mounts=(VolumeMount("h", "/h", False),)))


def test_mounts_go_from_the_root_downwards_and_the_pods_replace_ours(tmp_path: Path) -> None:
    ordered = mounts.in_order(
        (
            Mount("/hosts", "/etc/hosts", False),
            Mount("/tmp1", "/tmp", False),
            Mount("/deep", "/etc/a/b", False),
            Mount("/etc1", "/etc/", False),
            Mount("/tmp2", "/tmp", True),
        )
    )
    assert [m.source for m in ordered] == ["/tmp2", "/etc1", "/hosts", "/deep"]


def test_apptainer_refuses_mounts_it_would_leave_out() -> None:
    facts = NodeFacts((), True, False, False)

    def argv(*mounts: BindMount) -> tuple[str, ...]:
        return RUNTIMES["apptainer"].hold_argv(facts, HoldRequest("/i", "/s", mounts, False))

    taken = (BindMount("/x", "/dev/shm", False), BindMount("/dev/fuse", "/dev/fuse", False))
    assert len([word for word in argv(*taken) if word == "--mount"]) == 2
    for target in ("/dev/x", "/dev/../dev/y", "/dev/shmoo"):
        with pytest.raises(PermanentError, match="mounts nothing at"):
            argv(BindMount("/x", target, False))
    with pytest.raises(PermanentError, match="mounts nothing at"):
        argv(BindMount("/dev/shm/x", "/dev/shm", False))


def test_used_bytes_and_quantities(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 1_000_000)
    before = size_limits.used_bytes(str(tmp_path))
    assert before >= 1_000_000
    os.link(tmp_path / "d" / "f", tmp_path / "again")
    (tmp_path / "away").symlink_to("/usr")
    assert size_limits.used_bytes(str(tmp_path)) < before + 100_000
    assert [size_limits.quantity(n) for n in (0, 1, 1024, 3 << 20, 1 << 30, 1000)] == [
        *("0", "1", "1Ki", "3Mi", "1Gi", "1000")
    ]


def test_a_deep_tree_blinds_no_look_at_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limits, "_EVERY_S", 0.01)
    deep, full, missing = (str(tmp_path / name) for name in ("deep", "full", "missing"))
    for path in (deep, full):
        Path(path).mkdir()
    make_deep(Path(deep))
    Path(full, "file").write_bytes(b"x" * 100_000)
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    limited = {
        deep: EmptyDirVolume("deep", False, 1 << 40),
        missing: EmptyDirVolume("missing", False, 1),
        full: EmptyDirVolume("full", False, 1024),
    }
    try:
        size_limits.watch_size_limits(limited, said.put)
        assert said.get(timeout=120) == ('Usage of EmptyDir volume "full" exceeds the limit "1Ki".')
    finally:
        remove_tree(deep)


def test_a_late_container_is_as_the_bundle_says() -> None:
    plan = container(("$(A)",), "x", env=env(A="unexpanded"), late=True)
    late = ContainerBundle("main", env(A="a", B="b"), ("a",))
    bundle = Bundle((), env(B="beneath", KUBERNETES_SERVICE_HOST="h"), (late,))
    found = environment.container_environment(plan, bundle, "p")
    assert {"A": "a", "B": "b", "KUBERNETES_SERVICE_HOST": "h"}.items() <= found.items()
    assert environment.container_argv(plan, bundle) == ("a",)
    with pytest.raises(PermanentError, match="main"):
        environment.container_argv(plan, Bundle((), ()))
    assert environment.container_argv(replace(plan, late=False), bundle) == ("$(A)",)
