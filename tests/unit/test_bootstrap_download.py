"""Downloads against a real HTTP(S) server on the loopback: right, wrong, cut short, absent."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import socket
import ssl
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bootstrap.components import PROGRAMS, Program, architecture
from bootstrap.download import Downloader, parse_checksum
from bootstrap.pki import Leaf, Pki, ensure
from hpk.config.schema import BinariesConfig
from hpk.model.errors import ParseError, TransientError

KUBECTL = PROGRAMS["kubectl"]
ETCD = PROGRAMS["etcd"]
PROGRAM_BYTES = b"#!/bin/sh\necho upstream\n" * 4000


@dataclass
class Site:
    """What the server serves; asked holds the paths and Host headers it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    yield from _serve(Site(), None)


@pytest.fixture
def tls_site(tmp_path: Path) -> Iterator[Site]:
    pki = Pki(root=tmp_path / "pki")
    leaf = Leaf(name="s", authority="api", common_name="s", server=True, sans=("127.0.0.1",))
    ensure(pki, [leaf])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate("s"), pki.key("s"))
    yield from _serve(Site(), context)


def _serve(site: Site, context: ssl.SSLContext | None) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.cut.get(self.path, len(body))])

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that refuses the certificate hangs up; that is the test

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _path(url: str) -> str:
    return "/mirror/" + url.removeprefix("https://")


def _offer(site: Site, program: Program, release: bytes, checksum: str | None = None) -> Program:
    """The site is the mirror, whose own checksums are wrong, and upstream, whose are right."""
    path = _path(program.fill(program.url))
    site.files[path] = release
    site.files[_path(program.fill(program.checksum_url))] = b"e" * 64
    digest = checksum or hashlib.sha256(release).hexdigest()
    text = f"{'0' * 64}  other.tar.gz\n{digest}  {path.rsplit('/', 1)[1]}\n"
    site.files["/upstream/SHA256SUMS"] = text.encode()
    return dataclasses.replace(program, checksum_url=f"{site.url}/upstream/SHA256SUMS")


def _downloader(site: Site, *, ca_file: str = "") -> Downloader:
    return Downloader(BinariesConfig(mirror=f"{site.url}/mirror", ca_file=ca_file))


def _nothing(done: int, total: int) -> None:
    pass


