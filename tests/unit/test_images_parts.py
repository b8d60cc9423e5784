"""References, registry answers and the token flow, each by itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from hpk.cli.images import images
from hpk.config.load import load_config
from hpk.images.errors import ImageError
from hpk.images.oci import choose_platform, is_index, parse_config
from hpk.images.reference import parse_reference
from hpk.images.registry import Registry
from hpk.images.settings import ImageSettings, image_settings
from hpk.model.errors import ParseError, PermanentError
from hpk.model.sif import parse_header, primary_squashfs_offset
from hpk.statefs import HpkPaths

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("registry.lab:5000/a/b/c:V_1.2-x", "registry.lab:5000/a/b/c:V_1.2-x"),
        ("quay.io/a__b/c--d.e_f", "quay.io/a__b/c--d.e_f:latest"),
        ("UPPER/app", "UPPER/app:latest"),
        ("[fd00::1]:5000/app", "[fd00::1]:5000/app:latest"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        (f"app:1@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
    ],
)
def test_references(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full
    assert parse_reference(full) == parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "App",
        "app:",
        "app@",
        "app:-x",
        "app:" + "x" * 129,
        "a" * 256,
        HEX,
        "app@sha256:abc",
        f"app@sha256:{HEX.upper()}",
        f"app@md5:{HEX[:32]}",
        "app\n",
        "app:latest\n",
        "a..b",
        "a/",
        "/a",
        "https://registry.lab/app",
        "registry.lab:port/app",
        "app $(touch x)",
        "app;x",
        "--help",
        "-o/x",
        "ä",
        "app:²",
        "app\0",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ImageError) as error:
        parse_reference(text)
    assert error.value.reason == "InvalidImageName"
    assert len(str(error.value)) < 1000


@given(st.text(max_size=80))
@example("a/b:c@sha256:" + HEX)
def test_any_text_is_a_harmless_reference_or_an_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ImageError:
        return
    assert str(reference).isascii()
    assert not set(str(reference)) & set(" \t\n\0'\"$`;|&<>(){}\\*?!#%=,")
    assert not str(reference).startswith("-")


def entry(system: str, architecture: str, digit: str) -> dict[str, Any]:
    return {
        "digest": "sha256:" + digit * 64,
        "platform": {"os": system, "architecture": architecture},
    }


def test_the_platform_is_chosen() -> None:
    index = {
        "manifests": [
            "nonsense",
            {"digest": "sha256:" + "0" * 64},
            entry("windows", "amd64", "1"),
            entry("linux", "arm64", "2"),
            entry("linux", "amd64", "3"),
            entry("linux", "amd64", "4"),
        ]
    }
    assert choose_platform(index, "amd64") == "sha256:" + "3" * 64
    with pytest.raises(ParseError, match=r"linux/s390x.*windows/amd64"):
        choose_platform(index, "s390x")
    with pytest.raises(ParseError):
        choose_platform({"manifests": {}}, "amd64")


def test_indexes_manifests_and_neither() -> None:
    assert is_index({}, "application/vnd.oci.image.index.v1+json; charset=utf-8")
    assert not is_index({}, "application/vnd.docker.distribution.manifest.v2+json")
    assert is_index({"manifests": []}, "application/json")
    with pytest.raises(ParseError, match="schema version 1"):
        is_index({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    with pytest.raises(ParseError):
        is_index({}, "text/html")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"config": []}',
        b'{"config": {"Cmd": "sh"}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"User": 0}}',
        b'{"config": {"Cmd": ["a\\u0000b"]}}',
    ],
)
def test_a_configuration_that_is_none(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_config(text)


def test_an_empty_configuration() -> None:
    assert parse_config(b"{}") == parse_config(b'{"config": null}')
    assert parse_config(b'{"config": {"Cmd": null, "Env": ["novalue", "=x"]}}').env == ()


@given(st.binary(max_size=300))
def test_no_bytes_break_the_sif_parser(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_header(data)
    with pytest.raises(ParseError):
        primary_squashfs_offset(data)


CONFIG_BODY = b'{"config": {"Cmd": ["sh"]}}'
CONFIG_DIGEST = "sha256:" + hashlib.sha256(CONFIG_BODY).hexdigest()
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": CONFIG_DIGEST},
        "layers": [],
    }
).encode()


@dataclass
class Fake:
    """An HTTP server that a test scripts, spoken to as an insecure registry."""

    host: str = ""
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, request.headers.get("Authorization", "")))
        assert self.answer is not None
        return await self.answer(request)


@pytest_asyncio.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fake]:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Fake()
    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", server.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def resolve(fake: Fake) -> str:
    registry = Registry(insecure=frozenset({fake.host}))
    try:
        return (await registry.resolve(parse_reference(f"{fake.host}/app:1"))).manifest_digest
    finally:
        await registry.close()


def content(request: web.Request) -> web.Response:
    if "/blobs/" in request.path:
        return web.Response(body=CONFIG_BODY)
    return web.Response(body=MANIFEST)


async def test_a_token_is_fetched_and_used_again(fake: Fake) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "t0k", "expires_in": 300})
        if request.headers.get("Authorization") != "Bearer t0k":
            challenge = f'Bearer realm="http://{fake.host}/token?x=1",service="the service"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return content(request)

    fake.answer = answer
    await resolve(fake)
    assert [path for path, _ in fake.seen] == [
        "/v2/app/manifests/1",
        "/token?x=1&scope=repository:app:pull&service=the+service",
        "/v2/app/manifests/1",
        f"/v2/app/blobs/{CONFIG_DIGEST}",
    ]


async def test_a_token_goes_to_no_blob_store(fake: Fake) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"access_token": "t0k"})
        if request.path == "/store":
            return web.Response(body=CONFIG_BODY)
        if request.headers.get("Authorization") != "Bearer t0k":
            challenge = f'bearer realm="http://{fake.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if "/blobs/" in request.path:
            other = f"http://localhost:{fake.host.rpartition(':')[2]}/store"
            return web.Response(status=307, headers={"Location": other})
        return content(request)

    fake.answer = answer
    await resolve(fake)
    assert fake.seen[-1] == ("/store", "")


async def test_a_registry_that_wants_a_password_is_quoted(fake: Fake) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {"WWW-Authenticate": 'Basic realm="x"'}
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "who\nare you"}]}
        return web.json_response(body, status=401, headers=headers)

    fake.answer = answer
    with pytest.raises(ImageError, match=r"pull access denied.*UNAUTHORIZED: who are you"):
        await resolve(fake)


@pytest.mark.parametrize("part", ["manifests", "blobs"])
async def test_content_that_does_not_match_its_digest(fake: Fake, part: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = content(request).body
        assert isinstance(body, bytes)
        return web.Response(body=body + b" " if f"/{part}/" in request.path else body)

    fake.answer = answer
    registry = Registry(insecure=frozenset({fake.host}))
    digest = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
    try:
        with pytest.raises(ImageError, match="does not match its digest"):
            await registry.resolve(parse_reference(f"{fake.host}/app@{digest}"))
    finally:
        await registry.close()


async def test_an_endless_answer_and_endless_redirects(fake: Fake) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * (9 * 1024 * 1024))

    async def around(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.path})

    fake.answer = endless
    with pytest.raises(ImageError, match="sends more than"):
        await resolve(fake)
    fake.answer = around
    with pytest.raises(ImageError, match="redirects too often"):
        await resolve(fake)


async def test_a_plain_registry_is_not_spoken_to_unless_listed(fake: Fake) -> None:
    registry = Registry()
    try:
        with pytest.raises(ImageError) as error:
            await registry.resolve(parse_reference(f"{fake.host}/app:1"))
    finally:
        await registry.close()
    assert error.value.reason == "ErrImagePull"
    assert fake.seen == []


def test_the_users_settings_win_over_the_sites_key_by_key(tmp_path: Path) -> None:
    paths = HpkPaths(home=tmp_path, cache=tmp_path)
    site = tmp_path / "site.toml"
    assert image_settings(load_config(paths, site=site).images) == ImageSettings()
    site.write_text(
        '[images]\nruntime-path = ["/opt/apptainer/bin"]\ninsecure-registries = ["a:1"]\n'
    )
    paths.config.write_text(
        '[images]\ninsecure-registries = ["b:2"]\nscratch = "/local"\nprocessors = 8\n'
    )
    assert image_settings(load_config(paths, site=site).images) == ImageSettings(
        runtime_path=(Path("/opt/apptainer/bin"),),
        insecure_registries=frozenset({"b:2"}),
        scratch=Path("/local"),
        processors=8,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[images", "config.toml"),
        ("images = 1", "config.toml"),
        ("[images]\nrutime-path = []", "images.rutime-path"),
        ("[images]\npull-timeout-s = 0", "images.pull-timeout-s"),
        ("[images]\nconversions-at-once = 0", "images.conversions-at-once"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    paths = HpkPaths(home=tmp_path, cache=tmp_path)
    paths.config.write_text(text)
    with pytest.raises(PermanentError) as error:
        load_config(paths, site=tmp_path / "absent")
    assert named in str(error.value)


def test_the_command_lists_what_the_cache_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HPK_CACHE", str(tmp_path))
    entry = tmp_path / "images/apptainer-v1/sha256" / HEX
    entry.mkdir(parents=True)
    (entry / "entry.json").write_text("{}")
    (entry / "image.sif").write_bytes(b"x" * 2_000_000)
    done = CliRunner().invoke(images, ["list"])
    assert done.exit_code == 0, done.output
    assert f"sha256:{HEX[:12]}" in done.output
    assert "2.0 MB in 1 images" in done.output
    done = CliRunner().invoke(images, ["list", "-o", "json"])
    (listed,) = json.loads(done.output)
    assert listed["size_bytes"] == 2_000_002
    failed = CliRunner().invoke(images, ["pull", "No Image"])
    assert isinstance(failed.exception, ImageError)
