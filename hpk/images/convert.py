"""A registry's image becomes a SIF file: how apptainer (or singularity) is asked to make it.

Working space is ours and goes away; nothing is left in the user's own caches. How many of these run
at once is decided by the caller; each keeps to its own share of processors and memory.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from hpk import subproc
from hpk.images.errors import ERR_IMAGE_PULL, ImageError
from hpk.images.reference import Reference
from hpk.images.threads import in_thread
from hpk.images.working_space import working_space
from hpk.model.errors import HpkError, ParseError
from hpk.model.sif import HEADER_BYTES, parse_header, primary_squashfs_offset

log = logging.getLogger(__name__)

_PROGRAMS = ("apptainer", "singularity")
_PASSED_ON = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
_MAX_ACCOUNTS_BYTES = 1024 * 1024
_EXTRACT_TIMEOUT_S = 120.0
_HELP_TIMEOUT_S = 60.0
_PACKING_OPTION = "--mksquashfs-args"
_COMPRESSION = "-comp zstd -Xcompression-level 3"
"""Six times as fast to write as the default (gzip) and twice as fast to read; 4 % larger."""
_PACKING_MEMORY = "512M"
"""mksquashfs takes a quarter of the host's otherwise, whatever the user's own limit there is."""
_NO_CONVERTER = (
    "load the site's module for it or set images.runtime-path in config.toml; whatever runtime a "
    "Pod chooses, images of registries are converted by it (a SIF file's path needs none)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """How to convert.

    :param runtime_path: directories to look for the program in, before PATH.
    :param scratch: parent of the working space: local, with room for the unpacked image.
    :param processors: how many of the host's one conversion may keep busy.
    """

    runtime_path: tuple[Path, ...]
    scratch: Path
    timeout_s: float
    processors: int = 2

    async def pull(self, source: Reference, destination: Path, *, insecure: bool) -> None:
        """Make ``destination`` a SIF file of the image.

        :param source: with a digest: what is converted is what was resolved.
        :raises ImageError: ``ErrImagePull``, with the end of what the program said.
        """
        program = await in_thread(find_program, _PROGRAMS, self.runtime_path, remedy=_NO_CONVERTER)
        options = []
        if insecure:
            options.append("--no-https" if Path(program).name == "apptainer" else "--nohttps")
        options += [str(destination), f"docker://{source}"]
        packings = await _packings(program, self.processors)
        async with working_space(self.scratch, source.digest) as space:
            # The site's mksquashfs may know nothing of zstd: then once more, as it is built.
            environment = _environment(space, self.processors)
            for packing in packings:
                argv = [program, "build", "--force", *packing, *options]
                try:
                    done = await subproc.run(
                        argv, environment=environment, timeout_s=self.timeout_s, cwd=space
                    )
                except HpkError as error:
                    raise _failed(source, str(error)) from error
                if done.exit_code == 0:
                    return
                log.info("%s %s", source, _said(done))
            raise _failed(source, _said(done), scratch=self.scratch)

    async def accounts(self, sif: Path) -> tuple[str, str]:
        """The image's own /etc/passwd and /etc/group, "" for what it lacks.

        :raises ImageError: unsquashfs is not there, or the SIF file is damaged.
        """
        program = await in_thread(_find_unsquashfs, self.runtime_path)
        try:
            offset = await in_thread(_squashfs_offset, sif)
        except (ParseError, OSError) as error:
            raise ImageError(ERR_IMAGE_PULL, f"cannot read the converted image: {error}") from error
        async with working_space(self.scratch, "accounts") as space:
            root = space / "root"
            argv = [program, "-n", "-no", "-processors", str(self.processors)]
            argv += ["-o", str(offset), "-d", str(root), str(sif), "etc/passwd", "etc/group"]
            # Its exit code also speaks of ownership that only root could restore, and of files
            # that are not there; what counts is what came out.
            done = await subproc.run(argv, timeout_s=_EXTRACT_TIMEOUT_S)
            if done.exit_code not in (0, 2):
                raise ImageError(
                    ERR_IMAGE_PULL, f"cannot look into the converted image: {_said(done)}"
                )
            return await in_thread(accounts_in, root)


async def _packings(program: str, processors: int) -> list[list[str]]:
    """How mksquashfs is to pack, the best first; in its own way, where the program has no option
    for it (Apptainer has since 1.4)."""
    told = await subproc.run([program, "build", "--help"], timeout_s=_HELP_TIMEOUT_S)
    if _PACKING_OPTION not in told.stdout:
        return [[]]
    bounds = f"-processors {processors} -mem {_PACKING_MEMORY}"
    return [[_PACKING_OPTION, f"{_COMPRESSION} {bounds}"], [_PACKING_OPTION, bounds]]


def _find_unsquashfs(runtime_path: tuple[Path, ...]) -> str:
    """Apptainer brings one of its own, but needs not be there for it."""
    runtime = which(_PROGRAMS, runtime_path)
    private = _private_programs(runtime) if runtime else ()
    return find_program(
        ("unsquashfs",), (*runtime_path, *private), remedy="have squashfs-tools installed here"
    )


def find_program(names: tuple[str, ...], directories: tuple[Path, ...], *, remedy: str) -> str:
    """The path of the first of these programs, in the directories first, then on PATH.

    :raises ImageError: none is there.
    """
    if found := which(names, directories):
        return found
    raise ImageError(
        ERR_IMAGE_PULL,
        f"images cannot be converted: no {' or '.join(names)} on PATH of the control plane's host",
        remedy=remedy,
    )


def which(names: tuple[str, ...], directories: tuple[Path, ...]) -> str | None:
    """The same, None where there is none."""
    for directory in directories:
        for name in names:
            if found := shutil.which(name, path=str(directory)):
                return found
    for name in names:
        if found := shutil.which(name):
            return found
    return None


def _private_programs(runtime: str) -> tuple[Path, ...]:
    prefix = Path(runtime).resolve().parent.parent
    return (prefix / "libexec/apptainer/bin", prefix / "libexec/singularity/bin")


def _environment(space: Path, processors: int) -> dict[str, str]:
    ours = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    for prefix in ("APPTAINER", "SINGULARITY"):
        ours[f"{prefix}_CACHEDIR"] = str(space / "cache")
        ours[f"{prefix}_TMPDIR"] = str(space)
    ours["TMPDIR"] = str(space)
    ours["GOMAXPROCS"] = str(processors)  # of Apptainer itself, which unpacks the layers
    return subproc.base_environment(ours)


def _squashfs_offset(sif: Path) -> int:
    with sif.open("rb") as file:
        table = parse_header(file.read(HEADER_BYTES))
        file.seek(table.offset)
        return primary_squashfs_offset(file.read(table.size))


def accounts_in(root: Path) -> tuple[str, str]:
    """/etc/passwd and /etc/group below a directory, "" for what is not there."""
    return small_text(root / "etc/passwd"), small_text(root / "etc/group")


def small_text(path: Path) -> str:
    """A regular file of an image, read in part if it is big; "" for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return file.read(_MAX_ACCOUNTS_BYTES).decode(errors="replace").replace("\0", "")


def _said(done: subproc.Completed) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("FATAL", "ERROR"))]
    text = " ".join(fatal or lines[-5:])[-1000:]
    return f"{Path(done.argv[0]).name} ended with {done.exit_code}: {text}"


def _failed(source: Reference, why: str, *, scratch: Path | None = None) -> ImageError:
    remedy = ""
    if scratch is not None and "no space left on device" in why.lower():
        remedy = f"make room in {scratch} and in the cache, or set TMPDIR and HPK_CACHE elsewhere"
    return ImageError(
        ERR_IMAGE_PULL, f'failed to pull and convert image "{source}": {why}', remedy=remedy
    )
