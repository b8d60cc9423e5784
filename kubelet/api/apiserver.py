"""The API server, as raw JSON: the one place in the kubelet that imports ``kubernetes``.

The client library is the transport (TLS, connection pool, kubeconfig); objects stay plain dicts,
because decoding them into its typed models costs ten times as much as the request itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client
from kubernetes.aio import config as kube_config

from hpk.model.errors import HpkError

Json = dict[str, Any]

_REQUEST_TIMEOUT_S = 30
_CALM_WITHIN_S = 0.25


class ApiError(HpkError):
    """The API server said no, or did not answer.

    :param status: HTTP status, 0 where no answer came.
    :param reason: ``metav1.Status`` reason (``NotFound``, ``Conflict``, ``Expired``).
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def is_not_found(self) -> bool:
        """The object does not exist."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """It exists already, or is another object than the one meant (UID, resourceVersion)."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """The resourceVersion is too old to watch from: list again."""
        return self.status == 410


def path(*segments: str) -> str:
    """A URL path from segments, each quoted; ``path("api", "v1", "pods")`` → ``/api/v1/pods``."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def pod_path(namespace: str, name: str, *rest: str) -> str:
    """The path of one Pod, or of a subresource of it."""
    return path("api", "v1", "namespaces", namespace, "pods", name, *rest)


def resource_version(item: Mapping[str, Any]) -> int:
    """An object's resourceVersion: a later one is greater (API concepts, "Resource versions")."""
    text = str((item.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() else 0


class ApiServer:
    """A connection to the API server, with the credentials of one kubeconfig.

    What is not urgent waits, a quarter of a second at most, until nothing that is urgent is under
    way: under load the API server's processor is what everybody waits for.
    """

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._urgent = 0
        self._calm = asyncio.Event()
        self._calm.set()

    @classmethod
    async def connect(cls, kubeconfig: Path) -> ApiServer:
        """Read the credentials; nothing is sent yet."""
        configuration = client.Configuration()
        # The library writes keys that stand in a kubeconfig to files, in /tmp unless told
        # otherwise, and removes them only at a clean exit. They are needed for a moment.
        with tempfile.TemporaryDirectory(dir=kubeconfig.parent) as scratch:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig), client_configuration=configuration, temp_file_path=scratch
            )
            # A login node's http_proxy is for the world outside, never for our own API server.
            configuration.client_session_kwargs = {"trust_env": False}
            configuration.connection_pool_maxsize = 64
            return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, url: str, params: Mapping[str, str] | None = None) -> Json:
        """GET an object or a list."""
        return await self._request("GET", url, params=params)

    async def create(self, url: str, body: Json, *, is_urgent: bool = True) -> Json:
        """POST an object to its collection (or subresource)."""
        async with self._turn(is_urgent=is_urgent):
            return await self._request("POST", url, body=body)

    async def merge_patch(self, url: str, body: Json, *, is_urgent: bool = True) -> Json:
        """PATCH with RFC 7386 semantics: lists are replaced whole."""
        async with self._turn(is_urgent=is_urgent):
            return await self._request(
                "PATCH", url, body=body, content_type="application/merge-patch+json"
            )

    async def strategic_patch(self, url: str, body: Json) -> Json:
        """PATCH with a strategic merge: lists of objects merge by the key of their type."""
        async with self._turn(is_urgent=True):
            return await self._request(
                "PATCH", url, body=body, content_type="application/strategic-merge-patch+json"
            )

    @contextlib.asynccontextmanager
    async def _turn(self, *, is_urgent: bool) -> AsyncIterator[None]:
        """The time for one request."""
        if not is_urgent:
            # Not wait_for, which in Python 3.11 loses a cancellation that comes with the answer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CALM_WITHIN_S):
                    await self._calm.wait()
            yield
            return
        self._urgent += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                self._calm.set()

    async def delete(self, url: str, *, uid: str, grace_period_s: int = 0) -> None:
        """DELETE exactly this object; one that is already gone (or replaced) is no error."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_period_s,
            "preconditions": {"uid": uid},
        }
        try:
            async with self._turn(is_urgent=True):
                await self._request("DELETE", url, body=body)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise

    async def watch(self, url: str, params: Mapping[str, str]) -> AsyncIterator[Json]:
        """Watch events as they come, until the server ends the watch.

        :raises ApiError: the watch was refused, broke, or an ERROR event came.
        """
        query = urlencode({**params, "watch": "true"})
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=None)
        response = await self._send("GET", f"{url}?{query}", limits=limits)
        try:
            await _check(response)
            async for line in response.content:
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise _status_error(int(status.get("code") or 500), status)
                yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "WatchBroken", f"watch of {url} broke: {error}") from error
        finally:
            response.close()

    async def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        target = f"{url}?{urlencode(params)}" if params else url
        limits = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        response = await self._send(
            method, target, body=body, content_type=content_type, limits=limits
        )
        try:
            await _check(response)
            data = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(0, "NoAnswer", f"{method} {url}: {error}") from error
        finally:
            response.release()
        if not isinstance(data, dict):
            raise ApiError(0, "NoAnswer", f"{method} {url}: answer is no object")
        return data

    async def _send(
        self,
        method: str,
        target: str,
        *,
        limits: aiohttp.ClientTimeout,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        try:
            answer = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method,
                self._api.configuration.host + target,
                headers={"Content-Type": content_type, "Accept": "application/json"},
                body=body,
                _request_timeout=limits,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "NoAnswer", f"{method} {target}: {error!r}") from error
        response: aiohttp.ClientResponse = answer.response
        return response


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status < 300:
        return
    text = await response.text(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text[:500]}
    raise _status_error(response.status, status if isinstance(status, dict) else {})


def _status_error(code: int, status: Mapping[str, Any]) -> ApiError:
    return ApiError(code, str(status.get("reason") or ""), str(status.get("message") or code))
