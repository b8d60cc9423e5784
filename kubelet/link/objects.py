"""Reads ConfigMaps, Secrets, trust bundles and Services, once for all pods that show them.

What was read serves every pod that was first heard of before it was read: no pod starts with less
than its user saw. Then each object is looked at once a minute, however many pods show it, and they
are told when it has changed. Values live in memory only, as long as a pod that shows them does, and
are never logged. Source: pkg/kubelet/util/manager (registered objects).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpk.model.errors import TransientError
from hpk.model.ids import PodUid
from hpk.planning.environment.services import link_variables
from kubelet.api.apiserver import ApiError, ApiServer, Json, path

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 60.0
_MISSING_AGAIN_S = 3.0
_TICK_S = 1.0
_AT_ONCE = 8
_TRUST_BUNDLES = "clustertrustbundles"
_SERVICES = "services"
_SIGNERS = "clustertrustbundles of a signer"
_KINDS = {
    "configmaps": "configmap",
    "secrets": "secret",
    _SERVICES: "services of",
    _TRUST_BUNDLES: "clustertrustbundle",
    _SIGNERS: "clustertrustbundles of",
}
_TRUST_BUNDLES_URL = path("apis", "certificates.k8s.io", "v1", _TRUST_BUNDLES)
_PEM = "pem"
_PEM_COLUMNS = 64
_PEM_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ObjectData:
    """What an object holds.

    :param texts: what variables can be made of, by key; bytes that are no UTF-8 are surrogates.
    :param files: what files can be made of, by key.
    """

    texts: Mapping[str, str]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Reader:
    """A pod that shows objects.

    :param since_s: what was read before will not do for it (monotonic seconds).
    """

    uid: PodUid
    since_s: float


@dataclass(slots=True)
class _Kept:
    """An object as it was when it was asked for at ``read_at_s``; data None where there is none."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    readers: set[PodUid] = field(default_factory=set)
    data: ObjectData | None = None
    read_at_s: float = float("-inf")

    def is_due(self, now_s: float) -> bool:
        again_s = _MISSING_AGAIN_S if self.data is None else _LOOK_AGAIN_S
        return now_s - self.read_at_s >= again_s


_Key = tuple[str, str, str]


class ObjectReader:
    """Asks the API server, and remembers the answers."""

    def __init__(self, api: ApiServer, changed: Callable[[set[PodUid]], None]) -> None:
        """
        :param changed: called with the pods that show an object that has changed.
        """
        self._api = api
        self._changed = changed
        self._kept: dict[_Key, _Kept] = {}

    async def config_map(self, namespace: str, name: str, reader: Reader) -> ObjectData | None:
        """A ConfigMap; None where there is none.

        :raises TransientError: the API server does not say.
        """
        return await self._get(("configmaps", namespace, name), reader)

    async def secret(self, namespace: str, name: str, reader: Reader) -> ObjectData | None:
        """A Secret; see config_map."""
        return await self._get(("secrets", namespace, name), reader)

    async def trust_bundle(self, name: str, reader: Reader) -> bytes | None:
        """A ClusterTrustBundle's certificates as PEM; see config_map."""
        return _anchors(await self._get((_TRUST_BUNDLES, "", name), reader))

    async def trust_bundles(
        self, signer_name: str, label_selector: str, reader: Reader
    ) -> bytes | None:
        """The certificates of a signer's ClusterTrustBundles; see config_map."""
        return _anchors(await self._get((_SIGNERS, signer_name, label_selector), reader))

    async def service_links(self, namespace: str, reader: Reader) -> Mapping[str, str]:
        """The variables that tell of a namespace's Services; see config_map."""
        found = await self._get((_SERVICES, namespace, ""), reader)
        return found.texts if found is not None else {}

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        for kept in self._kept.values():
            kept.readers.discard(uid)
        self._kept = {key: kept for key, kept in self._kept.items() if kept.readers}

    async def keep_looking(self) -> None:
        """Look at what pods show, until cancelled."""
        places = asyncio.Semaphore(_AT_ONCE)
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            due = [(key, kept) for key, kept in self._kept.items() if kept.is_due(now_s)]
            async with asyncio.TaskGroup() as tasks:
                for key, kept in due:
                    tasks.create_task(self._look(key, kept, places))

    async def _look(self, key: _Key, kept: _Kept, places: asyncio.Semaphore) -> None:
        async with places, kept.lock:
            before = kept.data
            try:
                await self._read(key, kept)
            except TransientError as error:
                log.debug("not looked at: %s", error)
                return
        if kept.data != before:
            self._changed(set(kept.readers))

    async def _get(self, key: _Key, reader: Reader) -> ObjectData | None:
        kept = self._kept.setdefault(key, _Kept())
        kept.readers.add(reader.uid)
        async with kept.lock:
            if kept.read_at_s < reader.since_s:
                before = kept.data
                await self._read(key, kept)
                others = kept.readers - {reader.uid}
                if others and kept.data != before:
                    self._changed(others)
        return kept.data

    async def _read(self, key: _Key, kept: _Kept) -> None:
        resource, namespace, name = key
        kind = _KINDS[resource]
        asked_at_s = time.monotonic()
        data: ObjectData | None = None
        try:
            if resource == _SERVICES:
                services = await self._api.get(path("api", "v1", "namespaces", namespace, resource))
                data = ObjectData(link_variables(services.get("items") or []), {})
            elif resource == _SIGNERS:
                data = _trust_bundles(await self._api.get(_TRUST_BUNDLES_URL, _query(key)))
            elif resource == _TRUST_BUNDLES:
                found = await self._api.get(f"{_TRUST_BUNDLES_URL}{path(name)}")
                data = _trust_bundles({"items": [found]})
            else:
                url = path("api", "v1", "namespaces", namespace, resource, name)
                found = await self._api.get(url)
                data = _secret(found) if kind == "secret" else _config_map(found)
        except ApiError as error:
            if not error.is_not_found:
                raise TransientError(f'{kind} "{name}": {error}') from error
        except (binascii.Error, KeyError, TypeError, AttributeError) as error:
            raise TransientError(f'{kind} "{name}" holds something that is no data') from error
        kept.data, kept.read_at_s = data, asked_at_s


def _query(key: _Key) -> dict[str, str]:
    _, signer_name, label_selector = key
    return {"fieldSelector": f"spec.signerName={signer_name}", "labelSelector": label_selector}


def _trust_bundles(found: Json) -> ObjectData | None:
    """Each certificate once, without what stands around it, in an order that is not the signer's:
    nobody shall come to rely on one. None where there are no bundles."""
    items = found.get("items") or []
    if not items:
        return None
    blocks = {
        "".join(block.split())
        for item in items
        for block in _PEM_BLOCK.findall(str(item["spec"]["trustBundle"]))
    }
    pem = "".join(
        "-----BEGIN CERTIFICATE-----\n"
        + "".join(f"{line}\n" for line in textwrap.wrap(block, _PEM_COLUMNS))
        + "-----END CERTIFICATE-----\n"
        for block in sorted(blocks)
    )
    return ObjectData({}, {_PEM: pem.encode()})


def _anchors(data: ObjectData | None) -> bytes | None:
    return None if data is None else data.files[_PEM]


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
