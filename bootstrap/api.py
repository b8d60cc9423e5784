"""A small client of our own API server, for what the control plane itself needs of it.

Blocks; meant for a thread. The standard library and no generated client: start-up is counted in
seconds, and a few JSON requests are all there is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpk.model.errors import ParseError, TransientError

_MAX_BODY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClient:
    """Where to connect, whom to trust and who we are."""

    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path

    def get(
        self, path: str, *, accept: str = "application/json", timeout_s: float = 5
    ) -> tuple[int, bytes]:
        """Status and body.

        :raises TransientError: there is no answer.
        """
        return self._request("GET", path, None, {"Accept": accept}, timeout_s)

    def lines(self, path: str, *, accept: str, silence_s: float) -> Iterator[bytes]:
        """The lines of a 200 answer that goes on, until the server ends it.

        :param silence_s: after so long without any it counts as lost.
        :raises TransientError: there is no such answer, or it is lost.
        """
        try:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=silence_s, context=self.context()
            )
            with contextlib.closing(connection):
                connection.request("GET", path, None, {"Accept": accept})
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    text = _excerpt(response.read(_MAX_BODY_BYTES))
                    raise TransientError(f"GET {path}: HTTP status {response.status}: {text}")
                while line := response.readline(_MAX_BODY_BYTES):
                    yield line
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{self.host}:{self.port} does not answer: {error}") from error

    def get_json(
        self, path: str, *, accept: str = "application/json", timeout_s: float = 10
    ) -> Any:
        """The JSON body of a 200 answer.

        :param accept: the representation asked for, a media type of JSON's.
        :raises TransientError: there is none.
        """
        status, body = self.get(path, accept=accept, timeout_s=timeout_s)
        if status != http.HTTPStatus.OK:
            raise TransientError(f"GET {path}: HTTP status {status}: {_excerpt(body)}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise ParseError(f"GET {path}: not JSON: {_excerpt(body)}") from error

    def post(
        self, path: str, body: Any, *, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of a POST of JSON.

        :raises TransientError: there is no answer.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._request("POST", path, json.dumps(body).encode(), sent, 10)

    def delete(self, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body of a DELETE with its options.

        :raises TransientError: there is no answer.
        """
        sent = {"Content-Type": "application/json"}
        return self._request("DELETE", path, json.dumps(body).encode(), sent, 10)

    def patch(self, path: str, body: Any, *, content_type: str) -> tuple[int, bytes]:
        """Status and body of a PATCH.

        :raises TransientError: there is no answer.
        """
        sent = {"Content-Type": content_type}
        return self._request("PATCH", path, json.dumps(body).encode(), sent, 10)

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Server-side apply, as the field manager ``hpk``.

        :raises TransientError: the server refuses or does not answer.
        """
        where = f"{path}?fieldManager=hpk&force=true"
        status, body = self.patch(where, manifest, content_type="application/apply-patch+yaml")
        if status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
            raise TransientError(f"PATCH {path}: HTTP status {status}: {_excerpt(body)}")

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> tuple[int, bytes]:
        try:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout_s, context=self.context()
            )
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.read(_MAX_BODY_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{self.host}:{self.port} does not answer: {error}") from error

    def context(self) -> ssl.SSLContext:
        """TLS with our certificate, trusting this one authority."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return context


def _excerpt(body: bytes) -> str:
    return body[:500].decode(errors="replace")
