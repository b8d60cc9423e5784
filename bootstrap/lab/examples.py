"""The examples as users of the lab see them: this checkout's, with upstream's manifests beside.

Argo's manifests come with the Go module its programs are built from, so the version is one and the
module's checksum covers both.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from bootstrap import build
from bootstrap.components import ARGO_MODULE, ARGO_VERSION
from hpk.flock import wait_for_lock

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def install(target: Path, cache: Path) -> None:
    """Make the directory ``target``; it must not be there yet.

    :raises PermanentError: upstream's manifests are neither in the cache nor to be had.
    """
    manifests = await _argo_manifests(cache)
    await asyncio.to_thread(_copy, manifests, target)


def _copy(manifests: Path, target: Path) -> None:
    shutil.copytree(_EXAMPLES, target, ignore=shutil.ignore_patterns("upstream"))
    shutil.copytree(manifests, target / "argo/upstream")


async def _argo_manifests(cache: Path) -> Path:
    target = cache / "manifests" / f"argo-workflows-{ARGO_VERSION}"
    target.parent.mkdir(parents=True, exist_ok=True)
    async with wait_for_lock(target.parent / ".lock"):
        if not target.exists():
            module = await build.module_directory(ARGO_MODULE, build.GO_SOURCES / "argo", "")
            work = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
            try:
                await asyncio.to_thread(_copy_writable, module / "manifests", work)
                work.rename(target)
            finally:
                await asyncio.to_thread(shutil.rmtree, work, True)
    return target


def _copy_writable(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # Go's cache is read-only
