"""The only writer of Pod status, and of a Pod's final deletion.

What the watch shows is what counts: whatever of ours somebody else has changed is written again.
Only until the watch has caught up with our last write, that write's answer stands for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelet.api.apiserver import ApiError, ApiServer, Json, pod_path, resource_version
from kubelet.status.status_patch import plan_status_patch

log = logging.getLogger(__name__)

_DELETE_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Written:
    """The API server's answer to our last write.

    :param left: what the patch would be that it did not take; not sent a second time.
    """

    version: int
    status: Json
    left: Json


class StatusManager:
    """Sends a status when it differs from what the API server has."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._written: dict[str, _Written] = {}
        self._deleted_at_s: dict[str, float] = {}

    def latest(self, pod: Json) -> Json:
        """The Pod with the newest status that is known, though the watch may not show it yet."""
        written = self._written.get(pod["metadata"]["uid"])
        if written is None:
            return pod
        if resource_version(pod) < written.version:
            return {**pod, "status": written.status}
        if not written.left:
            del self._written[pod["metadata"]["uid"]]
        return pod

    def is_own_write(self, pod: Json, before: Json) -> bool:
        """Whether the Pod is as our last write left it, and nothing else has happened to it.

        A list may show at once what somebody changed and what we wrote after that: the version is
        our write's then, but the change is news.

        :param before: the Pod as it was shown last.
        """
        written = self._written.get(pod["metadata"]["uid"])
        if written is None or resource_version(pod) != written.version:
            return False
        is_all_ours = not written.left
        self.latest(pod)  # what was written need not be kept any longer
        return is_all_ours and _without_status(pod) == _without_status(before)

    async def update(self, pod: Json, status: Json) -> bool:
        """Write the status.

        :returns: False if the Pod does not exist any more.
        :raises ApiError: the API server did not take it; try again.
        """
        meta = pod["metadata"]
        uid = meta["uid"]
        before: Mapping[str, Any] = self.latest(pod).get("status") or {}
        patch = plan_status_patch(before, status)
        written = self._written.get(uid)
        if not patch or (written is not None and patch == written.left):
            return True
        url = pod_path(meta["namespace"], meta["name"], "status")
        try:
            answer = await self._api.strategic_patch(
                url, {"metadata": {"uid": uid}, "status": patch}
            )
        except ApiError as error:
            if error.is_not_found or error.is_conflict:
                return False
            raise
        after: Json = answer.get("status") or {}
        left = plan_status_patch(after, status)
        self._written[uid] = _Written(resource_version(answer), after, left)
        if after.get("phase") != before.get("phase"):
            log.info(
                "pod phase changed pod=%s/%s uid=%s phase=%s",
                meta["namespace"],
                meta["name"],
                uid,
                after.get("phase"),
            )
        return True

    async def finish_deletion(self, pod: Mapping[str, Any]) -> None:
        """Delete the Pod object: nothing of it runs any more.

        Once, however often it is asked for before the watch shows that the Pod is gone. One that
        stays, for its finalizers, goes with the last of them.
        """
        meta = pod["metadata"]
        uid, now_s = meta["uid"], time.monotonic()
        if now_s - self._deleted_at_s.get(uid, -_DELETE_AGAIN_S) < _DELETE_AGAIN_S:
            return
        await self._api.delete(pod_path(meta["namespace"], meta["name"]), uid=uid)
        self._deleted_at_s[uid] = now_s

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._written.pop(uid, None)
        self._deleted_at_s.pop(uid, None)


def _without_status(pod: Json) -> Json:
    metadata = {
        name: value
        for name, value in pod["metadata"].items()
        if name not in ("resourceVersion", "managedFields")
    }
    return {**pod, "metadata": metadata, "status": None}
