"""Finding, building and storing upstream programs, with a fake go on PATH where one is needed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bootstrap import binaries, build, store
from bootstrap.binaries import Places, ensure_all, find
from bootstrap.build import build_argv, parse_go_version
from bootstrap.components import PROGRAMS, SAMPLES
from hpk import subproc
from hpk.config.schema import BinariesConfig
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

ETCD = PROGRAMS["etcd"]
NASTY = "a b'c\"d$(touch canary)é"
FAKE_GO = """#!/bin/sh
set -eu
if [ "$1" = version ]; then echo "go version ${FAKE_GO_VERSION:-go1.26.8} linux/amd64"; exit; fi
echo "$GOFLAGS $CGO_ENABLED" >> "$GO_CALLS"
if [ -n "${GO_FAIL:-}" ]; then echo "package x: no such module" >&2; exit 1; fi
for argument; do case $argument in -o=*) output=${argument#-o=} ;; esac; done
echo some/package >&2
until [ -z "${GO_GATE:-}" ] || [ -e "$GO_GATE" ]; do sleep 0.05; done
printf 'built' > "$output"
"""


@dataclass
class Told:
    """A Reporter that remembers."""

    steps: list[str] = field(default_factory=list, kw_only=True)

    def step(self, name: str, text: str) -> None:
        self.steps.append(f"{name}: {text}")

    def done(self, name: str, text: str) -> None:
        self.steps.append(f"{name} done: {text}")


@dataclass
class Gate(Told):
    """Opens a gate once it was told all of these."""

    path: Path
    wanted: tuple[str, ...]

    def step(self, name: str, text: str) -> None:
        super().step(name, text)
        if all(any(word in step for step in self.steps) for word in self.wanted):
            self.path.touch()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HpkPaths:
    """A home whose name holds everything a shell would trip over, and an empty PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("GO_CALLS", str(tmp_path / "calls"))
    # Go's own variables are passed on, and the fake's are named alike.
    home = tmp_path / NASTY
    return HpkPaths(home=home, cache=home / "cache")


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _places(paths: HpkPaths) -> Places:
    return Places(cache=paths.binaries, site=paths.home / "site")


def _put(root: Path, content: str) -> Path:
    work = store.workplace(root, ETCD)
    _program(work / "etcd", content)
    path = store.put(root, ETCD, work / "etcd", origin="test").path
    work.rmdir()
    return path


def test_a_stored_program_is_found_and_verified(paths: HpkPaths) -> None:
    path = _put(paths.binaries, "one")
    stored = store.load(paths.binaries, ETCD)
    assert stored is not None
    assert (stored.path, stored.origin) == (path, "test")
    assert stored.sha256 == store.sha256_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_program_that_changed_is_refused(paths: HpkPaths) -> None:
    path = _put(paths.binaries, "one")
    path.write_text("two")
    with pytest.raises(PermanentError, match=r"damaged.*hpk setup binaries"):
        store.load(paths.binaries, ETCD)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"sha256": 1}', "\x00"])
def test_a_manifest_that_is_none_is_refused(paths: HpkPaths, manifest: str) -> None:
    path = _put(paths.binaries, "one")
    (path.parent / "manifest.json").write_text(manifest)
    with pytest.raises(PermanentError, match="damaged"):
        store.load(paths.binaries, ETCD)


def test_a_program_without_manifest_is_absent(paths: HpkPaths) -> None:
    path = _put(paths.binaries, "half")
    (path.parent / "manifest.json").unlink()
    assert store.load(paths.binaries, ETCD) is None


async def test_the_cache_comes_before_the_site_and_the_site_before_path(paths: HpkPaths) -> None:
    places = _places(paths)
    tools = Path(os.environ["PATH"].split(":")[0])
    _program(tools / "etcd", "#!/bin/sh\necho etcd Version: 3.7.3\n")
    found = await find(places, ETCD)
    assert found is not None
    assert found.path == tools / "etcd"
    site = _put(places.site, "site")
    found = await find(places, ETCD)
    assert found is not None
    assert found.path == site
    cached = _put(places.cache, "cache")
    found = await find(places, ETCD)
    assert found is not None
    assert found.path == cached


@pytest.mark.parametrize("version", ["3.7.30", "3.7.2", "13.7.3", "3.7.3-rc.1", "3.7.3.1", ""])
async def test_another_version_on_path_is_not_taken(paths: HpkPaths, version: str) -> None:
    tools = Path(os.environ["PATH"].split(":")[0])
    _program(tools / "etcd", f"#!/bin/sh\necho etcd Version: {version}\n")
    assert await find(_places(paths), ETCD) is None


def test_what_upstream_programs_print() -> None:
    assert PROGRAMS["kube-apiserver"].prints_version("Kubernetes v1.37.2\n")
    assert PROGRAMS["kubectl"].prints_version("Client Version: v1.37.2\nKustomize Version: v5.7.1")
    assert PROGRAMS["coredns"].prints_version("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, ")


