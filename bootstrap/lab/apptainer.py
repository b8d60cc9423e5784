"""Builds Apptainer from source, for Debian 12 has no package of it, and keeps it in the cache.

The source comes from the Go module proxy; its checksum is pinned here and those of its
dependencies in its own go.sum. Nothing is installed on the machine: the result is a directory that
the lab mounts at the prefix it was built for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

from bootstrap.binaries import Reporter
from hpk import subproc
from hpk.flock import wait_for_lock
from hpk.model.errors import PermanentError

VERSION = "1.4.3"
PREFIX = "/opt/software/apptainer"

_MODULE = f"github.com/apptainer/apptainer@v{VERSION}"
_MODULE_SUM = "h1:2gBgyoYkEI5pAlP7uYBPW7cCrJkfSl8uaEE0se8kubk="
_CONFIGURE = ("--without-suid", "--without-libsubid", f"--prefix={PREFIX}", "-V", VERSION)
_EXECUTABLE = ("mconfig", "**/*.sh", "scripts/*", "mlocal/scripts/*", "makeit/*", "scripts/**/*")
_TIMEOUT_S = 3600.0
_NAME = "apptainer"


def cached(cache: Path) -> Path:
    """Where this build lies in the cache, whether or not it is there yet."""
    key = hashlib.sha256("\0".join((_MODULE, _MODULE_SUM, *_CONFIGURE)).encode()).hexdigest()[:12]
    return cache / "apptainer" / f"{VERSION}-{key}"


async def ensure(cache: Path, reporter: Reporter) -> Path:
    """The installed tree, built first where it is missing (minutes).

    :returns: the directory that belongs at PREFIX.
    :raises PermanentError: a tool is missing or the build fails; names the build's log.
    """
    target = cached(cache)
    if (target / "bin/apptainer").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        reporter.step(_NAME, "waiting for another process that builds it")

    async with wait_for_lock(target.parent / ".lock", waiting):
        if not (target / "bin/apptainer").exists():
            await _build(target, reporter)
    reporter.done(_NAME, f"{VERSION} built")
    return target


async def _build(target: Path, reporter: Reporter) -> None:
    work = target.with_name(f".build-{VERSION}")
    shutil.rmtree(work, ignore_errors=True)
    source, root = work / "source", work / "root"
    work.mkdir(mode=0o700)
    # A GOCACHE of its own: Apptainer's makefile cleans the cache it is given.
    environment = _environment({"GOCACHE": str(work / "gocache")})
    log = work / "build.log"
    reporter.step(_NAME, f"fetching {_MODULE}")
    await asyncio.to_thread(_copy_writable, await _module_dir(environment), source)
    steps = (
        ("configuring", ["./mconfig", *_CONFIGURE]),
        ("compiling", ["make", "-C", "builddir", f"-j{os.cpu_count() or 1}"]),
        ("installing", ["make", "-C", "builddir", "install", f"DESTDIR={root}"]),
    )
    for text, argv in steps:
        reporter.step(_NAME, f"{text} {VERSION}, some minutes in all (log: {log})")
        await _run(argv, source, environment, log)
    tree = root / PREFIX.removeprefix("/")
    (target.parent).chmod(0o755)
    await asyncio.to_thread(_make_public, tree)
    tree.replace(target)
    await asyncio.to_thread(shutil.rmtree, work, True)


def _environment(extra: dict[str, str]) -> dict[str, str]:
    passed = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("GO") or name.startswith("SSL_CERT_") or name in passed
    }
    # The module is in no checksum database that every proxy mirrors; its sum is pinned above.
    nosumdb = ",".join(filter(None, (kept.get("GONOSUMDB"), _MODULE.split("@")[0])))
    kept |= {"GONOSUMDB": nosumdb, "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    return subproc.base_environment(kept | extra)


async def _module_dir(environment: dict[str, str]) -> Path:
    if shutil.which("go") is None:
        raise PermanentError("building Apptainer needs Go", remedy="put go 1.26 or newer on PATH")
    done = await subproc.run(
        ["go", "mod", "download", "-json", _MODULE], environment=environment, timeout_s=600
    )
    try:
        answer = json.loads(done.stdout)
        error = answer.get("Error")
    except ValueError:
        answer, error = {}, done.stderr.strip()
    if error:
        raise PermanentError(
            f"{_MODULE}: {error}", remedy="check that the Go module proxy can be reached"
        )
    if answer.get("Sum") != _MODULE_SUM:
        raise PermanentError(
            f"{_MODULE} has the checksum {answer.get('Sum')}, not {_MODULE_SUM}",
            remedy="distrust the module proxy in use (go env GOPROXY)",
        )
    return Path(answer["Dir"])


async def _run(argv: list[str], cwd: Path, environment: dict[str, str], log: Path) -> None:
    done = await subproc.run(
        argv,
        environment=environment,
        cwd=cwd,
        timeout_s=_TIMEOUT_S,
        stdout_path=log,
        stderr_path=log.with_suffix(".err"),
    )
    if done.exit_code != 0:
        text = await asyncio.to_thread(log.with_suffix(".err").read_text, errors="replace")
        raise PermanentError(
            f"building Apptainer: {argv[0]} ended with {done.exit_code}: {text.strip()[-1500:]}",
            remedy=f"see {log}; scripts/install-os-packages installs what the build needs",
        )


def _copy_writable(module: Path, target: Path) -> None:
    """The module cache is read-only and module zips carry no modes."""
    shutil.copytree(module, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    for pattern in _EXECUTABLE:
        for path in target.glob(pattern):
            if path.is_file():
                path.chmod(0o755)
    # Release archives have this file; without it the build asks git, which is not there either.
    (target / "VERSION").write_text(f"{VERSION}\n")


def _make_public(tree: Path) -> None:
    """Every user of the lab runs it, whatever root's umask was."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
