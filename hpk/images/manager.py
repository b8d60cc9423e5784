"""ImageManager: a Pod's image reference becomes a converted image that every node can run.

The one door to hpk.images. It decides by pull policy, and puts together reference, registry and
store; it neither speaks HTTP nor touches files itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpk.images.errors import ImageError
from hpk.model.plan import ImagePlan
from hpk.statefs import HpkPaths

__all__ = ["ImageError", "ImageManager", "ImageProvider", "ImageSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """How images are fetched and converted.

    :param runtime_path: directories to look for apptainer or singularity in, before PATH.
    :param insecure_registries: ``host[:port]`` of registries spoken to without TLS.
    :param pull_timeout_s: for one conversion, download included.
    """

    runtime_path: tuple[Path, ...] = ()
    insecure_registries: frozenset[str] = frozenset()
    pull_timeout_s: float = 3600


class ImageProvider(Protocol):
    """What the kubelet needs of images."""

    async def ensure(self, reference: str, *, pull_policy: str) -> ImagePlan:
        """See ImageManager.ensure."""


class ImageManager:
    """Resolves, fetches and converts images, each digest once.

    Close it with `close` when done; not to be shared between event loops.
    """

    def __init__(self, paths: HpkPaths, settings: ImageSettings | None = None) -> None:
        self._paths = paths
        self._settings = settings or ImageSettings()

    async def ensure(self, reference: str, *, pull_policy: str) -> ImagePlan:
        """The image, converted and on disk.

        :param reference: as the Pod spells it.
        :param pull_policy: ``Always`` (resolve the tag again; what is cached for the digest is
            used), ``IfNotPresent`` (no network where the reference is known) or ``Never``.
        :raises ImageError: with reason ``InvalidImageName``, ``ErrImagePull`` or
            ``ErrImageNeverPull``. Only the first is permanent; back-off is the caller's.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """End conversions under way and let go of connections."""
        raise NotImplementedError
