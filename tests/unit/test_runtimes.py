"""podman's argv, surroundings and refusals. Pure."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import pytest

from hpk.model import codec
from hpk.model.errors import ParseError, PermanentError
from hpk.runtimes.base import BindMount, HoldRequest, NodeFacts
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor.inside.node import kernel_version
from hpk.supervisor.process.opening import Wanted, image_offset, open_command
from hpk.supervisor.process.places import Mount
from hpk.supervisor.process.pod_messages import Open

PODMAN = RUNTIMES["podman"]
FACTS = NodeFacts(
    programs=(("podman", "/opt/p/podman"), ("squashfuse", "/usr/bin/squashfuse")),
    has_fuse=True,
    has_nvidia=False,
    has_amd=False,
    kernel=(6, 1),
)
REQUEST = HoldRequest(
    image_path="/images/an image.sif",
    scratch="/tmp/hpk-1/7/main.0/overlay",
    mounts=(BindMount('/s,p"a ce:x', "/d,s't:1", True), BindMount("/a", "/b", False)),
    gpus=False,
    image_offset=4096,
    uid=1000,
    gid=5,
)


def options(argv: tuple[str, ...], name: str) -> list[str]:
    return [value for key, value in itertools.pairwise(argv) if key == name]


def with_programs(*names: str, **changes: object) -> NodeFacts:
    facts = dataclasses.replace(FACTS, programs=tuple((name, f"/bin/{name}") for name in names))
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def test_podman_never_sees_what_the_pod_runs() -> None:
    argv = PODMAN.hold_argv(FACTS, REQUEST)
    assert argv[0] == "/opt/p/podman"
    assert argv[-3:] == ("--rootfs", f"{REQUEST.scratch}/image:O", "/.hpk/pause")
    first, second = (next(csv.reader([value])) for value in options(argv, "--mount"))
    assert first == ["type=bind", 'source=/s,p"a ce:x', "destination=/d,s't:1", "ro"]
    assert second == ["type=bind", "source=/a", "destination=/b"]


def test_podman_maps_one_user_and_shares_the_hosts_other_namespaces() -> None:
    argv = PODMAN.hold_argv(FACTS, REQUEST)
    assert (options(argv, "--uidmap"), options(argv, "--gidmap")) == (["1000:0:1"], ["5:0:1"])
    assert options(argv, "--user") == ["1000:5"]
    for namespace in ("--network", "--ipc", "--uts", "--pid", "--cgroupns"):
        assert options(argv, namespace) == ["host"]


def test_podmans_storage_is_the_containers_own() -> None:
    argv = PODMAN.hold_argv(FACTS, REQUEST)
    for name in ("--root", "--runroot", "--tmpdir", "--pidfile"):
        (path,) = options(argv, name)
        assert path.startswith(f"{REQUEST.scratch}/")
    env = dict(PODMAN.environment("/tmp/hpk-1/7"))
    assert {value for name, value in env.items() if "XDG" in name} == {"/tmp/hpk-1/7"}
    written = dict(PODMAN.files(FACTS, "/tmp/hpk-1/7"))
    assert {env["CONTAINERS_CONF"], env["CONTAINERS_STORAGE_CONF"]} == set(written)
    assert 'lock_type = "file"' in written[env["CONTAINERS_CONF"]]


def test_an_image_file_is_served_or_unpacked_and_a_directory_is_taken_as_it_is() -> None:
    served = PODMAN.holder(FACTS, REQUEST)
    assert served is not None
    assert served.image_mounts
    assert served.image_argv[-2:] == ("/images/an image.sif", f"{REQUEST.scratch}/image")
    assert "offset=4096" in " ".join(served.image_argv)
    unpacked = PODMAN.holder(with_programs("podman", "unsquashfs", has_fuse=False), REQUEST)
    assert unpacked is not None
    assert not unpacked.image_mounts
    assert unpacked.image_argv[0] == "/bin/unsquashfs"
    sandbox = dataclasses.replace(REQUEST, image_path="/images/box", image_offset=None)
    as_it_is = PODMAN.holder(FACTS, sandbox)
    assert as_it_is is not None
    assert (as_it_is.image_argv, as_it_is.image_path) == ((), "/images/box")


def test_old_kernels_overlay_by_fuse() -> None:
    old = with_programs("podman", "squashfuse", "fuse-overlayfs", kernel=(4, 18))
    assert PODMAN.unusable(old) == ""
    assert options(PODMAN.hold_argv(old, REQUEST), "--storage-opt") == [
        "overlay.mount_program=/bin/fuse-overlayfs"
    ]
    assert "--storage-opt" not in PODMAN.hold_argv(FACTS, REQUEST)


def test_gpus_are_devices() -> None:
    facts = dataclasses.replace(FACTS, has_nvidia=True, has_amd=True)
    asked = PODMAN.hold_argv(facts, dataclasses.replace(REQUEST, gpus=True))
    assert options(asked, "--device") == ["nvidia.com/gpu=all", "/dev/kfd", "/dev/dri"]
    assert "--device" not in PODMAN.hold_argv(facts, REQUEST)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (with_programs("crun", "squashfuse"), "podman is not on this node"),
        (with_programs("podman", "squashfuse", has_cgroup2=False), "cgroup2"),
        (with_programs("podman"), "squashfuse"),
        (with_programs("podman", "squashfuse", has_fuse=False), "unsquashfs"),
        (with_programs("podman", "squashfuse", kernel=(4, 18)), "fuse-overlayfs"),
    ],
)
def test_a_node_that_cannot_run_podman_says_what_to_do(facts: NodeFacts, says: str) -> None:
    assert says in PODMAN.unusable(facts)


def test_a_node_that_can() -> None:
    assert PODMAN.unusable(FACTS) == ""
    assert PODMAN.unusable(with_programs("podman", "unsquashfs", has_fuse=False)) == ""


def test_kernel_versions() -> None:
    assert kernel_version("6.1.0-18-amd64") == (6, 1)
    assert kernel_version("4.18.0-553.el8_10.x86_64") == (4, 18)
    assert kernel_version("next") == (0, 0)


def test_a_runtime_that_leaves_is_opened_with_a_holder(tmp_path: Path) -> None:
    podman = open_command(3, PODMAN, FACTS, wanted(tmp_path), env={"A": "b"})
    assert (podman.uid, podman.gid) == (1000, 5)
    assert podman.holder is not None
    apptainer = open_command(3, RUNTIMES["apptainer"], FACTS, wanted(tmp_path), env={})
    assert (apptainer.uid, apptainer.gid) == (1000, 5)
    assert apptainer.holder is None
    assert codec.loads(Open, codec.dumps(podman)) == podman


def wanted(tmp_path: Path, *roots: str) -> Wanted:
    directory = tmp_path / str(len(list(tmp_path.iterdir())))
    directory.mkdir()
    return Wanted(
        image_path=str(tmp_path),
        directory=str(directory),
        roots=roots or ("/tmp/hpk-1",),
        mounts=(Mount("/s", "/dev/shm", False),),
        own=(),
        gpus=False,
        uid=1000,
        gid=5,
        read_only=False,
    )


def test_podman_works_where_its_run_directory_is_short_enough(tmp_path: Path) -> None:
    long = "/scratch/local/slurm/job-4294967295/hpk-4294967294-012345"
    short = "/dev/shm/hpk-4294967294-012345"
    opened = open_command(3, PODMAN, FACTS, wanted(tmp_path, long, short), env={})
    (run_root,) = options(opened.argv, "--runroot")
    assert run_root.startswith(short)
    assert len(run_root) <= 50
    with pytest.raises(PermanentError, match="no directory of more than 36 bytes") as caught:
        open_command(3, PODMAN, FACTS, wanted(tmp_path, long), env={})
    assert "TMPDIR" in str(caught.value)
    anywhere = open_command(3, RUNTIMES["apptainer"], FACTS, wanted(tmp_path, long), env={})
    assert f"{long}/w/overlay" in anywhere.argv


def test_what_is_no_image_has_no_offset(tmp_path: Path) -> None:
    assert image_offset(str(tmp_path)) is None
    (tmp_path / "x.sif").write_bytes(b"no image" * 100)
    with pytest.raises(ParseError, match="not a SIF file"):
        image_offset(str(tmp_path / "x.sif"))
    with pytest.raises(FileNotFoundError):
        image_offset(str(tmp_path / "missing.sif"))
