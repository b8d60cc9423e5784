"""Reads ConfigMaps and Secrets for bundles.

What was read a moment ago serves again for refreshing, because many pods show the same objects
(every one the cluster's CA). Values live in memory only and are never logged.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import TransientError
from kubelet.api.apiserver import ApiError, ApiServer, Json, path

_KEPT_S = 5.0


@dataclass(frozen=True, slots=True)
class ObjectData:
    """What an object holds.

    :param texts: what variables can be made of, by key; bytes that are no UTF-8 are surrogates.
    :param files: what files can be made of, by key.
    """

    texts: Mapping[str, str]
    files: Mapping[str, bytes]


class ObjectReader:
    """Asks the API server, and remembers the answer for a moment."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._kept: dict[tuple[str, str, str], tuple[float, ObjectData]] = {}

    async def config_map(self, namespace: str, name: str, *, fresh: bool) -> ObjectData | None:
        """A ConfigMap; None where there is none.

        :param fresh: whether an answer of a moment ago will not do.
        :raises TransientError: the API server does not say.
        """
        return await self._read("configmaps", namespace, name, fresh=fresh)

    async def secret(self, namespace: str, name: str, *, fresh: bool) -> ObjectData | None:
        """A Secret; see config_map."""
        return await self._read("secrets", namespace, name, fresh=fresh)

    async def _read(
        self, resource: str, namespace: str, name: str, *, fresh: bool
    ) -> ObjectData | None:
        now_s = time.monotonic()
        # Secrets are not to stay longer than they serve.
        self._kept = {k: v for k, v in self._kept.items() if now_s - v[0] < _KEPT_S}
        key = (resource, namespace, name)
        if not fresh and key in self._kept:
            return self._kept[key][1]
        kind = "configmap" if resource == "configmaps" else "secret"
        try:
            found = await self._api.get(path("api", "v1", "namespaces", namespace, resource, name))
            data = _secret(found) if kind == "secret" else _config_map(found)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise TransientError(f'{kind} "{name}": {error}') from error
        except (binascii.Error, TypeError, AttributeError) as error:
            raise TransientError(f'{kind} "{name}" holds something that is no data') from error
        self._kept[key] = (now_s, data)
        return data


def _config_map(found: Json) -> ObjectData:
    texts = {str(key): str(text) for key, text in (found.get("data") or {}).items()}
    files = {key: text.encode() for key, text in texts.items()}
    for key, text in (found.get("binaryData") or {}).items():
        files[key] = base64.b64decode(text, validate=True)
    return ObjectData(texts, files)


def _secret(found: Json) -> ObjectData:
    data = found.get("data") or {}
    files = {str(key): base64.b64decode(text or "", validate=True) for key, text in data.items()}
    texts = {key: value.decode(errors="surrogateescape") for key, value in files.items()}
    return ObjectData(texts, files)
