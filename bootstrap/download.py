"""Downloads official releases and believes none of them without upstream's SHA-256.

A mirror serves files and vouches for none: the checksum comes from the configuration, or from
upstream itself over verified TLS.

A network that is not there is found out quickly: a host that could not be reached once is not
asked again by the same process.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bootstrap.components import Program
from hpk.config.schema import BinariesConfig
from hpk.model.errors import ParseError, TransientError

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 60.0
"""Between two pieces: a slow link and a busy mirror take their time, and lose nothing by it."""
_MAX_CHECKSUM_BYTES = 1 << 20
_MAX_PROGRAM_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called with bytes so far and bytes in all (0 where the server does not say)."""


class _PlainConnection(http.client.HTTPConnection):
    """Gives up soon where nobody answers, and late where somebody has."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_READ_TIMEOUT_S)


class _TlsConnection(http.client.HTTPSConnection):
    """The same."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_READ_TIMEOUT_S)


class _PlainHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PlainConnection, req)


class _TlsHandler(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self._tls)


class Downloader:
    """Fetches programs for one configuration. Blocks; meant for a thread."""

    def __init__(self, config: BinariesConfig) -> None:
        self._mirror = config.mirror.rstrip("/")
        self._pinned = config.sha256
        handlers: list[urllib.request.BaseHandler] = []
        if config.proxy:
            handlers.append(
                urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), config.proxy))
            )
        context = ssl.create_default_context()
        if config.ca_file:
            context.load_verify_locations(config.ca_file)
        handlers += (_PlainHandler(), _TlsHandler(context))
        self._opener = urllib.request.build_opener(*handlers)
        self._unreachable: dict[str, str] = {}

    def fetch(self, program: Program, work: Path, progress: Progress) -> Path:
        """The program as a file in ``work``, its checksum verified.

        :raises TransientError: it cannot be had: no network, a wrong checksum, a cut-off file.
        """
        url = self.url(program.fill(program.url))
        expected = self._expected(program)
        release = work / "release"
        actual = self._save(url, release, progress)
        if actual != expected:
            raise TransientError(
                f"{url} has SHA-256 {actual}, not {expected}",
                remedy="try again; if it stays so, the mirror or a proxy alters files",
            )
        return _extract(release, program, work) if program.member else release

    def _expected(self, program: Program) -> str:
        """The release's SHA-256, by somebody else's word than the mirror's."""
        pinned = self._pinned.get(program.name)
        if pinned is not None:
            return pinned.lower()
        name = program.fill(program.url).rsplit("/", 1)[1]
        try:
            listed = self._read(program.fill(program.checksum_url))
        except TransientError as error:
            if not self._mirror:
                raise
            raise TransientError(
                f"no checksum of {name} that is not the mirror's: {error.message}",
                remedy=f"write upstream's as {program.name} under [binaries.sha256]",
            ) from error
        return parse_checksum(listed.decode(errors="replace"), name)

    def url(self, official: str) -> str:
        """Where an official release is fetched from."""
        if not self._mirror:
            return official
        return f"{self._mirror}/{official.removeprefix('https://')}"

    def _open(self, url: str) -> http.client.HTTPResponse:
        host = urllib.parse.urlsplit(url).netloc
        if host in self._unreachable:
            raise TransientError(f"{host} cannot be reached: {self._unreachable[host]}")
        try:
            response = self._opener.open(url, timeout=_CONNECT_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise TransientError(f"{url}: HTTP status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", error))
            self._unreachable[host] = reason
            raise TransientError(f"{host} cannot be reached: {reason}") from error
        if not isinstance(response, http.client.HTTPResponse):
            raise TransientError(f"{url} is not an HTTP address")
        return response

    def _read(self, url: str) -> bytes:
        try:
            with self._open(url) as response:
                return response.read(_MAX_CHECKSUM_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{url}: {error}") from error

    def _save(self, url: str, target: Path, progress: Progress) -> str:
        digest, done = hashlib.sha256(), 0
        try:
            with self._open(url) as response, target.open("wb") as file:
                length = response.headers.get("Content-Length", "")
                total = int(length) if length.isascii() and length.isdigit() else 0
                while chunk := response.read(_CHUNK_BYTES):
                    done += len(chunk)
                    if done > _MAX_PROGRAM_BYTES:
                        raise TransientError(f"{url} does not end")
                    digest.update(chunk)
                    file.write(chunk)
                    progress(done, total)
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{url}: {error}") from error
        if total and done != total:
            raise TransientError(f"{url} ended after {done} of {total} bytes")
        return digest.hexdigest()


def parse_checksum(text: str, name: str) -> str:
    """The SHA-256 of the file ``name`` from a checksum file: bare, or ``SHA  NAME`` lines.

    :raises ParseError: there is none.
    """
    for line in text.splitlines():
        found = re.fullmatch(r"\s*([0-9a-fA-F]{64})(?:\s+\*?(\S+))?\s*", line)
        if found and (found[2] is None or found[2].rsplit("/", 1)[-1] == name):
            return found[1].lower()
    raise ParseError(f"no SHA-256 of {name} in {text[:200]!r}")


def _extract(archive: Path, program: Program, work: Path) -> Path:
    """Take the one member we want; no path of the archive's is ever used."""
    member = program.fill(program.member)
    target = work / program.name
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(member)
            if file is None:
                raise TransientError(f"{member} in {program.name}'s release is not a file")
            with target.open("wb") as out:
                while chunk := file.read(_CHUNK_BYTES):
                    out.write(chunk)
    except (tarfile.TarError, KeyError, OSError) as error:
        raise TransientError(f"{program.name}'s release archive: {error}") from error
    return target
