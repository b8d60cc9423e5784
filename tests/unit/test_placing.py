"""What a runtime is shown of the node: real namespaces and mounts, a shell for the runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpk.model.plan import HostPathVolume
from hpk.supervisor.inside.host_path import host_path_source
from hpk.supervisor.inside.sub_path import sub_path_source
from hpk.supervisor.process.mount_table import TableEntry, parse_mountinfo, paths_of
from hpk.supervisor.process.places import Mount, Places, needed_parts, plan_places
from hpk.supervisor.process.placing import PLACES_STATUS
from hpk.supervisor.process.pod_messages import Open
from hpk.supervisor.process.runtime_process import start_runtime
from tests.supervisor_bench import userns_works

WRITE = "for d in . a home home/a; do touch $d/x 2>/dev/null && echo written; done; "
needs_userns = pytest.mark.skipif(
    not userns_works(), reason="this machine allows no user namespaces"
)


@dataclass(frozen=True)
class Node:
    """A user's home with HPK's own in it, and HPK's directory on the node."""

    root: Path
    own: tuple[str, ...]

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def anchor(self) -> Path:
        return self.root / "tmp" / "hpk-1"

    def places(self, *mounts: Mount) -> Places:
        image = Mount(str(self.root / "image.sif"), "/", False)
        placed, _ = plan_places(mounts, image, str(self.anchor))
        return Places(str(self.anchor), str(self.anchor / "7" / "0"), placed, self.own, ())

    def run(self, script: str, *mounts: Mount) -> tuple[int, str]:
        """The exit code of a shell that sees these mounts in their places, $1 to $9, and all that
        it printed."""
        names = [str(self.anchor / str(number)) for number in range(len(mounts))]
        argv = ("sh", "-c", script, "sh", *names)
        command = Open(1, argv, tuple(os.environ.items()), 0, 0, None, self.places(*mounts))
        output = self.root / "output"
        with output.open("wb") as errors:
            runtime = start_runtime(replace(command, argv=_to_stderr(argv)), errors.fileno())
        _, status = os.waitpid(runtime.runtime_pid, 0)
        for fd in (runtime.stdin_fd, runtime.stdout_fd):
            os.close(fd)
        return os.waitstatus_to_exitcode(status), output.read_text()


