"""Puts the lab's images into its registry and says which are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bootstrap.binaries import Reporter
from bootstrap.lab import definitions, images
from bootstrap.lab.daemons import wait_until
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN, REGISTRY
from hpk import subproc
from hpk.flock import wait_for_lock
from hpk.model.errors import PermanentError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PUSH_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in the registry.

    :param reference: as a pod names it, ``HOST:PORT/NAME:TAG``.
    """

    reference: str
    digest: str


async def ensure_images(machine: Machine, cache: Path, reporter: Reporter) -> tuple[Image, ...]:
    """Every image of the definitions, in the registry; made and pushed where it is missing.

    :raises PermanentError: an image cannot be made or the registry refuses it.
    """

    found = []
    for definition in definitions.load_all():
        layout = await images.ensure(cache, definition, reporter)
        name = f"{definition.name}:{definition.tag}"
        found.append(await ensure_pushed(machine, cache, layout, name, reporter))
    return tuple(found)


async def ensure_pushed(
    machine: Machine, cache: Path, layout: Path, name: str, reporter: Reporter
) -> Image:
    """The image of an OCI layout, in the registry as ``NAME:TAG``; pushed where it is not there.

    :raises PermanentError: the registry refuses it.
    """

    async def answers() -> bool:
        return (await _curl(machine, "")).exit_code == 0

    await wait_until("the registry answers", answers)
    digest = images.manifest_digest(layout)
    if await _digest_in_registry(machine, name) != digest:
        # Labs share the storage: where several miss the image, one pushes it.
        async with wait_for_lock(cache / "lab-registry.lock"):
            if await _digest_in_registry(machine, name) != digest:
                reporter.step(name, "pushing to the registry")
                await _push(machine, layout, name)
    reference = f"{REGISTRY}/{name}"
    reporter.done(name, f"{reference} {digest[:19]}")
    return Image(reference=reference, digest=digest)


async def _curl(machine: Machine, path: str, *words: str) -> subproc.Completed:
    base = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10"]
    return await machine.run(LOGIN, [*base, *words, f"https://{REGISTRY}/v2/{path}"])


async def _digest_in_registry(machine: Machine, name: str) -> str:
    repository, _, tag = name.rpartition(":")
    path = f"{repository}/manifests/{tag}"
    answer = await _curl(machine, path, "--head", "--header", f"Accept: {_MANIFEST}")
    for line in answer.stdout.splitlines():
        field, _, value = line.partition(":")
        if field.lower() == "docker-content-digest":
            return value.strip()
    return ""


async def _push(machine: Machine, layout: Path, name: str) -> None:
    # skopeo runs outside the lab's file systems, where the layout is, but in its network.
    address = f"{machine.lab.login.address}:{REGISTRY.split(':')[1]}"
    target = f"docker://{address}/{name}"
    argv = [
        *("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests"),
        f"--dest-cert-dir={machine.lab.etc / 'ssl/registry'}",
        *(f"oci:{layout}:latest", target),
    ]
    # What it remembers of blobs root's skopeo keeps in /var/lib/containers, and by this variable
    # alone (go.podman.io's own) where it may be told: in the lab, to go with it.
    elsewhere = {"_CONTAINERS_ROOTLESS_UID": "1", "XDG_DATA_HOME": str(machine.lab.private)}
    done = await subproc.run(
        machine.network_argv(LOGIN, argv),
        environment=subproc.base_environment(elsewhere),
        timeout_s=_PUSH_TIMEOUT_S,
    )
    if done.exit_code != 0:
        raise PermanentError(
            f"pushing {name} to {REGISTRY}: {done.stderr.strip()[-1500:]}",
            remedy="see /var/log/docker-registry.err on the login host",
        )
