"""The only writer of Pod status, and of a Pod's final deletion."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kubelet.api.apiserver import ApiError, ApiServer, Json, pod_path
from kubelet.status.pod_conditions import OUR_CONDITIONS

log = logging.getLogger(__name__)


class StatusManager:
    """Sends a status when it differs from what was sent or read last."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._sent: dict[str, Json] = {}

    def latest(self, pod: Json) -> Json:
        """The Pod with the newest status that was sent, though the watch may not show it yet.

        Conditions that others write are the watch's.
        """
        sent = self._sent.get(pod["metadata"]["uid"])
        if sent is None:
            return pod
        watched = pod.get("status") or {}
        others = [
            condition
            for condition in watched.get("conditions") or []
            if condition.get("type") not in OUR_CONDITIONS
        ]
        ours = [c for c in sent.get("conditions") or [] if c.get("type") in OUR_CONDITIONS]
        return {**pod, "status": {**watched, **sent, "conditions": others + ours}}

    async def update(self, pod: Mapping[str, Any], status: Json) -> bool:
        """Write the status.

        :returns: False if the Pod does not exist any more.
        :raises ApiError: the API server did not take it; try again.
        """
        meta = pod["metadata"]
        uid = meta["uid"]
        current = self._sent.get(uid) or {k: (pod.get("status") or {}).get(k) for k in status}
        if current == status:
            return True
        url = pod_path(meta["namespace"], meta["name"], "status")
        try:
            await self._api.merge_patch(url, {"metadata": {"uid": uid}, "status": status})
        except ApiError as error:
            if error.is_not_found or error.is_conflict:
                return False
            raise
        old_phase = (pod.get("status") or {}).get("phase")
        if status.get("phase") != old_phase:
            log.info(
                "pod phase changed pod=%s/%s uid=%s phase=%s",
                meta["namespace"],
                meta["name"],
                uid,
                status.get("phase"),
            )
        self._sent[uid] = status
        return True

    async def finish_deletion(self, pod: Mapping[str, Any]) -> None:
        """Delete the Pod object: nothing of it runs any more."""
        meta = pod["metadata"]
        await self._api.delete(pod_path(meta["namespace"], meta["name"]), uid=meta["uid"])

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._sent.pop(uid, None)
