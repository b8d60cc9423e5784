"""Whether the API server's store is the one that was listed before, and no older.

Then a Pod that is missing from a list has been deleted. In an emptied, another or a restored store
it may be missing though nobody meant it to go, and its job is kept. The store is known by the UID
of its kube-system namespace, and its age by the highest resourceVersion that was seen; both are
written down, for a kubelet that comes back has to know.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from hpk.durable import write_atomically
from hpk.model import codec
from hpk.model.errors import ParseError
from kubelet.api.apiserver import ApiError, ApiServer, path
from kubelet.shared_files import SharedFiles

log = logging.getLogger(__name__)

_NOTED_EACH_S = 30.0


@dataclass(frozen=True)
class _Seen:
    """``$HPK_HOME/kubelet/store.json``.

    :param store: UID of the namespace kube-system.
    :param version: the highest resourceVersion seen in it.
    """

    store: str
    version: int


class StoreIdentity:
    """Remembers the store.

    :param file: where it is written down.
    """

    def __init__(self, api: ApiServer, files: SharedFiles, file: Path) -> None:
        self._api = api
        self._files = files
        self._file = file
        self._store = ""
        self._newest = 0
        self._noted = 0

    def saw(self, version: int) -> None:
        """A watch has come so far."""
        self._newest = max(self._newest, version)

    async def listed(self, version: int) -> bool:
        """Whether a list at this resourceVersion is of the store that was seen last, and not older
        than what was seen of it.

        :raises ApiError: the API server does not say.
        """
        try:
            found = await self._api.get(path("api", "v1", "namespaces", "kube-system"))
        except ApiError as error:
            # Who may not look gains nothing by waiting, and a store without the namespace is a new
            # one. All else passes, and jobs kept meanwhile would be kept for good.
            if error.status not in (403, 404):
                raise
            log.warning("the API server's store cannot be told from another: %s", error)
            return False
        store = str(found["metadata"]["uid"])
        known = await self._known()
        is_same = known is not None and store == known.store and version >= known.version
        if not is_same and known is not None:
            log.warning(
                "the API server's store is another or an older one: jobs of Pods that are missing"
                " are kept version=%s was=%s",
                version,
                known.version,
            )
        self._store, self._newest = store, version
        await self._note()
        return is_same

    async def keep_noted(self) -> None:
        """Write down how far the watch has come, now and then, until cancelled."""
        while True:
            await asyncio.sleep(_NOTED_EACH_S)
            if self._newest > self._noted:
                await self._note()

    async def _known(self) -> _Seen | None:
        if self._store:
            return _Seen(self._store, self._newest)
        try:
            return codec.loads(_Seen, await self._files.do(self._file.read_bytes))
        except FileNotFoundError:
            return None
        except (OSError, ParseError) as error:
            log.warning("%s: %s", self._file, error)
            return None

    async def _note(self) -> None:
        seen = _Seen(self._store, self._newest)
        try:
            await self._files.do(write_atomically, self._file, codec.dumps(seen))
        except OSError as error:
            log.warning("%s: %s", self._file, error)
        else:
            self._noted = seen.version
