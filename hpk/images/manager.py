"""ImageManager: a Pod's image reference becomes a converted image that every node can run.

The one door to hpk.images. It decides by pull policy, and puts together reference, registry,
converter and store; it neither speaks HTTP nor touches files itself.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path

from hpk.config.load import load_config
from hpk.images.build_lock import build_lock
from hpk.images.convert import Converter
from hpk.images.errors import ERR_IMAGE_NEVER_PULL, ERR_IMAGE_PULL, ImageError
from hpk.images.local import LocalImages, is_local
from hpk.images.progress import Progress, Tell
from hpk.images.recent import Recent
from hpk.images.reference import Reference, parse_reference
from hpk.images.registry import Registry, Resolved
from hpk.images.settings import ImageSettings, image_settings
from hpk.images.single_flight import FlightEndedError, SingleFlight
from hpk.images.slots import Slots
from hpk.images.store import ImageStore, Listed, Meaning
from hpk.images.threads import in_thread, wholly
from hpk.model.errors import PermanentError
from hpk.model.plan import ImagePlan
from hpk.statefs import HpkPaths

__all__ = ["ImageError", "ImageManager", "ImageSettings"]

log = logging.getLogger(__name__)


class ImageManager:
    """Resolves, fetches and converts images, each digest once.

    Close it with `close` when done; not to be shared between event loops.

    :param settings: None for those that the site and the user have written down.
    :raises PermanentError: from the constructor, where those are wrong.
    """

    def __init__(self, paths: HpkPaths, settings: ImageSettings | None = None) -> None:
        self._settings = settings or image_settings(load_config(paths).images)
        self._store = ImageStore(paths)
        self._registry = Registry(insecure=self._settings.insecure_registries)
        self._looks: Recent[ImagePlan] = Recent()
        self._converter = Converter(
            runtime_path=self._settings.runtime_path,
            scratch=self._settings.scratch or Path(tempfile.gettempdir()),
            timeout_s=self._settings.pull_timeout_s,
            processors=self._settings.processors,
        )
        self._slots = Slots(self._settings.conversions_at_once)
        self._files = LocalImages(self._converter, self._slots)
        self._progress = Progress()
        self._builds: SingleFlight[None] = SingleFlight()

    async def ensure(
        self, reference: str, *, pull_policy: str, tell: Tell = lambda _: None
    ) -> ImagePlan:
        """The image, converted and on disk. What nobody waits for any more is ended.

        :param reference: as the Pod spells it; an absolute path is an image that is there
            already, whatever the pull policy.
        :param pull_policy: ``Always`` (resolve the tag again; what is cached for the digest is
            used), ``IfNotPresent`` (no network where the reference is known) or ``Never``.
        :param tell: hears what is being done, where that takes its time.
        :raises ImageError: with reason ``InvalidImageName``, ``ErrImagePull`` or
            ``ErrImageNeverPull``. Only the first is permanent; back-off is the caller's.
        """
        if is_local(reference):
            return await self._files.ensure(reference, tell)
        parsed = parse_reference(reference)
        if pull_policy not in ("Always", "IfNotPresent", "Never"):
            raise PermanentError(
                f"imagePullPolicy {pull_policy!r} is not known",
                remedy="choose Always, IfNotPresent or Never",
            )
        try:
            plan = await self._looks.get(
                f"{pull_policy} {reference}",
                lambda: self._look(reference, parsed, asks=pull_policy == "Always"),
            )
            if plan is not None:
                return plan
            if pull_policy == "Never":
                raise ImageError(
                    ERR_IMAGE_NEVER_PULL,
                    f'Container image "{reference}" is not present with pull policy of Never',
                )
            return await self._pull(reference, parsed, tell)
        except FlightEndedError as error:
            raise ImageError(
                ERR_IMAGE_PULL, f'failed to pull image "{reference}": {error}'
            ) from error
        except OSError as error:
            raise ImageError(
                ERR_IMAGE_PULL,
                f'failed to store image "{reference}": {error}',
                remedy="see that $HPK_CACHE can be written and has room",
            ) from error

    async def close(self) -> None:
        """End conversions under way and let go of connections."""
        await self._builds.close()
        await self._files.close()
        await self._looks.close()
        await self._registry.close()

    def listing(self) -> tuple[Listed, ...]:
        """What the cache holds."""
        return self._store.listing()

    async def _look(self, spelled: str, parsed: Reference, *, asks: bool) -> ImagePlan | None:
        """The image, if it is here and what the reference means.

        :param asks: a tag's meaning is the registry's to say.
        """
        if asks and parsed.tag:
            return await self._unmoved(spelled, parsed)
        return await in_thread(self._cached, spelled, parsed)

    def _cached(self, spelled: str, parsed: Reference) -> ImagePlan | None:
        meaning = self._store.meaning(parsed)
        return None if meaning is None else self._store.plan(spelled, parsed, meaning)

    async def _pull(self, spelled: str, parsed: Reference, tell: Tell) -> ImagePlan:
        resolved = await self._registry.resolve(parsed)
        await in_thread(self._store.prepare)
        meaning = Meaning(
            reference=str(parsed),
            digest=resolved.digest,
            manifest_digest=resolved.manifest_digest,
        )
        plan = await in_thread(self._store.plan, spelled, parsed, meaning)
        if plan is None:
            digest = resolved.manifest_digest
            with self._progress.following(digest, tell):
                await self._builds.do(digest, lambda: self._build(resolved))
            plan = await in_thread(self._store.plan, spelled, parsed, meaning)
        if plan is None:
            raise ImageError(
                ERR_IMAGE_PULL, f'failed to store image "{spelled}": it was gone at once'
            )
        await in_thread(self._store.remember, resolved)
        return plan

    async def _unmoved(self, spelled: str, parsed: Reference) -> ImagePlan | None:
        """A tag that was resolved before and still names an image that is here."""
        before = await in_thread(self._store.meaning, parsed)
        if before is None:
            return None
        digest = await self._registry.current_digest(parsed)
        if digest is None:
            return None
        known = await in_thread(self._store.meaning, parsed.with_digest(digest))
        if known is None:
            return None
        plan = await in_thread(self._store.plan, spelled, parsed, known)
        if plan is not None and known.digest != before.digest:
            await in_thread(self._store.remember_tag, parsed, known)
        return plan

    async def _build(self, resolved: Resolved) -> None:
        digest = resolved.manifest_digest
        store, began_s = self._store, time.monotonic()

        def tell(text: str) -> None:
            self._progress.say(digest, text)

        async with build_lock(
            store.lock_path(digest),
            lambda: store.is_there(digest),
            held_elsewhere=lambda: tell("another control plane is converting it"),
        ) as held:
            if not held or await in_thread(store.is_there, digest):
                return
            async with self._slots.hold(tell, "converting it"):
                await self._convert(resolved)
        elapsed_s = time.monotonic() - began_s
        log.info(
            "converted an image in %.1f s", elapsed_s, extra={"image": str(resolved.reference)}
        )

    async def _convert(self, resolved: Resolved) -> None:
        source = resolved.reference.with_digest(resolved.manifest_digest)
        store = self._store
        log.info("convert an image", extra={"image": str(source)})
        build = await wholly(store.begin, resolved.manifest_digest, undo=store.end)
        try:
            sif = build / "image.sif"
            insecure = source.domain in self._settings.insecure_registries
            await self._converter.pull(source, sif, insecure=insecure)
            passwd, group = await self._converter.accounts(sif)
            await in_thread(store.publish, build, resolved, passwd=passwd, group=group)
        finally:
            await asyncio.shield(in_thread(store.end, build))
