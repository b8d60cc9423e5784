"""Keeps the bundle of one connected supervisor up to date, while it lasts.

What is in a bundle is kubelet.link.bundle's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import Protocol

from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError
from hpk.model.frames import BundleReply
from hpk.model.ids import Nonce, PodUid
from kubelet.link.session import Session

log = logging.getLogger(__name__)

_UNASKED_AFTER_S = 2.0
"""How long a supervisor has to ask for its bundle before it counts as having one."""
_RETRY_FIRST_S = 0.5
_RETRY_MOST_S = 30.0


class BundleSource(Protocol):
    """Who builds bundles."""

    async def build_bundle(
        self, uid: PodUid, nonce: Nonce, *, protocol: int
    ) -> tuple[Bundle, float | None]:
        """The attempt's bundle, and after how many seconds it wants to be built again (None: when
        it is told to be stale).

        :param protocol: that its supervisor speaks.
        :raises HpkError: not yet; it is asked again soon.
        """


async def keep_bundle_fresh(session: Session, request: int, source: BundleSource) -> None:
    """Answer a BundleRequest, then send what changes; 0 for one that was answered before.

    A supervisor that has its bundle does not ask a new kubelet for another, but its tokens
    expire all the same: it is sent one as an update.
    """
    if not request:
        await asyncio.sleep(_UNASKED_AFTER_S)
    sent = b""
    pause_s = _RETRY_FIRST_S
    while True:
        session.bundle_stale.clear()
        try:
            bundle, again_s = await source.build_bundle(
                session.uid, session.nonce, protocol=session.protocol
            )
        except HpkError as error:
            log.warning("bundle uid=%s: %s", session.uid, error)
            await _wait(session.bundle_stale, pause_s)
            pause_s = min(pause_s * 2, _RETRY_MOST_S)
            continue
        # Not the bundle itself: ten thousand of them would be kept to be compared.
        made = hashlib.sha256(codec.dumps(bundle).encode()).digest()
        if made != sent:
            await session.send(BundleReply(id=0 if sent else request, bundle=bundle))
        sent, pause_s = made, _RETRY_FIRST_S
        del bundle
        await _wait(session.bundle_stale, again_s)


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the event, or for so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
