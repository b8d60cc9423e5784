"""Builds a pod's bundle: ConfigMaps and fresh tokens as files, and the API server's address.

Sources: pkg/volume/projected, pkg/kubelet/token (refresh at 80 % of the lifetime),
pkg/kubelet/envvars.
"""

from __future__ import annotations

import base64
import time
from datetime import datetime

from hpk.model.bundle import Bundle, BundleFile, BundleVolume
from hpk.model.errors import TransientError
from hpk.model.ids import PodRef
from hpk.model.plan import ConfigMapSource, EnvVar, PodPlan, ProjectedVolume, TokenSource
from hpk.model.settings import KubeletSettings
from kubelet.apiserver import ApiError, ApiServer, path

_REFRESH_FRACTION = 0.8
_REFRESH_AT_LEAST_S = 60.0


class BundleBuilder:
    """Asks the API server for what a pod's volumes hold."""

    def __init__(self, api: ApiServer, settings: KubeletSettings) -> None:
        self._api = api
        self._settings = settings

    async def build(self, plan: PodPlan) -> tuple[Bundle, float | None]:
        """The bundle, and in how many seconds its first token wants to be renewed.

        :raises TransientError: something it needs does not exist yet.
        """
        volumes, lifetimes_s = [], []
        for volume in plan.volumes:
            files, shortest_s = await self._projected(plan, volume)
            volumes.append(BundleVolume(name=volume.name, files=tuple(files)))
            lifetimes_s += [] if shortest_s is None else [shortest_s]
        env = (
            EnvVar("KUBERNETES_SERVICE_HOST", self._settings.api_host),
            EnvVar("KUBERNETES_SERVICE_PORT", str(self._settings.api_port)),
            EnvVar("KUBERNETES_SERVICE_PORT_HTTPS", str(self._settings.api_port)),
        )
        again_s = None
        if lifetimes_s:
            again_s = max(min(lifetimes_s) * _REFRESH_FRACTION, _REFRESH_AT_LEAST_S)
        return Bundle(volumes=tuple(volumes), env=env), again_s

    async def _projected(
        self, plan: PodPlan, volume: ProjectedVolume
    ) -> tuple[list[BundleFile], float | None]:
        files: list[BundleFile] = []
        lifetimes_s: list[float] = []
        for token in volume.tokens:
            text, lifetime_s = await self._token(plan.pod, plan.service_account, token)
            files.append(_file(token.path, text.encode(), volume.default_mode))
            lifetimes_s.append(lifetime_s)
        for source in volume.config_maps:
            files += await self._config_map(plan.pod, source, volume.default_mode)
        for item in volume.downward:
            files.append(_file(item.path, item.value.encode(), volume.default_mode))
        return files, min(lifetimes_s, default=None)

    async def _token(
        self, pod: PodRef, service_account: str, token: TokenSource
    ) -> tuple[str, float]:
        url = path(
            "api", "v1", "namespaces", pod.namespace, "serviceaccounts", service_account, "token"
        )
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [token.audience] if token.audience else [],
                "expirationSeconds": token.expiration_s,
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
            expires = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
        except (ApiError, KeyError, ValueError) as error:
            raise TransientError(f"token of service account {service_account}: {error}") from error
        # The API server may give a longer life than asked for; the asked one is what it warns by.
        return status["token"], min(expires - time.time(), token.expiration_s)

    async def _config_map(
        self, pod: PodRef, source: ConfigMapSource, mode: int
    ) -> list[BundleFile]:
        url = path("api", "v1", "namespaces", pod.namespace, "configmaps", source.name)
        try:
            config_map = await self._api.get(url)
        except ApiError as error:
            if error.is_not_found and source.optional:
                return []
            raise TransientError(f'configmap "{source.name}": {error}') from error
        data = {k: v.encode() for k, v in (config_map.get("data") or {}).items()}
        for key, text in (config_map.get("binaryData") or {}).items():
            data[key] = base64.b64decode(text)
        if not source.items:
            return [_file(key, value, mode) for key, value in sorted(data.items())]
        files = []
        for item in source.items:
            if item.key in data:
                files.append(_file(item.path, data[item.key], mode))
            elif not source.optional:
                message = f'configmap "{source.name}" has no key "{item.key}"'
                raise TransientError(message)
        return files


def _file(file_path: str, data: bytes, mode: int) -> BundleFile:
    return BundleFile(path=file_path, data_base64=base64.b64encode(data).decode(), mode=mode)
