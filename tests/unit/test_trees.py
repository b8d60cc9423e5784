"""Trees that a container made: removed and gone through, however deep they are."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk import trees
from tests.deep_tree import DEPTH, make_deep


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "tree"
    path.mkdir()
    yield path
    trees.remove_tree(path)  # what pytest itself could not


def count_open_files() -> int:
    gc.collect()  # what earlier tests have left closes now, and not in between
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_deep_tree_is_removed_with_few_descriptors(tree: Path) -> None:
    make_deep(tree)
    before = count_open_files()
    assert trees.remove_tree(tree)
    assert not tree.exists()
    assert count_open_files() == before


def test_unreadable_parts_go_and_what_links_lead_to_stays(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tree / "closed" / "inner" / "innermost").mkdir(parents=True)
    (tree / "closed" / "inner" / "file").touch()
    (tree / "wide").mkdir()
    for number in range(20):
        (tree / "wide" / f"{number}" / "below").mkdir(parents=True)
    (tree / "away").symlink_to(tmp_path / "kept")
    (tree / "wide" / "away").symlink_to(tmp_path / "kept")
    (tree / "closed" / "inner").chmod(0)
    (tree / "closed").chmod(0)
    assert trees.remove_tree(tree)
    assert not tree.exists()
    assert (tmp_path / "kept" / "inner").is_dir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "kept")
    assert not trees.remove_tree(link)
    assert (tmp_path / "kept" / "inner").is_dir()
    assert trees.remove_tree(tmp_path / "missing")


def test_a_deep_tree_is_gone_through(tree: Path) -> None:
    make_deep(tree)
    (tree / "beside" / "below").mkdir(parents=True)
    (tree / "away").symlink_to("/usr")
    before = count_open_files()
    assert sum(1 for _ in trees.stats_below(tree)) == DEPTH + 1 + 2 + 1
    assert count_open_files() == before


def test_what_is_moved_away_meanwhile_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "other" / "inner").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "much" / "more").mkdir(parents=True)
    inside = (tree / "a" / "b").stat().st_ino
    c = (tree / "a" / "b" / "c").stat().st_ino
    seen: list[int] = []
    for info in trees.stats_below(tree):
        seen.append(info.st_ino)
        if info.st_ino == c:
            (tree / "a" / "b").rename(outside / "b")
    assert inside in seen
    assert (tree / "other" / "inner").stat().st_ino in seen
    assert (outside / "much").stat().st_ino not in seen
