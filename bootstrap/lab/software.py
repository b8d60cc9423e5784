"""Installs this checkout into the lab's software directory, as a site's staff would.

Each installation is a directory of its own and ``hpk`` a link to the newest: what runs keeps the
modules it was started with, whatever is installed meanwhile. The dependencies, exactly those of
uv.lock, are installed and compiled once, in the cache; an installation links to their files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from bootstrap.lab import cgroups, examples
from bootstrap.lab.hosts import enter_argv
from bootstrap.lab.layout import Lab
from hpk import subproc
from hpk.flock import wait_for_lock
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

_CHECKOUT = Path(__file__).resolve().parents[2]
_TEMPLATES = Path(__file__).parent / "templates"
_PYTHON = "/usr/bin/python3"
_GROUP = "setup"
_OURS = ("--no-deps", str(_CHECKOUT))
_KEPT_RELEASES = 20
_TIMEOUT_S = 900


def find_uv() -> str:
    """The uv that scripts/install-python put beside our Python, or else the one on PATH.

    :raises PermanentError: there is none.
    """
    for directory in (Path(sys.prefix) / "bin", _CHECKOUT / ".venv/bin"):
        if uv := shutil.which("uv", path=str(directory)):
            return uv
    if uv := shutil.which("uv"):
        return uv
    raise PermanentError(
        "there is no uv, which installs Python programs", remedy="scripts/install-python"
    )


async def install(lab: Lab) -> Path:
    """Install the checkout and make it the one in use.

    :returns: the new installation, as this machine sees it.
    :raises PermanentError: there is no checkout here, or it does not install.
    """
    if not (_CHECKOUT / "uv.lock").exists():
        raise PermanentError(
            f"{_CHECKOUT} is no checkout of hpk", remedy="run hpk lab from a checkout"
        )
    make_directories(lab)
    dependencies = await _dependencies(lab, HpkPaths.from_environment().cache)
    releases = lab.software / "releases"
    work = releases / f".new-{secrets.token_hex(4)}"
    try:
        await _copy(lab, dependencies, work)
        await _run(lab, [*_uv("pip", "install"), f"--python={work}/bin/python", *_OURS])
        await _run(lab, _compile_argv(work))
        (work / "libexec").symlink_to("../../libexec")
        await examples.install(work / "share/hpk/examples", HpkPaths.from_environment().cache)
        work.chmod(0o755)
        release = _claim_number(work, releases)
    finally:
        await asyncio.to_thread(shutil.rmtree, work, True)
    _point(lab.software / "hpk", f"releases/{release.name}")
    for old in sorted(releases.glob("[0-9]*"))[:-_KEPT_RELEASES]:
        await asyncio.to_thread(shutil.rmtree, old, True)
    return release


async def _dependencies(lab: Lab, cache: Path) -> Path:
    """A virtual environment with everything but hpk, made first where it is missing."""
    version = (await subproc.run([_PYTHON, "--version"])).check().stdout
    lock = await asyncio.to_thread((_CHECKOUT / "uv.lock").read_bytes)
    key = hashlib.sha256(lock + version.encode()).hexdigest()[:16]
    target = cache / "lab-venv" / key
    target.parent.mkdir(parents=True, exist_ok=True)
    async with wait_for_lock(target.parent / ".lock"):
        if not target.exists():
            work = target.with_name(f".{key}-{secrets.token_hex(4)}")
            try:
                await _make_dependencies(lab, work)
                work.rename(target)
            finally:
                await asyncio.to_thread(shutil.rmtree, work, True)
    return target


async def _make_dependencies(lab: Lab, work: Path) -> None:
    requirements = work / "requirements.txt"
    into = f"--python={work}/bin/python"
    for argv in (
        [*_uv("venv"), "--relocatable", f"--python={_PYTHON}", str(work)],
        [
            *_uv("export"),
            *(f"--project={_CHECKOUT}", "--frozen", "--no-dev", "--no-emit-project"),
            f"--output-file={requirements}",
        ],
        [
            *_uv("pip", "install"),
            *(into, "--compile-bytecode", "--require-hashes", f"--requirements={requirements}"),
        ],
    ):
        await _run(lab, argv)


async def _copy(lab: Lab, source: Path, target: Path) -> None:
    """Copy a tree by links to its files; where the file systems differ, the files."""
    try:
        await _run(lab, ["cp", "-a", "--link", str(source), str(target)])
    except PermanentError:
        await asyncio.to_thread(shutil.rmtree, target, True)
        await _run(lab, ["cp", "-a", "--reflink=auto", str(source), str(target)])


def _compile_argv(work: Path) -> list[str]:
    """Users of the lab cannot write here, so nobody else would ever compile our modules."""
    packages = next(work.glob("lib/python3*/site-packages"))
    ours = [str(packages / name) for name in ("hpk", "kubelet", "bootstrap")]
    return [str(work / "bin/python"), "-m", "compileall", "-q", "-j0", *ours]


def _uv(*command: str) -> list[str]:
    return [find_uv(), *command, "--quiet", "--no-progress"]


async def _run(lab: Lab, argv: list[str]) -> None:
    """Run a program in a cgroup of the lab: `down` ends it also where we were killed."""
    hierarchies = cgroups.detect()
    cgroups.create(hierarchies, lab, _GROUP)
    whole = enter_argv(hierarchies.dirs(lab, _GROUP), argv)
    done = await subproc.run(whole, environment=_environment(), timeout_s=_TIMEOUT_S)
    if done.exit_code != 0:
        raise PermanentError(
            f"{' '.join(argv[:3])} failed: {done.stderr.strip()[-1500:]}",
            remedy="check that the Python package index can be reached",
        )


def _environment() -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UV_", "PIP_", "SSL_CERT_", "XDG_")) or name in names
    }
    return subproc.base_environment(passed)


def is_installed(lab: Lab) -> bool:
    """Whether some installation is in use."""
    return (lab.software / "hpk/bin/python").exists()


def make_directories(lab: Lab) -> None:
    """The software directory as hosts mount it, and its bin; may be repeated."""
    for name in ("bin", "releases", "apptainer", "libexec/hpk/binaries"):
        (lab.software / name).mkdir(parents=True, exist_ok=True)
    _point(lab.software / "bin/hpk", "../hpk/bin/hpk")
    _point(lab.software / "examples", "hpk/share/hpk/examples")
    kubectl = lab.software / "bin/kubectl"
    new = kubectl.with_name(f".kubectl-{secrets.token_hex(4)}")
    shutil.copyfile(_TEMPLATES / "kubectl.sh", new)
    new.chmod(0o755)
    new.replace(kubectl)


def _claim_number(work: Path, releases: Path) -> Path:
    """Give the installation the next free number, also if another one is made meanwhile."""
    while True:
        number = max((int(each.name) for each in releases.glob("[0-9]*")), default=0) + 1
        release = releases / f"{number:04d}"
        try:
            # A rename replaces an empty directory only: a taken number makes it fail.
            work.rename(release)
        except OSError:
            if not release.exists():
                raise
        else:
            return release


def _point(link: Path, target: str) -> None:
    """Make or turn a link, so that there is one at every moment."""
    new = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    new.symlink_to(target)
    new.replace(link)
