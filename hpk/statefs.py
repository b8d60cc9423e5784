"""The only owner of paths outside the job.

Everything lies under ``$HPK_HOME`` (small, durable, shared between nodes) or ``$HPK_CACHE`` (big,
can be made again). Directories are 0700 and files 0600; before a directory is used its owner is
checked and that it is no link (hpk.durable), for a login node is shared with strangers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpk.model.errors import ParseError
from hpk.model.ids import Nonce, PodUid, is_valid_uid
from hpk.model.layout import AttemptLayout


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

    def attempt(self, uid: PodUid, nonce: Nonce) -> AttemptLayout:
        """The files of one attempt."""
        return AttemptLayout(str(self.pod_dir(uid) / "attempts" / nonce))
