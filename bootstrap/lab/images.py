"""Makes the lab's images, most from Debian packages, and keeps them, as OCI layouts, in the cache.

Nothing is fetched but packages, through apt, and upstream's programs, as for the control plane:
mmdebstrap, busybox or nothing → tar → umoci → OCI layout.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from bootstrap.binaries import Reporter, ensure_all
from bootstrap.lab.definitions import DIRECTORY, Configuration, Content, Definition
from hpk import subproc
from hpk.config.load import load_config
from hpk.flock import wait_for_lock
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

_SUITE = "bookworm"
_BUSYBOX = "/usr/bin/busybox"
_TAG = "latest"
_TIMEOUT_S = 1800
_EMPTY_DIRS = (
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o1777),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
)
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def layout_path(cache: Path, definition: Definition) -> Path:
    """Where the image's OCI layout lies, whether or not it is there yet."""
    return cache / "lab-images" / f"{definition.name}-{definition.key}"


def manifest_digest(layout: Path) -> str:
    """``sha256:…`` of the layout's image."""
    return str(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])


async def ensure(cache: Path, definition: Definition, reporter: Reporter) -> Path:
    """The image's OCI layout, made first where it is missing (half a minute for a Debian).

    :raises PermanentError: it cannot be made; says which program failed.
    """
    target = layout_path(cache, definition)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        reporter.step(definition.name, "waiting for another process that makes it")

    async with wait_for_lock(target.parent / ".lock", waiting):
        if not target.exists():
            await _build(definition, target, reporter)
    return target


async def _build(definition: Definition, target: Path, reporter: Reporter) -> None:
    reporter.step(definition.name, "building the image")
    work = target.with_name(f".build-{definition.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        base, extra, layout = work / "base.tar", work / "extra.tar", work / "layout"
        if definition.content.busybox:
            await asyncio.to_thread(_write_busybox, base, await _busybox_applets())
        elif definition.content.empty:
            await asyncio.to_thread(_write_skeleton, base)
        else:
            await make_debian(definition.content, base)
        programs = await _compile(definition, work)
        programs |= await _upstream(definition, reporter)
        await asyncio.to_thread(_write_extra, definition, programs, extra)
        await make_layout(definition.config, layout, (base, extra))
        layout.replace(target)
    finally:
        await asyncio.to_thread(shutil.rmtree, work, True)


async def make_debian(content: Content, target: Path) -> None:
    """Write a Debian with the content's packages into a tar archive.

    :raises PermanentError: it cannot be made.
    """
    await _run(
        [
            "mmdebstrap",
            *("--quiet", "--mode=root", "--variant=minbase", "--skip=output/dev"),
            f"--include={','.join(content.packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in content.exclude),
            *([f"--essential-hook={DIRECTORY / content.before}"] if content.before else []),
            *(_SUITE, str(target)),
        ]
    )


async def _compile(definition: Definition, work: Path) -> dict[str, Path]:
    """Target → compiled program."""
    programs = {}
    for index, program in enumerate(definition.content.programs):
        output = work / f"program-{index}"
        source = str(DIRECTORY / program.source)
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s"]
        await _run([program.compiler, *flags, f"-o{output}", source])
        programs[program.target] = output
    return programs


async def _upstream(definition: Definition, reporter: Reporter) -> dict[str, Path]:
    """Target → upstream's program, brought first where it is missing."""
    wanted = definition.content.upstream
    if not wanted:
        return {}
    paths = HpkPaths.from_environment()
    names = [item.program for item in wanted]
    stored = await ensure_all(paths, load_config(paths).binaries, reporter, names)
    return {item.target: stored[item.program].path for item in wanted}


async def _busybox_applets() -> list[str]:
    return (await subproc.run([_BUSYBOX, "--list"])).check().stdout.split()


def _write_busybox(target: Path, applets: list[str]) -> None:
    with tarfile.open(target, "w") as tar:
        _add_skeleton(tar)
        _add(tar, "bin/busybox", 0o755, Path(_BUSYBOX).read_bytes())
        for applet in applets:
            if applet != "busybox":
                link = _entry(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
                link.linkname = "busybox"
                tar.addfile(link)


def _write_skeleton(target: Path) -> None:
    with tarfile.open(target, "w") as tar:
        _add_skeleton(tar)


def _add_skeleton(tar: tarfile.TarFile) -> None:
    for name, mode in _EMPTY_DIRS:
        tar.addfile(_entry(name, mode, tarfile.DIRTYPE))
    _add(tar, "etc/passwd", 0o644, _PASSWD)
    _add(tar, "etc/group", 0o644, _GROUP)


def _write_extra(definition: Definition, programs: dict[str, Path], target: Path) -> None:
    with tarfile.open(target, "w") as tar:
        files = [
            (file.target, file.mode, DIRECTORY / file.source) for file in definition.content.files
        ]
        files += [(where, 0o755, path) for where, path in programs.items()]
        made: set[str] = set()
        for where, mode, path in files:
            for parent in reversed(Path(where.lstrip("/")).parents[:-1]):
                if str(parent) not in made:
                    tar.addfile(_entry(str(parent), 0o755, tarfile.DIRTYPE))
                    made.add(str(parent))
            _add(tar, where.lstrip("/"), mode, path.read_bytes())


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry


def _add(tar: tarfile.TarFile, name: str, mode: int, data: bytes) -> None:
    entry = _entry(name, mode, tarfile.REGTYPE)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


async def make_layout(config: Configuration, layout: Path, layers: Sequence[Path]) -> None:
    """Make an OCI layout of one image out of tar archives, the lowest first.

    :raises PermanentError: it cannot be made.
    """
    image = f"--image={layout}:{_TAG}"
    await _run(["umoci", "init", f"--layout={layout}"])
    await _run(["umoci", "new", image])
    for layer in layers:
        await _run(["umoci", "raw", "add-layer", image, str(layer)])
    settings = [
        *(f"--config.entrypoint={word}" for word in config.entrypoint),
        *(f"--config.cmd={word}" for word in config.cmd),
        *(f"--config.env={word}" for word in config.env),
        *([f"--config.user={config.user}"] if config.user else []),
        *([f"--config.workingdir={config.working_dir}"] if config.working_dir else []),
        *(f"--config.volume={path}" for path in config.volumes),
        *(f"--config.exposedports={port}" for port in config.ports),
        *([f"--config.stopsignal={config.stop_signal}"] if config.stop_signal else []),
    ]
    await _run(["umoci", "config", image, *settings])
    await _run(["umoci", "gc", f"--layout={layout}"])


async def _run(argv: list[str]) -> None:
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    environment = subproc.base_environment(passed)
    done = await subproc.run(argv, environment=environment, timeout_s=_TIMEOUT_S)
    if done.exit_code != 0:
        raise PermanentError(
            f"{argv[0]} ended with {done.exit_code}: {done.stderr.strip()[-1500:]}",
            remedy="check that apt's sources can be reached; "
            "scripts/install-os-packages installs the tools",
        )