def _archive(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_bare_program_is_fetched_and_its_progress_told(site: Site, tmp_path: Path) -> None:
    kubectl = _offer(site, KUBECTL, PROGRAM_BYTES)
    told: list[tuple[int, int]] = []
    path = _downloader(site).fetch(kubectl, tmp_path, lambda *now: told.append(now))
    assert path.read_bytes() == PROGRAM_BYTES
    assert told[-1] == (len(PROGRAM_BYTES), len(PROGRAM_BYTES))


def test_a_program_is_taken_out_of_its_archive(site: Site, tmp_path: Path) -> None:
    etcd = _offer(site, ETCD, _archive(ETCD.fill(ETCD.member), PROGRAM_BYTES))
    assert _downloader(site).fetch(etcd, tmp_path, _nothing).read_bytes() == PROGRAM_BYTES


def test_an_archive_without_the_program_is_refused(site: Site, tmp_path: Path) -> None:
    etcd = _offer(site, ETCD, _archive("../../../etc/passwd", PROGRAM_BYTES))
    with pytest.raises(TransientError, match="release archive"):
        _downloader(site).fetch(etcd, tmp_path, _nothing)


def test_a_wrong_checksum_is_refused(site: Site, tmp_path: Path) -> None:
    kubectl = _offer(site, KUBECTL, PROGRAM_BYTES, checksum="ab" * 32)
    with pytest.raises(TransientError, match=r"has SHA-256 .*, not abab"):
        _downloader(site).fetch(kubectl, tmp_path, _nothing)


def test_a_mirror_is_not_believed_what_it_says_of_its_files(site: Site, tmp_path: Path) -> None:
    kubectl = _offer(site, KUBECTL, PROGRAM_BYTES)
    evil = hashlib.sha256(b"evil").hexdigest()
    release, checksum = (_path(KUBECTL.fill(of)) for of in (KUBECTL.url, KUBECTL.checksum_url))
    site.files |= {release: b"evil", checksum: evil.encode()}
    with pytest.raises(TransientError, match=f"has SHA-256 {evil}, not "):
        _downloader(site).fetch(kubectl, tmp_path, _nothing)
    assert checksum not in site.asked


def test_a_checksum_of_the_configuration_needs_no_upstream(site: Site, tmp_path: Path) -> None:
    unreachable = dataclasses.replace(
        _offer(site, KUBECTL, PROGRAM_BYTES), checksum_url="https://upstream.invalid/sha256"
    )
    with pytest.raises(TransientError, match=r"no checksum of kubectl that is not the mirror's"):
        _downloader(site).fetch(unreachable, tmp_path, _nothing)
    pinned = {"kubectl": hashlib.sha256(PROGRAM_BYTES).hexdigest().upper()}
    downloader = Downloader(BinariesConfig(mirror=f"{site.url}/mirror", sha256=pinned))
    assert downloader.fetch(unreachable, tmp_path, _nothing).read_bytes() == PROGRAM_BYTES
    assert site.asked == [_path(KUBECTL.fill(KUBECTL.url))]


def test_a_file_cut_short_is_refused(site: Site, tmp_path: Path) -> None:
    kubectl = _offer(site, KUBECTL, PROGRAM_BYTES)
    site.cut[_path(kubectl.fill(kubectl.url))] = 1000
    with pytest.raises(TransientError, match=f"ended after 1000 of {len(PROGRAM_BYTES)} bytes"):
        _downloader(site).fetch(kubectl, tmp_path, _nothing)


def test_a_missing_release_says_so(site: Site, tmp_path: Path) -> None:
    kubectl = _offer(site, KUBECTL, PROGRAM_BYTES)
    del site.files[_path(kubectl.fill(kubectl.url))]
    with pytest.raises(TransientError, match="HTTP status 404"):
        _downloader(site).fetch(kubectl, tmp_path, _nothing)


def test_a_host_that_is_not_there_is_asked_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        pinned = {"kubectl": "0" * 64, "etcd": "0" * 64}
        downloader = Downloader(BinariesConfig(mirror=mirror, sha256=pinned))
        with pytest.raises(TransientError, match="cannot be reached"):
            downloader.fetch(KUBECTL, tmp_path, _nothing)
        unused.listen()  # now it would answer, but is not asked again
        unused.setblocking(False)
        with pytest.raises(TransientError, match="cannot be reached"):
            downloader.fetch(ETCD, tmp_path, _nothing)
        with pytest.raises(BlockingIOError):
            unused.accept()


def test_a_proxy_is_used(site: Site, tmp_path: Path) -> None:
    """It is asked for whole URLs, of the mirror and of upstream alike."""
    mirror, upstream = "http://releases.invalid", "http://upstream.invalid/SHA256SUMS"
    _offer(site, KUBECTL, PROGRAM_BYTES)
    site.files = {
        mirror + _path(KUBECTL.fill(KUBECTL.url)).removeprefix("/mirror"): PROGRAM_BYTES,
        upstream: site.files["/upstream/SHA256SUMS"],
    }
    kubectl = dataclasses.replace(KUBECTL, checksum_url=upstream)
    downloader = Downloader(BinariesConfig(mirror=mirror, proxy=site.url))
    assert downloader.fetch(kubectl, tmp_path, _nothing).read_bytes() == PROGRAM_BYTES
    assert sorted(site.asked) == sorted(site.files)


def test_tls_with_a_site_authority(tls_site: Site, tmp_path: Path) -> None:
    kubectl = _offer(tls_site, KUBECTL, PROGRAM_BYTES)
    downloader = _downloader(tls_site, ca_file=str(tmp_path / "pki/api-ca.crt"))
    assert downloader.fetch(kubectl, tmp_path, _nothing).read_bytes() == PROGRAM_BYTES


def test_tls_of_an_unknown_authority_is_refused(tls_site: Site, tmp_path: Path) -> None:
    kubectl = _offer(tls_site, KUBECTL, PROGRAM_BYTES)
    with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"):
        _downloader(tls_site).fetch(kubectl, tmp_path, _nothing)
    assert tls_site.asked == []


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://127.0.0.1", "not a url"])
def test_a_mirror_that_is_no_web_server_is_refused(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        config = BinariesConfig(mirror=mirror, sha256={"kubectl": "0" * 64})
        Downloader(config).fetch(KUBECTL, tmp_path, _nothing)


def test_checksum_files_of_both_kinds() -> None:
    digest = "0123456789abcdef" * 4
    assert parse_checksum(f"{digest}\n", "kubectl") == digest
    assert parse_checksum(f"{'f' * 64}  a\n{digest.upper()} *dir/etcd.tgz\n", "etcd.tgz") == digest
    for text in ("", "<html>", f"{digest}  other", digest[:-1]):
        with pytest.raises(ParseError):
            parse_checksum(text, "kubectl")


def test_official_addresses_are_of_this_machine() -> None:
    url = Downloader(BinariesConfig()).url(KUBECTL.fill(KUBECTL.url))
    assert url == f"https://dl.k8s.io/release/v1.37.2/bin/linux/{architecture()}/kubectl"
