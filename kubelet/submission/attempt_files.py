"""The files of an attempt, as they must be before sbatch may run. Blocks.

A Pod that Slurm refuses keeps one attempt: the next submission has the same nonce, directory and
token. That a refused submission never was one Slurm said itself; where it did not say anything the
attempt is recovered or revoked, and the next gets a directory of its own.

An intent that is journalled survives a crash of this host, and so does the token, for one that lost
its text would be anybody's. Of the script Slurm keeps a copy. A plan that is lost with the host is
damaged or gone for the supervisor too, which ends before it takes the claim: the attempt is revoked
and the Pod submitted again, as after any job that breaks down before it begins. That the directory
survives is left to the file system's order: without it no second job would run, but the first could
not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
import sys
from pathlib import Path

from hpk.durable import private_directory, write_atomically, write_new
from hpk.journal import JournalChangedError, PodJournal, begin_attempt, read_pod
from hpk.model import codec
from hpk.model.ids import JobName, Nonce, PodRef
from hpk.model.layout import AttemptLayout
from hpk.model.plan.job_spec import JobSpec, SupervisorSettings
from hpk.model.plan.pod import PodPlan
from hpk.render import render_script
from hpk.statefs import HpkPaths

# The interpreter itself, not the environment it was started from: an upgrade may remove that while
# the job is queued, and the supervisor needs nothing of it.
_PYTHON = str(Path(sys.executable).resolve())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFiles:
    """Writes them.

    :param zipapp: the supervisor's program.
    """

    paths: HpkPaths
    settings: SupervisorSettings
    zipapp: Path

    def prepare(self, pod: PodRef, plan: PodPlan) -> tuple[PodJournal, str]:
        """Files first, then the journalled intent; sbatch may run when this returns.

        :returns: the journal as it is now, of this attempt alone, and the attempt's token.
        """
        journal = read_pod(self.paths, pod.uid)
        nonce = _refused(journal)
        is_new = nonce is None or not Path(self.paths.attempt(pod.uid, nonce).token).exists()
        if nonce is None or is_new:
            nonce = Nonce(secrets.token_hex(8))
            layout = self.paths.attempt(pod.uid, nonce)
            private_directory(Path(layout.root))
            token = secrets.token_hex(32)
            write_new(layout.token, token.encode(), sync=True)
            for path, text in self._texts(pod, plan, nonce, layout).items():
                write_new(path, text.encode())
        else:
            layout = self.paths.attempt(pod.uid, nonce)
            token = Path(layout.token).read_text().strip()
            for path, text in self._texts(pod, plan, nonce, layout).items():
                write_atomically(path, text)
        try:
            attempt = begin_attempt(self.paths, journal, pod, nonce)
        except JournalChangedError:
            if is_new:
                shutil.rmtree(layout.root, ignore_errors=True)
            raise
        for old in journal.attempts if journal is not None else ():
            if old.nonce != nonce:
                remove_attempt(self.paths.attempt(pod.uid, old.nonce))
        deleted = journal is not None and journal.deleted
        return PodJournal(pod=pod, attempts=(attempt,), deleted=deleted), token

    def _texts(
        self, pod: PodRef, plan: PodPlan, nonce: Nonce, layout: AttemptLayout
    ) -> dict[str, str]:
        script = render_script(
            plan,
            job_name=str(JobName(pod.namespace, pod.name, nonce)),
            layout=layout,
            python=_PYTHON,
            supervisor=str(self.zipapp),
        )
        spec = JobSpec(plan=plan, nonce=nonce, settings=self.settings)
        return {layout.spec: codec.dumps(spec), layout.script: script}


def remove_attempt(layout: AttemptLayout) -> None:
    """Remove the files of an attempt that was withdrawn, as far as that can be done now.

    First those without which no supervisor begins, last the claim: while anything else is there the
    claim says that the attempt may not run.
    """
    claim, root = Path(layout.claim), Path(layout.root)
    with contextlib.suppress(OSError):
        for path in (layout.spec, layout.token):
            Path(path).unlink(missing_ok=True)
        for entry in root.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != claim:
                entry.unlink(missing_ok=True)
        claim.unlink(missing_ok=True)
        root.rmdir()


def _refused(journal: PodJournal | None) -> Nonce | None:
    """The attempt that sbatch refused last, to be submitted again."""
    last = journal.attempts[-1] if journal is not None and journal.attempts else None
    if last is None or last.revoked or not last.refused:
        return None
    return last.nonce