async def test_a_missing_program_is_built_once_for_all(
    paths: HpkPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(Path(os.environ["PATH"].split(":")[0]) / "go", FAKE_GO)
    # Whoever builds goes on once the other waits for it, and both were told.
    told = Gate(tmp_path / "gate", ("packages compiled", "waiting for another process"))
    monkeypatch.setenv("GO_GATE", str(told.path))
    config = BinariesConfig(sources=("build",))
    both = await asyncio.gather(
        ensure_all(paths, config, told, ["etcd"]), ensure_all(paths, config, told, ["etcd"])
    )
    for stored in both:
        assert stored["etcd"].path.read_text() == "built"
        assert stored["etcd"].path.is_relative_to(paths.binaries)
    calls = Path(os.environ["GO_CALLS"]).read_text().splitlines()
    assert calls == ["-mod=readonly 0"]
    names = {entry.name for entry in (paths.binaries / "etcd" / ETCD.version).iterdir()}
    assert names == {"etcd", "manifest.json", ".lock"}
    assert any("packages compiled" in step for step in told.steps)
    assert sum("waiting for another process" in step for step in told.steps) == 1
    assert not list(Path.cwd().glob("canary"))


async def test_nobody_is_waited_for_who_is_not_there(paths: HpkPaths) -> None:
    _program(Path(os.environ["PATH"].split(":")[0]) / "go", FAKE_GO)
    told = Told()
    await ensure_all(paths, BinariesConfig(sources=("build",)), told, ["etcd"])
    assert not any("waiting" in step for step in told.steps)


def test_how_far_go_has_come(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    assert build.build_progress(log) == "0 modules fetched"
    log.write_text("go: downloading a v1\ngo: downloading b v1\n")
    assert build.build_progress(log) == "2 modules fetched"
    log.write_text("go: downloading a v1\ninternal/goarch\nunsafe\n")
    assert build.build_progress(log) == "2 packages compiled"


async def test_links_that_the_modules_archive_lacks_are_put_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the real go, and a module cache as read-only as Go's own."""
    origin, source = tmp_path / NASTY / "module", tmp_path / "wrapper"
    (origin / "cmd").mkdir(parents=True)
    (origin / "go.mod").write_text("module example.com/argo\n\ngo 1.26\n")
    (origin / "cmd/main.go").write_text("package main\n\nfunc main() { println(answer) }\n")
    (origin / "cmd/answer_windows.go").write_text("package main\n\nconst answer = 42\n")
    for path in [*origin.rglob("*"), origin]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (source / "argo").mkdir(parents=True)
    (source / "argo/go.mod").write_text(
        "module wrapper\n\ngo 1.26\n\nrequire example.com/argo v1.0.0\n"
    )
    (source / "argo/go.sum").write_text("")
    program = dataclasses.replace(
        SAMPLES["argoexec"],
        version="v1.0.0",
        package="example.com/argo/cmd",
        ldflags=(),
        upstream="example.com/argo",
        links=(("cmd/answer_linux.go", "cmd/answer_windows.go"),),
    )

    async def where(*_: object) -> Path:
        return origin

    monkeypatch.setattr(build, "GO_SOURCES", source)
    monkeypatch.setattr(build, "module_directory", where)
    work = tmp_path / "work"
    work.mkdir()
    done = await build.build(program, work, proxy="", log=tmp_path / "log")
    assert (await subproc.run([str(done)])).stderr == "42\n"
    assert not (origin / "cmd/answer_linux.go").exists()
    shutil.rmtree(work)


async def test_a_failed_build_says_what_go_said(
    paths: HpkPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(Path(os.environ["PATH"].split(":")[0]) / "go", FAKE_GO)
    monkeypatch.setenv("GO_FAIL", "yes")
    with pytest.raises(PermanentError, match=r"no such module.*hpk setup binaries"):
        await ensure_all(paths, BinariesConfig(sources=("build",)), Told(), ["etcd"])
    assert store.load(paths.binaries, ETCD) is None


@pytest.mark.parametrize("version", ["go1.25.3", "devel"])
async def test_an_old_go_is_refused(
    paths: HpkPaths, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    _program(
        Path(os.environ["PATH"].split(":")[0]) / "go",
        FAKE_GO.replace("${FAKE_GO_VERSION:-go1.26.8}", version),
    )
    with pytest.raises(PermanentError, match=r"too old.*go 1\.26"):
        await ensure_all(paths, BinariesConfig(sources=("build",)), Told(), ["etcd"])


async def test_no_network_and_no_go_names_both(
    paths: HpkPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(paths.home))
    config = BinariesConfig(mirror="http://127.0.0.1:1", sha256={"etcd": "0" * 64})
    with pytest.raises(PermanentError) as caught:
        await ensure_all(paths, config, Told(), ["etcd"])
    assert "download: 127.0.0.1:1 cannot be reached" in str(caught.value)
    assert "build: building upstream's programs needs Go" in str(caught.value)


async def test_a_checksum_of_no_program_of_ours_is_refused(paths: HpkPaths) -> None:
    with pytest.raises(PermanentError, match=r"names what is no program of ours: ectd.*etcd"):
        await ensure_all(paths, BinariesConfig(sha256={"ectd": "0" * 64}), Told(), ["etcd"])


def test_paths_are_one_argument_whatever_they_hold(tmp_path: Path) -> None:
    argv = build_argv(ETCD, tmp_path / NASTY, tmp_path / NASTY / "out")
    assert f"-o={tmp_path / NASTY / 'out'}" in argv
    assert f"-C={tmp_path / NASTY}" in argv


def test_go_versions() -> None:
    assert parse_go_version("go version go1.26.8 linux/amd64") == (1, 26)
    assert parse_go_version("go version devel +1234 linux/amd64") is None


def test_every_build_module_is_committed_whole() -> None:
    for program in (PROGRAMS | SAMPLES).values():
        module = Path(binaries.__file__).parent / "gobuild" / program.module
        assert (module / "go.mod").exists()
        assert (module / "go.sum").exists()
        assert program.version in (module / "go.mod").read_text()
