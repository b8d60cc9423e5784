"""Installs this checkout into the lab's software directory, as a site's staff would.

Each installation is a directory of its own and ``hpk`` a link to the newest: what runs keeps the
modules it was started with, whatever is installed meanwhile.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from bootstrap.lab.layout import Lab
from hpk import subproc
from hpk.model.errors import PermanentError

_CHECKOUT = Path(__file__).resolve().parents[2]
_TEMPLATES = Path(__file__).parent / "templates"
_PYTHON = "/usr/bin/python3"
_KEPT_RELEASES = 5
_TIMEOUT_S = 600


def find_uv() -> str:
    """The uv on PATH.

    :raises PermanentError: there is none.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise PermanentError(
            "no uv on PATH, which installs Python programs",
            remedy="install it (https://docs.astral.sh/uv) and put it on PATH",
        )
    return uv


async def install(lab: Lab, *, uv_cache: Path | None = None) -> Path:
    """Install the checkout and make it the one in use.

    :returns: the new installation, as this machine sees it.
    :raises PermanentError: there is no checkout here, or it does not install.
    """
    if not (_CHECKOUT / "pyproject.toml").exists():
        raise PermanentError(
            f"{_CHECKOUT} is no checkout of hpk", remedy="run hpk lab from a checkout"
        )
    _make_directories(lab)
    uv, releases = find_uv(), lab.software / "releases"
    release = releases / f"{_next_number(releases):04d}"
    work = releases / f".new-{secrets.token_hex(4)}"
    quiet = ("--quiet", "--no-progress", "--no-config")
    environment = _environment()
    try:
        for argv in (
            [uv, "venv", *quiet, "--relocatable", f"--python={_PYTHON}", str(work)],
            [
                *(uv, "pip", "install", *quiet, f"--python={work}/bin/python"),
                *("--compile-bytecode", "--reinstall-package=hpk", str(_CHECKOUT)),
            ],
        ):
            done = await subproc.run(argv, environment=environment, timeout_s=_TIMEOUT_S)
            if done.exit_code != 0:
                raise PermanentError(
                    f"uv {argv[1]} failed: {done.stderr.strip()[-1500:]}",
                    remedy="check that the Python package index can be reached",
                )
        (work / "libexec").symlink_to("../../libexec")
        work.chmod(0o755)
        work.rename(release)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _point(lab.software / "hpk", f"releases/{release.name}")
    for old in sorted(releases.glob("[0-9]*"))[:-_KEPT_RELEASES]:
        shutil.rmtree(old)
    return release


def _make_directories(lab: Lab) -> None:
    for name in ("bin", "releases", "apptainer", "libexec/hpk/binaries"):
        (lab.software / name).mkdir(parents=True, exist_ok=True)
    _point(lab.software / "bin/hpk", "../hpk/bin/hpk")
    kubectl = lab.software / "bin/kubectl"
    shutil.copyfile(_TEMPLATES / "kubectl.sh", kubectl)
    kubectl.chmod(0o755)


def _environment() -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UV_", "PIP_", "SSL_CERT_", "XDG_")) or name in names
    }
    return subproc.base_environment(passed)


def _next_number(releases: Path) -> int:
    return max((int(each.name) for each in releases.glob("[0-9]*")), default=0) + 1


def _point(link: Path, target: str) -> None:
    """Make or turn a link, so that there is one at every moment."""
    new = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    new.symlink_to(target)
    new.replace(link)
