"""The only owner of paths, atomic writes, claims, journals and locks outside the job.

Everything lies under ``$HPK_HOME`` (small, durable, shared between nodes) or ``$HPK_CACHE`` (big,
can be made again). Directories are 0700 and files 0600; before a directory is used its owner is
checked and that it is no link, for a login node is shared with strangers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpk.model.errors import ParseError, PermanentError
from hpk.model.ids import Nonce, PodUid, is_valid_uid
from hpk.model.layout import AttemptLayout

_DIR_MODE = 0o700
_FILE_MODE = 0o600
_LOCK_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class HpkPaths:
    """Every path of one HPK home.

    :param home: ``$HPK_HOME``, absolute.
    :param cache: ``$HPK_CACHE``, absolute.
    """

    home: Path
    cache: Path

    @classmethod
    def from_environment(cls, environment: dict[str, str] | None = None) -> HpkPaths:
        """``$HPK_HOME`` (~/.hpk) and ``$HPK_CACHE`` (``$XDG_CACHE_HOME``/hpk, ~/.cache/hpk)."""
        env = dict(os.environ) if environment is None else environment
        user_home = Path(env.get("HOME") or Path("~").expanduser())
        home = Path(env.get("HPK_HOME") or user_home / ".hpk")
        cache = Path(
            env.get("HPK_CACHE") or Path(env.get("XDG_CACHE_HOME") or user_home / ".cache") / "hpk"
        )
        return cls(home=home.absolute(), cache=cache.absolute())

    @property
    def own_directories(self) -> tuple[str, ...]:
        """The home and the cache, as they are written and with their links resolved."""
        written = (self.home, self.cache)
        return tuple(sorted({str(p) for path in written for p in (path, path.resolve())}))

    @property
    def kubeconfig(self) -> Path:
        """The user's own credentials."""
        return self.home / "kubeconfig"

    @property
    def endpoint(self) -> Path:
        """Where the control plane is now; see hpk.model.settings.Endpoint."""
        return self.home / "endpoint.json"

    @property
    def heartbeat(self) -> Path:
        """Touched while the control plane lives."""
        return self.home / "heartbeat"

    @property
    def lock(self) -> Path:
        """One control plane per home."""
        return self.home / "lock"

    @property
    def stop_request(self) -> Path:
        """Written by `hpk down`, on whatever host, for the process that holds the lock."""
        return self.home / "stop-request.json"

    @property
    def config(self) -> Path:
        """The user's configuration."""
        return self.home / "config.toml"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.home / "pki"

    @property
    def control_plane(self) -> Path:
        """Ports, component configuration, etcd's data where no local disk is."""
        return self.home / "control-plane"

    @property
    def kubelet(self) -> Path:
        """The kubelet's own settings and credentials."""
        return self.home / "kubelet"

    @property
    def logs(self) -> Path:
        """One log file per component."""
        return self.home / "logs"

    @property
    def pods(self) -> Path:
        """One directory per Pod UID."""
        return self.home / "pods"

    @property
    def artifacts(self) -> Path:
        """Content-addressed programs that jobs run (the supervisor's zipapp)."""
        return self.home / "artifacts"

    @property
    def binaries(self) -> Path:
        """Upstream programs, ``binaries/NAME/VERSION/NAME``."""
        return self.cache / "binaries"

    @property
    def images(self) -> Path:
        """Converted container images by digest."""
        return self.cache / "images"

    def pod_dir(self, uid: PodUid) -> Path:
        """The directory of one Pod."""
        if not is_valid_uid(uid):
            raise ParseError(f"not a Pod UID: {uid!r}")
        return self.pods / uid

    def journal(self, uid: PodUid) -> Path:
        """The journal of one Pod's attempts."""
        return self.pod_dir(uid) / "journal.jsonl"

    def submit_lock(self, uid: PodUid) -> Path:
        """Held, through an inherited descriptor, by every sbatch of this Pod while it runs."""
        return self.pod_dir(uid) / "submit.lock"

    def attempt(self, uid: PodUid, nonce: Nonce) -> AttemptLayout:
        """The files of one attempt."""
        return AttemptLayout(str(self.pod_dir(uid) / "attempts" / nonce))


def private_directory(path: Path) -> Path:
    """Make the directory and what parents it lacks, 0700, and check that it is ours and no link.

    :raises PermanentError: somebody else owns it, it is a link, or others may enter it.
    """
    _make(path)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise PermanentError(f"{path} is not a directory", remedy="move it away")
    if info.st_uid != os.geteuid():
        raise PermanentError(f"{path} belongs to uid {info.st_uid}", remedy="choose another path")
    if info.st_mode & 0o077:
        path.chmod(_DIR_MODE)
    return path


def _make(path: Path) -> None:
    # Path.mkdir has the mode for the last directory alone, and others could look into ~/.cache.
    try:
        path.mkdir(mode=_DIR_MODE, exist_ok=True)
    except FileNotFoundError:
        _make(path.parent)
        path.mkdir(mode=_DIR_MODE, exist_ok=True)


def write_atomically(path: Path, data: str | bytes, *, mode: int = _FILE_MODE) -> None:
    """Replace the file so that a reader on any host sees the old or the new, and sync it."""
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def claim(path: Path, owner: str) -> bool:
    """Take an exclusive claim by link(2), which is atomic on NFS too.

    :returns: True if the claim is ours now (or was, with the same owner text), else False.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    write_atomically(temporary, owner)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return path.read_text(errors="replace") == owner
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def append_journal(path: Path, entry: dict[str, Any]) -> None:
    """Append one entry, durable when this returns."""
    line = json.dumps(entry, separators=(",", ":")) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, _FILE_MODE)
    try:
        if _lacks_final_newline(path):
            line = "\n" + line
        os.write(fd, line.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def _lacks_final_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_journal(path: Path) -> tuple[dict[str, Any], ...]:
    """The journal's whole entries; a line that a crash cut short counts as not written."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return tuple(entries)


@contextlib.asynccontextmanager
async def wait_for_lock(path: Path) -> AsyncIterator[int]:
    """`exclusive_lock` for an event loop: waits without holding a thread."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[int]:
    """Hold an flock on the file; yields its descriptor; a child that inherits it holds it too."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)
