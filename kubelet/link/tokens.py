"""Service-account tokens: requested when a pod needs one, kept until they want to be renewed.

Source: pkg/kubelet/token (renewed at 80 % of their life, or after a day). In memory only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from hpk.model.errors import TransientError
from hpk.model.ids import PodRef, PodUid
from hpk.model.plan import TokenSource
from kubelet.api.apiserver import ApiError, ApiServer, path

_USED_FRACTION = 0.8
_USED_AT_MOST_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at_s: float


class TokenCache:
    """The tokens of all pods.

    :param now_s: Unix seconds.
    """

    def __init__(self, api: ApiServer, now_s: Callable[[], float] = time.time) -> None:
        self._api = api
        self._now_s = now_s
        self._tokens: dict[PodUid, dict[tuple[str, TokenSource], _Token]] = {}

    async def get(self, pod: PodRef, service_account: str, source: TokenSource) -> str:
        """A token that is good for some time yet.

        :raises TransientError: the API server gives none.
        """
        of_pod = self._tokens.get(pod.uid, {})
        token = of_pod.get((service_account, source))
        if token is None or self._now_s() >= token.renew_at_s:
            token = await self._request(pod, service_account, source)
            self._tokens.setdefault(pod.uid, {})[service_account, source] = token
        return token.text

    def again_s(self, uid: PodUid) -> float | None:
        """In how many seconds the first of a pod's tokens wants to be renewed; None without any."""
        of_pod = self._tokens.get(uid)
        if not of_pod:
            return None
        return max(1.0, min(token.renew_at_s for token in of_pod.values()) - self._now_s())

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._tokens.pop(uid, None)

    async def _request(self, pod: PodRef, service_account: str, source: TokenSource) -> _Token:
        url = path(
            "api", "v1", "namespaces", pod.namespace, "serviceaccounts", service_account, "token"
        )
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [source.audience] if source.audience else [],
                "expirationSeconds": source.expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.name,
                    "uid": pod.uid,
                },
            },
        }
        try:
            answer = await self._api.create(url, request)
            status = answer["status"]
            text = str(status["token"])
            expires_s = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        except (ApiError, KeyError, TypeError, ValueError) as error:
            raise TransientError(f"token of service account {service_account}: {error}") from error
        # The API server may give a longer life than asked for; the asked one is what it warns by.
        now_s = self._now_s()
        life_s = min(expires_s - now_s, source.expiration_s)
        return _Token(text, now_s + min(life_s * _USED_FRACTION, _USED_AT_MOST_S))
