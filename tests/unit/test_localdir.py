"""The directories of jobs on a node: whose they are, and what is left of the dead."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.model.errors import PermanentError
from hpk.model.layout import AttemptLayout
from hpk.supervisor.inside import localdir
from hpk.supervisor.inside.localdir import LocalDirs, NodeRoots
from tests.deep_tree import make_deep

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")


@pytest.fixture
def roots(tmp_path: Path) -> NodeRoots:
    (tmp_path / "token").write_text("secret")
    for name in ("disk", "memory"):
        (tmp_path / name).mkdir()
    return NodeRoots((f"{tmp_path}/disk",), (f"{tmp_path}/memory",), f"{tmp_path}/token")


def let_go(dirs: LocalDirs) -> None:
    """Die without clearing up."""
    for fd in dirs.lock_fds:
        os.close(fd)


def names(directory: str) -> set[str]:
    return {path.name for path in Path(directory).iterdir()} - {".lock"}


def test_directories_of_dead_jobs_are_swept_and_those_of_the_living_kept(roots: NodeRoots) -> None:
    living = localdir.make_local_dirs(roots, "1")
    dead = localdir.make_local_dirs(roots, "2")
    locked = Path(dead.work) / "work"
    (locked / "inner").mkdir(parents=True)
    locked.chmod(0)
    let_go(dead)
    third = localdir.make_local_dirs(roots, "3")
    localdir.sweep_local_dirs(roots)
    for root in third.roots:
        assert names(root) == {"1", "3"}
    for dirs in (living, third):
        dirs.remove()
    assert [names(root) for root in third.roots] == [set(), set()]


def test_no_tree_ends_a_sweep_or_a_job(roots: NodeRoots, monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep a container has nested directories: the job that made them, and its user's next
    on that node, end as they should."""
    dead, own = (localdir.make_local_dirs(roots, name) for name in ("1", "2"))
    for dirs in (dead, own):
        make_deep(Path(dirs.work))
    let_go(dead)
    localdir.sweep_local_dirs(roots)
    own.remove()
    assert [names(root) for root in own.roots] == [set(), set()]

    def fail(path: str) -> None:
        raise RecursionError(path)

    left = [localdir.make_local_dirs(roots, name) for name in ("3", "4")]
    monkeypatch.setattr("hpk.supervisor.inside.localdir.remove_tree", fail)
    let_go(left[0])
    localdir.sweep_local_dirs(roots)
    left[1].remove()
    monkeypatch.undo()
    localdir.sweep_local_dirs(roots)
    assert [names(root) for root in own.roots] == [set(), set()]


