"""The names of the files of one attempt, which kubelet and supervisor share. No I/O."""

from __future__ import annotations

from hpk.model.frozen import dataclass


@dataclass(frozen=True)
class AttemptLayout:
    """The directory of one attempt to run a pod: ``$HPK_HOME/pods/UID/attempts/NONCE``.

    ``root`` is an absolute path without a trailing slash. What a submission leaves in it is
    hpk.slurm.submitting's.
    """

    root: str

    @property
    def spec(self) -> str:
        """JobSpec as JSON, written by the kubelet before it submits."""
        return f"{self.root}/pod.json"

    @property
    def token(self) -> str:
        """The channel token of this attempt, mode 0600."""
        return f"{self.root}/token"

    @property
    def script(self) -> str:
        """The batch script as it was submitted."""
        return f"{self.root}/script.sh"

    @property
    def job_output(self) -> str:
        """Output of the batch script, the supervisor's own log."""
        return f"{self.root}/job.log"

    @property
    def claim(self) -> str:
        """Whoever links this first owns the attempt: a supervisor, or the kubelet revoking it."""
        return f"{self.root}/claim"

    @property
    def record(self) -> str:
        """SupervisorRecord as JSON, replaced atomically and synced."""
        return f"{self.root}/record.json"

    @property
    def stop_request(self) -> str:
        """A Stop frame as JSON, by which the kubelet stops the pod where there is no channel."""
        return f"{self.root}/stop"

    @property
    def logs(self) -> str:
        """Directory of the CRI logs, ``logs/CONTAINER/N.log`` for the Nth restart."""
        return f"{self.root}/logs"

    def log_path(self, container: str, restart_count: int) -> str:
        """Path of one log, relative to root."""
        return f"logs/{container}/{restart_count}.log"
