"""Builds upstream programs from source through the Go module proxy.

The wrapper modules in bootstrap/gobuild pin every dependency with its checksum (go.sum), so what
is built is what was reviewed, whoever serves the modules.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

from bootstrap.components import Program
from hpk import subproc
from hpk.model.errors import PermanentError, TransientError

_GO_SOURCES = Path(__file__).parent / "gobuild"
_OLDEST_GO = (1, 26)
_BUILD_TIMEOUT_S = 3600.0
_PASSED = ("http_proxy", "https_proxy", "no_proxy", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def _environment(proxy: str) -> dict[str, str]:
    extra = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("GO") or name.lower() in _PASSED or name in _PASSED
    }
    if proxy:
        extra |= {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
    # No race with the user's own go.work or vendored modules: this module and its go.sum decide.
    extra |= {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    return subproc.base_environment(extra)


def parse_go_version(text: str) -> tuple[int, int] | None:
    """``go version go1.26.8 linux/amd64`` → (1, 26)."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


async def check_go() -> str:
    """Go's version line.

    :raises PermanentError: there is no Go, or it is too old.
    """
    needed = f"go {_OLDEST_GO[0]}.{_OLDEST_GO[1]}"
    if shutil.which("go") is None:
        raise PermanentError(
            "building upstream's programs needs Go, and there is no go on PATH",
            remedy=f"install {needed} or newer, or put the programs where downloads work",
        )
    text = (await subproc.run(["go", "version"], environment=_environment(""))).check().stdout
    version = parse_go_version(text)
    if version is None or version < _OLDEST_GO:
        raise PermanentError(f"{text.strip()} is too old", remedy=f"install {needed} or newer")
    return text.strip()


def build_argv(program: Program, source: Path, output: Path) -> list[str]:
    """The command that builds one program into the file ``output``."""
    return [
        "go",
        "build",
        f"-C={source}",
        "-v",
        "-trimpath",
        "-buildvcs=false",
        f"-ldflags={' '.join(program.ldflags)}",
        f"-o={output}",
        program.package,
    ]


async def build(program: Program, work: Path, *, proxy: str, log: Path) -> Path:
    """Build a program in ``work``.

    :param log: gets Go's own output, a line for each package compiled.
    :raises PermanentError: Go could not; the message carries the end of its output.
    """
    output = work / program.name
    argv = build_argv(program, _GO_SOURCES / program.module, output)
    try:
        done = await subproc.run(
            argv,
            environment=_environment(proxy),
            timeout_s=_BUILD_TIMEOUT_S,
            stderr_path=log,
        )
    except TransientError as error:
        raise PermanentError(str(error), remedy="try again on a faster machine") from error
    if done.exit_code != 0:
        tail = await asyncio.to_thread(_tail, log)
        raise PermanentError(
            f"building {program.name} {program.version} failed: {tail}",
            remedy="check that the Go module proxy (go env GOPROXY) can be reached",
        )
    return output


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-1500:]


def compiled_packages(log: Path) -> int:
    """How many packages Go has compiled so far."""
    try:
        return log.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
