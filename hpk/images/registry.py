"""A registry's HTTP API, as far as resolving an image needs it: manifests, one blob, tokens.

Sources: OCI distribution-spec; the token flow is that of the distribution project. Every answer is
checked against its digest. HTTPS always, but for registries that the site lists as insecure; a
redirect or a token service may not lead away from HTTPS either. Layers are not fetched here.
Pulls are anonymous: a token service is asked for what it gives to everybody.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from hpk.images.errors import ERR_IMAGE_PULL, ImageError
from hpk.images.oci import (
    ACCEPT,
    choose_platform,
    config_digest,
    is_index,
    parse_object,
    this_architecture,
)
from hpk.images.reference import Reference, is_digest
from hpk.model.errors import ParseError

_MAX_BODY_BYTES = 8 * 1024 * 1024
_MAX_REDIRECTS = 5
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=15)
_TOKEN_LIFE_S = 60.0
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An image as its registry has it now.

    :param reference: what was asked for.
    :param digest: of what the tag names: an index or a manifest. Reported as imageID.
    :param manifest_digest: of the manifest for this platform; names the content.
    :param config: the image configuration, verified, as JSON.
    """

    reference: Reference
    digest: str
    manifest_digest: str
    config: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """Clients of all registries; one per event loop. Close it."""

    def __init__(self, *, insecure: frozenset[str] = frozenset()) -> None:
        self._insecure = insecure
        self._session: aiohttp.ClientSession | None = None
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def current_digest(self, reference: Reference) -> str | None:
        """What the tag names now, by a HEAD request, which costs a registry and its quotas least.

        None where the registry does not say, or says no: to a HEAD it cannot give its reasons.

        :raises ImageError: the registry does not answer.
        """
        if reference.digest:
            return reference.digest
        what = f"manifests/{reference.version}"
        try:
            answer = await self._request(reference, what, method="HEAD")
        except ParseError:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        return digest if answer.status == 200 and is_digest(digest) else None

    async def resolve(self, reference: Reference) -> Resolved:
        """The image's digests and configuration.

        :raises ImageError: ``ErrImagePull``; the message names the image and the registry's answer.
        """
        try:
            return await self._resolve(reference)
        except ParseError as error:
            raise ImageError(
                ERR_IMAGE_PULL, f'failed to resolve image "{reference}": {error}'
            ) from error

    async def _resolve(self, reference: Reference) -> Resolved:
        answer = await self._get(reference, f"manifests/{reference.version}")
        digest = reference.digest or _digest_of(answer.body)
        _verify(answer.body, digest, "manifest")
        manifest = parse_object(answer.body, "manifest")
        manifest_digest = digest
        if is_index(manifest, answer.headers.get("Content-Type", "")):
            manifest_digest = choose_platform(manifest, this_architecture())
            answer = await self._get(reference, f"manifests/{manifest_digest}")
            _verify(answer.body, manifest_digest, "manifest")
            manifest = parse_object(answer.body, "manifest")
        wanted = config_digest(manifest)
        config = (await self._get(reference, f"blobs/{wanted}")).body
        _verify(config, wanted, "image configuration")
        return Resolved(
            reference=reference, digest=digest, manifest_digest=manifest_digest, config=config
        )

    async def _get(self, reference: Reference, what: str) -> _Answer:
        answer = await self._request(reference, what, method="GET")
        if answer.status != 200:
            raise _refused(reference, answer)
        return answer

    async def _request(self, reference: Reference, what: str, *, method: str) -> _Answer:
        scheme = "http" if reference.domain in self._insecure else "https"
        url = URL(f"{scheme}://{reference.api_host}/v2/{reference.path}/{what}", encoded=True)
        key = (reference.api_host, reference.path)
        try:
            answer = await self._follow(method, url, self._known_token(key))
            if answer.status == 401:
                authorization = await self._authorize(reference, answer, scheme)
                if authorization is not None:
                    answer = await self._follow(method, url, authorization)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = str(error) or type(error).__name__
            raise ImageError(
                ERR_IMAGE_PULL,
                f'failed to resolve image "{reference}": {reference.api_host}: {detail}',
                remedy="see whether this host can reach the registry and trusts its certificate",
            ) from error
        return answer

    async def _follow(self, method: str, url: URL, authorization: str | None) -> _Answer:
        origin = url.origin()
        for _ in range(_MAX_REDIRECTS):
            headers = {"Accept": ACCEPT}
            # A blob's store is somebody else: it gets no token of the registry's.
            if authorization and url.origin() == origin:
                headers["Authorization"] = authorization
            answer = await self._once(method, url, headers)
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            target = url.join(URL(location))
            if target.scheme != "https" and url.scheme == "https":
                raise ParseError(f"{url.host} redirects to {target.scheme}, which is not secure")
            url = target
        raise ParseError(f"{origin} redirects too often")

    async def _once(self, method: str, url: URL, headers: Mapping[str, str]) -> _Answer:
        if self._session is None:
            # Made now and not when aiohttp was imported, so that SSL_CERT_FILE counts.
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=_TIMEOUT, trust_env=True, headers={"User-Agent": "hpk"}
            )
        async with self._session.request(
            method, url, headers=headers, allow_redirects=False
        ) as answer:
            body = bytearray()
            async for piece in answer.content.iter_chunked(65536):
                body += piece
                if len(body) > _MAX_BODY_BYTES:
                    raise ParseError(f"{url.host} sends more than {_MAX_BODY_BYTES} bytes")
            return _Answer(status=answer.status, headers=answer.headers.copy(), body=bytes(body))

    def _known_token(self, key: tuple[str, str]) -> str | None:
        token, until = self._tokens.get(key, ("", 0.0))
        return token if time.monotonic() < until else None

    async def _authorize(self, reference: Reference, answer: _Answer, scheme: str) -> str | None:
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        if kind.lower() != "bearer":
            return None
        parameters = {
            name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)
        }
        realm = URL(parameters.get("realm", ""))
        if realm.scheme != "https" and scheme == "https":
            raise ParseError(f"the token service of {reference.api_host} is not on HTTPS")
        query = {"scope": f"repository:{reference.path}:pull"}
        if "service" in parameters:
            query["service"] = parameters["service"]
        reply = await self._once("GET", realm.update_query(query), {})
        if reply.status != 200:
            raise _refused(reference, reply)
        data = parse_object(reply.body, "the token service's answer")
        token = data.get("token") or data.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise ParseError("the token service gives no token")
        life = data.get("expires_in")
        life_s = float(life) if isinstance(life, int | float) else _TOKEN_LIFE_S
        authorization = f"Bearer {token}"
        self._tokens[(reference.api_host, reference.path)] = (
            authorization,
            time.monotonic() + max(0.0, min(life_s, 3600.0) - 10.0),
        )
        return authorization


def _digest_of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _verify(body: bytes, digest: str, what: str) -> None:
    algorithm, _, expected = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != expected:
        raise ParseError(f"the {what} does not match its digest {digest}")


def _refused(reference: Reference, answer: _Answer) -> ImageError:
    said = _errors_in(answer.body)
    why = f"{reference.api_host} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status == 404:
        return ImageError(
            ERR_IMAGE_PULL, f'failed to resolve image "{reference}": not found ({why})'
        )
    if answer.status in (401, 403):
        return ImageError(
            ERR_IMAGE_PULL,
            f'failed to resolve image "{reference}": pull access denied, the repository does not '
            f"exist or may require authorization ({why})",
        )
    if answer.status == 429:
        return ImageError(
            ERR_IMAGE_PULL, f'failed to resolve image "{reference}": too many requests ({why})'
        )
    return ImageError(ERR_IMAGE_PULL, f'failed to resolve image "{reference}": {why}')


def _errors_in(body: bytes) -> str:
    try:
        errors = parse_object(body, "error").get("errors")
    except ParseError:
        return ""
    texts = [
        f"{error.get('code')}: {error.get('message')}"
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    text = "; ".join(texts)[:300]
    return "".join(character if character.isprintable() else " " for character in text)