def _to_stderr(argv: tuple[str, ...]) -> tuple[str, ...]:
    return (argv[0], argv[1], f"exec >&2\n{argv[2]}", *argv[3:])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for path in ("home/a/hpk/pki", "tmp/hpk-1/7/0", "tmp/hpk-1/8", "shm/hpk-1/8"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("home/a/hpk/pki/ca.key", "tmp/hpk-1/8/secret", "shm/hpk-1/8/secret"):
        (tmp_path / path).write_text("secret")
    (tmp_path / "home" / "data").write_text("data")
    (tmp_path / "image.sif").touch()
    own = ("home/a/hpk", "tmp/hpk-1", "shm/hpk-1", "gone")
    return Node(tmp_path, tuple(str(tmp_path / path) for path in own))


@needs_userns
@pytest.mark.parametrize("shown", [".", "home", "home/a", "tmp", "shm", "/"])
@pytest.mark.parametrize("read_only", [False, True])
def test_nobody_sees_hpks_own_in_what_it_lies_in(node: Node, shown: str, read_only: bool) -> None:
    source = os.path.realpath(node.root / shown)
    code, output = node.run(
        'cd "$1" && [ -n "$(ls)" ] || exit 1; '
        f'cd "$1/.{node.root}" 2>/dev/null; find . -name ca.key -o -name secret; '
        f"{WRITE if read_only else ''}"
        "mkdir home/a/hpk/x a/hpk/x hpk/x hpk-1/x 2>/dev/null && echo made; true",
        Mount(source, "/m", read_only, is_foreign=True),
    )
    assert (code, output) == (0, "")


@needs_userns
def test_what_hides_cannot_be_taken_away_and_read_only_stays_so(node: Node) -> None:
    script = """
    umount "$1/a/hpk" 2>/dev/null && echo unmounted
    mount --bind "$1" "$2" 2>/dev/null && echo left out
    unshare -Urm sh -c 'umount "$1/a/hpk"; umount -l "$1/a/hpk"; umount "$1"
        mount -o remount,bind,rw "$1" && echo writable
        mkdir "$2/x" && mount --bind "$1" "$2/x" && echo bound
        mount --move "$1/a/hpk" "$2/x" && echo moved' sh "$1" "$2" 2>/dev/null
    unshare -Urm sh -c 'mount --rbind "$1" "$2"; find "$1" "$2" -name ca.key' sh "$1" "$2"
    unshare -Ur touch "$1/new" 2>/dev/null && echo written
    mv "$3/a" "$3/z" 2>&1 | grep -o 'busy'
    true"""
    (node.root / "free").mkdir()
    code, output = node.run(
        script,
        Mount(str(node.home), "/m", True, is_foreign=True),
        Mount(str(node.root / "free"), "/f", False, is_foreign=True),
        Mount(str(node.home), "/rw", False, is_foreign=True),
    )
    assert (code, output) == (0, "busy\n")


@needs_userns
def test_hpks_own_is_no_source_of_a_strangers_mount(node: Node) -> None:
    inside = Mount(str(node.home / "a" / "hpk" / "pki"), "/m", False, is_foreign=True)
    code, output = node.run('ls "$1"', inside)
    assert code == PLACES_STATUS
    assert "No such file" in output
    whole = replace(inside, source=str(node.home / "a" / "hpk"))
    assert node.run('ls "$1"', whole) == (0, "")
    ours = replace(inside, is_foreign=False)
    assert node.run('ls "$1"', ours, whole) == (0, "ca.key\n")


@needs_userns
def test_a_volume_exchanged_for_a_link_after_the_look_is_not_followed(node: Node) -> None:
    volume, secret = node.root / "volume", node.root / "home" / "a" / "hpk"
    volume.mkdir()
    sources: list[Callable[[], str]] = [
        lambda: sub_path_source(str(volume), "x", create=True),
        lambda: sub_path_source(str(volume), "x/y", create=True),
        lambda: host_path_source(HostPathVolume("v", str(volume / "x"), ""), ()),
        lambda: host_path_source(HostPathVolume("v", str(volume / "x/y"), "FileOrCreate"), ()),
    ]
    for look in sources:
        source = look()
        before = sorted(secret.iterdir())
        (volume / "x").rename(volume / "aside")
        (volume / "x").symlink_to(secret)
        code, output = node.run('ls "$1"', Mount(source, "/m", False))
        assert (code, "become a symbolic link" in output) == (PLACES_STATUS, True)
        assert sorted(secret.iterdir()) == before
        (volume / "x").unlink()
        (volume / "aside").rename(volume / "x")
        for left in (volume / "x").iterdir():
            left.rmdir() if left.is_dir() else left.unlink()
    (volume / "x").rmdir()


@needs_userns
def test_places_for_mounts_within_mounts_are_made_and_follow_no_link(node: Node) -> None:
    outer, inner, file = node.root / "outer", node.root / "inner", node.root / "file"
    outer.mkdir(mode=0o700)
    outer.chmod(0o777)
    inner.mkdir()
    (inner / "i").touch()
    file.write_text("f")
    (outer / "link").symlink_to(node.root)
    mounts = (
        Mount(str(outer), "/o", True),
        Mount(str(file), "/o/f", False),
        Mount(str(inner), "/o/a/b", False),
        Mount(str(file), "/o/a/b/deep/f", False),
    )
    script = 'cat "$1/f" "$1/a/b/deep/f"; ls "$1/a/b"; touch "$1/x" 2>/dev/null || touch "$1/a/b/y"'
    assert node.run(script, *mounts) == (0, "ffdeep\ni\n")
    assert (outer / "a" / "b").is_dir()
    assert (outer / "a").stat().st_mode & 0o777 == 0o777
    assert sorted(path.name for path in inner.iterdir()) == ["deep", "i", "y"]
    code, output = node.run("true", mounts[0], replace(mounts[2], target="/o/link/evil"))
    assert (code, "within another volume" in output) == (PLACES_STATUS, True)
    assert not (node.root / "evil").exists()


def test_where_a_directory_is_seen_a_second_time() -> None:
    table = (
        TableEntry("0:1", "/", "/"),
        TableEntry("0:2", "/", "/nfs/homes"),
        TableEntry("0:2", "/alice", "/home/alice"),
        TableEntry("0:2", "/alice/.hpk/pki", "/odd place"),
        TableEntry("0:3", "/alice", "/elsewhere"),
        TableEntry("0:2", "/bob", "/home/bob"),
    )
    assert paths_of("/home/alice/.hpk", table) == (
        "/home/alice/.hpk",
        "/nfs/homes/alice/.hpk",
        "/odd place",
    )
    assert paths_of("/tmp/hpk-1", table) == ("/tmp/hpk-1",)
    assert paths_of("/tmp/hpk-1", ()) == ("/tmp/hpk-1",)
    text = "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw\nodd\n"
    assert parse_mountinfo(text) == (TableEntry("98:0", "/mnt1", "/a b"),)


def test_a_runtime_in_our_directories_stays_in_sight() -> None:
    own = ("/home/alice/.hpk", "/home/alice/.cache/hpk")
    programs = ("/home/alice/.cache/hpk/tools/apptainer/bin/apptainer", "/usr/bin/squashfuse")
    assert needed_parts(programs, own) == ("/home/alice/.cache/hpk/tools/apptainer",)
    assert needed_parts(("/home/alice/.hpk/apptainer",), own) == ("/home/alice/.hpk",)


def test_devices_stay_where_they_are_and_nothing_else_is_named() -> None:
    image = Mount("/i", "/", False)
    mounts = (
        Mount("/dev/fuse", "/dev/fuse", False, is_foreign=True),
        Mount("/dev/shm/x", "/dev/shm/x", False, is_foreign=True),
        Mount("/data", "/data", False, is_foreign=True),
    )
    _, shown = plan_places(mounts, image, "/tmp/hpk-1")
    assert [item.source for item in shown] == ["/dev/fuse", "/tmp/hpk-1/1", "/tmp/hpk-1/2"]
