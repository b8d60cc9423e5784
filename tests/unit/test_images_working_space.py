"""Working space of a conversion goes with it, or with the next one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from hpk.images.errors import ImageError
from hpk.images.working_space import working_space


async def _use(scratch: Path) -> set[str]:
    async with working_space(scratch, "a test") as space:
        (space / "root").mkdir(mode=0o500)
        return {path.name for path in scratch.iterdir()} - {space.name}


def _made(scratch: Path, name: str, *, age_s: float, locked: bool = False) -> int:
    """A directory as a conversion leaves it; the descriptor of its lock."""
    space = scratch / name
    (space / "root" / "closed").mkdir(parents=True)
    (space / "root").chmod(0o500)
    lock = os.open(space / ".hpk-lock", os.O_RDWR | os.O_CREAT)
    if locked:
        fcntl.flock(lock, fcntl.LOCK_EX)
    then = time.time() - age_s
    os.utime(space, (then, then))
    return lock


def test_what_a_dead_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    descriptors = [
        _made(tmp_path, "hpk-image-dead", age_s=3600),
        _made(tmp_path, "hpk-image-new", age_s=0),
        _made(tmp_path, "hpk-image-alive", age_s=3600, locked=True),
        _made(tmp_path, "somebody-elses", age_s=3600),
    ]
    (tmp_path / "hpk-image-link").symlink_to(tmp_path / "somebody-elses")
    try:
        kept = {"hpk-image-new", "hpk-image-alive", "somebody-elses", "hpk-image-link"}
        assert asyncio.run(_use(tmp_path)) == kept
        assert {path.name for path in tmp_path.iterdir()} == kept
        assert (tmp_path / "somebody-elses/root/closed").exists()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_no_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot make working space for a test in .*absent"):
        asyncio.run(_use(tmp_path / "absent"))
