"""Pods that only their journals know: the API server has lost them, or they ended unwatched.

Upstream's orphaned pods (pkg/kubelet/kubelet_pods.go, HandlePodCleanups), but for their end: where
the API server's store may have been emptied or restored no job is ended because its Pod is missing,
then or later. Whose job is kept that way is marked by a file of the Pod's directory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hpk.durable import write_atomically
from hpk.journal import PodJournal, known_pods, read_pod
from hpk.model.ids import PodUid
from hpk.statefs import HpkPaths
from hpk.trees import remove_tree
from kubelet.shared_files import SharedFiles

log = logging.getLogger(__name__)

_KEEP_UNKNOWN_S = 24 * 3600.0


async def orphaned_pods(
    paths: HpkPaths,
    files: SharedFiles,
    is_known: Callable[[PodUid], bool],
    is_deleted: Callable[[PodJournal], bool],
) -> AsyncIterator[PodJournal]:
    """The journals of unknown pods that may have a job, or that were deleted.

    What is left of the others is removed once it is old.
    """
    for uid in await files.do(known_pods, paths):
        if is_known(uid):
            continue
        try:
            journal = await files.do(read_pod, paths, uid)
            if journal is None or not (_is_live(journal) or is_deleted(journal)):
                await files.do(_remove_if_old, paths, uid)
                continue
        except OSError as error:
            log.warning("journal of pod %s cannot be read: %s", uid, error)
            continue
        if not is_known(uid):
            yield journal


def kept_pods(paths: HpkPaths) -> frozenset[PodUid]:
    """Pods that were missing from a store that was not the one they were made in."""
    return frozenset(uid for uid in known_pods(paths) if _mark(paths, uid).exists())


def keep_pod(paths: HpkPaths, uid: PodUid) -> None:
    """Write down that the job of this Pod is kept though its Pod is missing."""
    if paths.pod_dir(uid).exists() and not _mark(paths, uid).exists():
        write_atomically(_mark(paths, uid), "")


def keep_no_longer(paths: HpkPaths, uid: PodUid) -> None:
    """The Pod is there again."""
    _mark(paths, uid).unlink(missing_ok=True)


def _mark(paths: HpkPaths, uid: PodUid) -> Path:
    return paths.pod_dir(uid) / "kept"


def _is_live(journal: PodJournal) -> bool:
    """Whether a job of it may be in Slurm."""
    return journal.current is not None and journal.current.is_open


def _remove_if_old(paths: HpkPaths, uid: PodUid) -> None:
    """Remove the files of a pod that has ended and is missing for reasons unknown.

    Not at once: a restored store may bring the Pod back, and then they say that it has run.
    """
    directory = paths.pod_dir(uid)
    newest_s = max(
        (path.stat().st_mtime for path in (directory, paths.journal(uid)) if path.exists()),
        default=0.0,
    )
    if time.time() - newest_s > _KEEP_UNKNOWN_S:
        remove_tree(directory)
        log.info("files of a pod long gone removed uid=%s", uid)
