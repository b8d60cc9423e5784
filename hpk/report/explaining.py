"""Collects what an explanation needs: files, configuration, the image cache, and Slurm if it is
there. Nothing is pulled, submitted or written."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from hpk.config.load import load
from hpk.images.reference import parse_reference
from hpk.images.store import ImageStore
from hpk.model.errors import HpkError, PermanentError
from hpk.model.job import Partition
from hpk.model.plan import ImagePlan
from hpk.planning.job.site import prefer_partition, site_settings
from hpk.report.documents import MAX_BYTES, load_documents
from hpk.report.explain import Surroundings, explain
from hpk.report.explanation import Explanation
from hpk.report.workloads import PodSource, pods_of
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths
from hpk.supervisor_zipapp import build_zipapp

_SLURM_TIMEOUT_S = 20


def explain_files(
    paths: HpkPaths,
    files: Iterable[str],
    *,
    namespace: str,
    parameters: Mapping[str, str],
    ask_slurm: bool,
) -> tuple[Explanation, ...]:
    """The explanations of every Pod in these files; ``-`` is standard input. Blocks.

    :raises HpkError: a file cannot be read; a Pod that cannot run is an explanation instead.
    """
    pods: list[PodSource] = []
    for name in files:
        for document in load_documents(_read(name), name):
            pods += pods_of(document, namespace=namespace, parameters=parameters)
    if not pods:
        raise PermanentError("nothing in there makes a Pod", remedy="give a manifest that does")
    site = site_settings(load(paths), paths.own_directories)
    partitions = asyncio.run(_partitions()) if ask_slurm else ()
    given = Surroundings(
        site=site,
        partitions=prefer_partition(partitions, site.default_partition),
        images=_cached_images(paths, pods),
        pods_directory=str(paths.pods),
        python=str(Path(sys.executable).resolve()),
        supervisor=_supervisor(paths),
    )
    return tuple(explain(pod, given) for pod in pods)


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"{name}: {error.strerror}", remedy="name a readable file") from error


async def _partitions() -> tuple[Partition, ...]:
    try:
        async with asyncio.timeout(_SLURM_TIMEOUT_S):
            return await CliBackend().partitions()
    except (HpkError, TimeoutError):
        return ()


def _supervisor(paths: HpkPaths) -> str:
    digest = hashlib.sha256(build_zipapp()).hexdigest()
    return str(paths.artifacts / f"supervisor-{digest}.pyz")


def _cached_images(paths: HpkPaths, pods: Iterable[PodSource]) -> dict[str, ImagePlan]:
    store, found = ImageStore(paths), {}
    for source in pods:
        spec = source.pod["spec"]
        for kind in ("initContainers", "containers"):
            containers = spec.get(kind)
            for one in containers if isinstance(containers, list) else ():
                spelled = one.get("image") if isinstance(one, dict) else None
                if not isinstance(spelled, str):
                    continue
                image = _cached(store, spelled)
                if image is not None:
                    found[spelled] = image
    return found


def _cached(store: ImageStore, spelled: str) -> ImagePlan | None:
    try:
        reference = parse_reference(spelled)
        meaning = store.meaning(reference)
        return None if meaning is None else store.plan(spelled, reference, meaning)
    except HpkError:
        return None