def test_a_start_waits_for_no_sweep(roots: NodeRoots, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go(localdir.make_local_dirs(roots, "1"))
    sweeps, may_end = threading.Event(), threading.Event()
    remove = localdir.clear_away

    def slowly(path: str) -> None:
        sweeps.set()
        may_end.wait()
        remove(path)

    monkeypatch.setattr(localdir, "clear_away", slowly)
    sweep = threading.Thread(target=localdir.sweep_local_dirs, args=(roots,))
    sweep.start()
    try:
        sweeps.wait()
        # Its name is free, for a job of the same id, and for a step of one.
        again = localdir.make_local_dirs(roots, "1")
        step = localdir.join_local_dirs(roots, "1.0")
        assert Path(again.work).name == "1"
        # Who sweeps as well leaves it to the first.
        assert not localdir._put_aside(again.roots[0])
    finally:
        may_end.set()
        sweep.join()
    monkeypatch.undo()
    assert names(again.roots[0]) == {"1", "1.0"}
    for dirs in (again, step):
        dirs.remove()


def test_what_a_killed_sweep_left_is_swept(roots: NodeRoots) -> None:
    let_go(localdir.make_local_dirs(roots, "1"))
    (root,) = localdir._roots_in(roots.disks[0])
    for _, lock_fd in localdir._put_aside(root):
        os.close(lock_fd)
    assert len(names(root)) == 1
    localdir.sweep_local_dirs(roots)
    assert not names(root)


@pytest.fixture
def squatted(roots: NodeRoots) -> Iterator[NodeRoots]:
    for place in (*roots.disks, *roots.memories):
        taken = Path(place) / f"hpk-{os.getuid()}"
        taken.mkdir(mode=0o755)
        os.chown(taken, 65534, 65534)
    yield roots


@only_root
def test_a_directory_that_somebody_else_made_first_harms_nobody(squatted: NodeRoots) -> None:
    first = localdir.make_local_dirs(squatted, "1")
    rank = localdir.join_local_dirs(squatted, "1.0")
    other_rank = localdir.join_local_dirs(squatted, "1.0")
    assert (rank.work, rank.secret) == (other_rank.work, other_rank.secret)
    assert first.roots == rank.roots
    assert {*first.roots} <= {*squatted.own}
    for root in first.roots:
        assert Path(root).name.startswith(f"hpk-{os.getuid()}-")
        assert Path(root).stat().st_mode & 0o777 == 0o700
    # Another job, with a token of its own, comes to the same root and sweeps it.
    Path(squatted.token_path).write_text("another")
    let_go(first)
    localdir.sweep_local_dirs(squatted)
    second = localdir.make_local_dirs(squatted, "2")
    assert second.roots == first.roots
    assert names(second.roots[0]) == {"1.0", "2"}
    for dirs in (rank, second):
        dirs.remove()
    let_go(LocalDirs("", "", other_rank.lock_fds))


@only_root
def test_a_link_or_a_file_in_our_place_is_nobodys_root(roots: NodeRoots, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (Path(roots.disks[0]) / "hpk-0").symlink_to(tmp_path / "target")
    (Path(roots.memories[0]) / "hpk-0").touch()
    dirs = localdir.make_local_dirs(roots, "1")
    assert [Path(root).name[:6] for root in dirs.roots] == ["hpk-0-", "hpk-0-"]
    dirs.remove()
    assert not list((tmp_path / "target").iterdir())


def test_a_place_that_cannot_be_written_is_passed_over(roots: NodeRoots, tmp_path: Path) -> None:
    places = (f"{tmp_path}/missing", f"{tmp_path}/token", *roots.disks)
    dirs = localdir.make_local_dirs(NodeRoots(places, (), roots.token_path), "1")
    assert dirs.roots == (f"{roots.disks[0]}/hpk-{os.getuid()}",)
    dirs.remove()
    with pytest.raises(PermanentError, match="missing: No such file") as caught:
        localdir.make_local_dirs(NodeRoots((f"{tmp_path}/missing",), (), ""), "1")
    assert "TMPDIR" in str(caught.value)


def test_where_a_jobs_directories_may_be(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": "relative"}
    roots = localdir.node_roots(AttemptLayout("/a"), "/tmp", env)
    assert roots.disks == ("/tmp", str(tmp_path))
    assert roots.token_path == "/a/token"
    (tmp_path / f"hpk-{os.getuid()}-left").mkdir()
    assert f"{tmp_path}/hpk-{os.getuid()}-left" in roots.own


def test_directories_are_numbered(roots: NodeRoots) -> None:
    dirs = localdir.make_local_dirs(roots, "1")
    made = [Path(dirs.new_directory()) for _ in range(3)]
    assert [path.name for path in made] == ["0", "1", "2"]
    made[1].rmdir()
    assert dirs.new_directory() == str(made[1])
    dirs.remove()


def test_roots_are_made_to_be_hidden_but_not_in_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localdir, "_TMPFS_ROOT", str(tmp_path / "memory"))
    monkeypatch.setattr(localdir, "_is_tmpfs", lambda path: path == str(tmp_path / "memory"))
    places = [tmp_path / name for name in ("disk", "home", "memory")]
    for place in places:
        place.mkdir()
    env = {"TMPDIR": f"{tmp_path}/home", "HOME": f"{tmp_path}/home"}
    roots = localdir.node_roots(AttemptLayout("/a"), f"{tmp_path}/disk", env)
    assert not any(path.startswith(str(tmp_path)) for path in roots.own)
    for _ in range(2):
        localdir.make_roots(roots)
        name = f"hpk-{os.getuid()}"
        expected = {f"{tmp_path}/disk/{name}", f"{tmp_path}/memory/{name}"}
        assert {path for path in roots.own if path.startswith(str(tmp_path))} == expected
