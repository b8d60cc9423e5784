"""Builds upstream programs from source through the Go module proxy.

The wrapper modules in bootstrap/gobuild pin every dependency with its checksum (go.sum), so what
is built is what was reviewed, whoever serves the modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from pathlib import Path

from bootstrap.components import Program
from hpk import subproc
from hpk.model.errors import PermanentError, TransientError

GO_SOURCES = Path(__file__).parent / "gobuild"
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


def build_argv(
    program: Program, source: Path, output: Path, module_file: Path | None = None
) -> list[str]:
    """The command that builds one program into the file ``output``.

    :param module_file: go.mod to go by instead of that of ``source``.
    """
    return [
        "go",
        "test" if program.is_test else "build",
        f"-C={source}",
        *(["-c", "-vet=off"] if program.is_test else []),
        "-v",
        "-trimpath",
        "-buildvcs=false",
        f"-ldflags={' '.join(program.ldflags)}",
        f"-o={output}",
        *([] if module_file is None else [f"-modfile={module_file}"]),
        program.package,
    ]


async def build(program: Program, work: Path, *, proxy: str, log: Path) -> Path:
    """Build a program in ``work``.

    :param log: gets Go's own output, a line for each package compiled.
    :raises PermanentError: Go could not; the message carries the end of its output.
    """
    output = work / program.name
    source = GO_SOURCES / program.module
    module_file = await _whole_module(program, source, work, proxy) if program.links else None
    argv = build_argv(program, source, output, module_file)
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
        tail = await asyncio.to_thread(_tail, log) or f"nothing could be written to {log}"
        raise PermanentError(
            f"building {program.name} {program.version} failed: {tail}",
            remedy="check that the Go module proxy (go env GOPROXY) can be reached",
        )
    return output


async def module_directory(module: str, source: Path, proxy: str) -> Path:
    """Where Go keeps a module that the wrapper module in ``source`` requires; fetched if need be.

    :raises PermanentError: it cannot be had.
    """
    done = await subproc.run(
        ["go", "mod", "download", "-C", str(source), "-json", module],
        environment=_environment(proxy),
        timeout_s=_BUILD_TIMEOUT_S,
    )
    directory = ""
    with contextlib.suppress(ValueError, AttributeError):
        directory = json.loads(done.stdout).get("Dir", "")
    if done.exit_code != 0 or not directory:
        raise PermanentError(
            f"Go cannot fetch {module}: {(done.stderr or done.stdout).strip()[-1500:]}",
            remedy="check that the Go module proxy (go env GOPROXY) can be reached",
        )
    return Path(directory)


async def _whole_module(program: Program, source: Path, work: Path, proxy: str) -> Path:
    """A go.mod in ``work`` that takes the program's module from a copy with its links put back.

    Go refuses to overlay files of its module cache.
    """
    origin = await module_directory(program.upstream, source, proxy)
    copy = work / "module"
    await asyncio.to_thread(_copy_with_links, origin, copy, program.links)
    for name in ("go.mod", "go.sum"):
        await asyncio.to_thread(shutil.copyfile, source / name, work / name)
    edit = ["go", "mod", "edit", f"-replace={program.upstream}={copy}", str(work / "go.mod")]
    (await subproc.run(edit, environment=_environment(proxy))).check()
    return work / "go.mod"


def _copy_with_links(origin: Path, copy: Path, links: tuple[tuple[str, str], ...]) -> None:
    shutil.copytree(origin, copy, copy_function=shutil.copyfile)
    for directory, _, _ in os.walk(copy):
        Path(directory).chmod(0o700)  # Go's cache is read-only
    for link, target in links:
        if not (copy / link).exists():
            shutil.copyfile(copy / target, copy / link)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-1500:]


def build_progress(log: Path) -> str:
    """How far Go has come, from what it has written so far."""
    try:
        lines = log.read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    fetched = sum(line.startswith(b"go: downloading ") for line in lines)
    compiled = sum(not line.startswith(b"go: ") for line in lines)
    return f"{compiled} packages compiled" if compiled else f"{fetched} modules fetched"
