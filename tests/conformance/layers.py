"""What the suite's images are made of: file trees, each a tar archive in the cache."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.components import KUBERNETES_VERSION
from bootstrap.lab.definitions import Content
from bootstrap.lab.images import make_debian
from hpk import subproc

VERSION = 1
"""Raise it when the code below makes something else of a recipe."""

_MTIME_S = 1_700_000_000
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
_DIRECTORIES = (
    *("dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp"),
    *("usr/bin", "usr/local/bin", "usr/sbin", "var/log", "var/spool", "var/www"),
)
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
mail:x:8:
www-data:x:33:
nogroup:x:65534:
"""
_PAGE = """<!DOCTYPE html>
<html><head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body></html>
"""
_SITE = """server {
  listen 80 default_server;
  location / { root /usr/share/nginx/html; index index.html; }
}
"""
# Specs that mount an image look for upstream's distribution in it.
_OS_RELEASE = 'NAME="Alpine Linux"\nID=alpine\nPRETTY_NAME="Alpine Linux (a stand-in)"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What layers are made from.

    :param programs: built programs by name.
    :param sources: Kubernetes' module in Go's cache.
    :param pause: OCI layout of the pause image.
    :param cache: where layers lie.
    """

    programs: Mapping[str, Path]
    sources: Path
    pause: Path
    cache: Path

    @property
    def images(self) -> Path:
        """The sources of upstream's images."""
        return self.sources / "test" / "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How a layer comes to be: by ``fill``, or as a Debian with packages.

    :param fill: puts files into a directory that becomes the layer's root.
    :param revision: raise it when ``fill`` makes something else.
    """

    packages: tuple[str, ...] = ()
    fill: Callable[[Path, Materials], None] | None = None
    revision: int = 1

    @property
    def recipe(self) -> str:
        """Changes with what the layer is made of."""
        return repr(self.packages) if self.revision == 1 else repr((self.packages, self.revision))


async def make_layer(name: str, materials: Materials) -> Path:
    """The layer's tar archive, made where it is not in the cache."""
    layer = LAYERS[name]
    key = hashlib.sha256(repr((VERSION, KUBERNETES_VERSION, layer.recipe)).encode()).hexdigest()
    target = materials.cache / f"{name}-{key[:16]}.tar"
    if target.exists():
        return target
    new = target.with_name(f".new-{target.name}")  # mmdebstrap goes by its ending
    if layer.packages:
        await make_debian(Content(packages=layer.packages, exclude=_EXCLUDED), new)
    if layer.fill is not None:
        with tempfile.TemporaryDirectory(dir=materials.cache) as root:
            Path(root).chmod(0o755)
            await asyncio.to_thread(layer.fill, Path(root), materials)
            if name == "pause":
                source = materials.sources / "build/pause/linux/pause.c"
                await _compile(source, Path(root) / "pause", "-DVERSION=v3.10.2")
            if name == "busybox":
                await _add_shells(Path(root), materials.cache)
            await asyncio.to_thread(_pack, Path(root), new)
    new.replace(target)
    return target


def _pack(root: Path, target: Path) -> None:
    def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = _MTIME_S
        return entry

    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, path.name, filter=owned_by_root)


async def _compile(source: Path, target: Path, *flags: str) -> None:
    argv = ["gcc", "-std=gnu11", "-Os", "-Wall", "-static", *flags, f"-o{target}", str(source)]
    (await subproc.run(argv)).check()


async def _add_shells(root: Path, cache: Path) -> None:
    """/bin/sh and what it may become, see sh.c."""
    with tempfile.TemporaryDirectory(dir=cache) as work:
        fetch = ["apt-get", "download", "bash-static"]
        (await subproc.run(fetch, cwd=Path(work), timeout_s=300)).check()
        (package,) = Path(work).glob("*.deb")
        (await subproc.run(["dpkg-deb", "--extract", str(package), f"{work}/files"])).check()
        found = Path(work) / "files/bin/bash-static"
        _copy(found, root / "bin/bash", 0o755)
    (root / "bin/sh").unlink()
    await _compile(Path(__file__).parent / "sh.c", root / "bin/sh", "-Werror")


def _busybox(root: Path, materials: Materials) -> None:
    for name in ("bin", *_DIRECTORIES):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    _copy(Path("/usr/bin/busybox"), root / "bin/busybox", 0o755)
    listed = subprocess.run(
        ["/usr/bin/busybox", "--list"], check=True, capture_output=True, text=True
    )
    for applet in set(listed.stdout.split()) - {"busybox"}:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "usr/bin/env").symlink_to("../../bin/env")
    _write(root / "etc/passwd", _PASSWD)
    _write(root / "etc/group", _GROUP)
    _write(root / "etc/shadow", "root:*::0:::::\n", 0o640)


def _agnhost(root: Path, materials: Materials) -> None:
    _copy(materials.programs["agnhost"], root / "agnhost", 0o755)
    (root / "agnhost-2").symlink_to("agnhost")
    _coredns(root, materials)
    for name in ("localhost.crt", "localhost.key"):
        _copy(materials.images / "agnhost/porter" / name, root / name)
    for name in ("uploads", "usr/local/bin", "home/user-defined-in-image"):
        (root / name).mkdir(parents=True)
    (root / "usr/local/bin/iperf").symlink_to("/usr/bin/iperf")
    # A user of the image with a further group, as upstream's has.
    home = "/home/user-defined-in-image"
    user = f"user-defined-in-image:x:1000:1000:Linux User,,,:{home}:/bin/sh\n"
    _write(root / "etc/passwd", _PASSWD + user)
    groups = "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
    _write(root / "etc/group", _GROUP + groups)
    _registry(root / "var/registry", materials)


def _registry(root: Path, materials: Materials) -> None:
    """The tree that agnhost's fake registry serves: blobs and manifests by their digests."""
    listing = materials.images / "agnhost/fakeregistryserver/images.txt"
    blobs = materials.pause / "blobs/sha256"
    entry = json.loads((materials.pause / "index.json").read_text())["manifests"][0]
    manifest = (blobs / entry["digest"].removeprefix("sha256:")).read_bytes()
    parts = json.loads(manifest)
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "size": len(manifest),
                    "digest": entry["digest"],
                    "platform": {"architecture": "amd64", "os": "linux"},
                }
            ],
        }
    ).encode()
    for line in listing.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        name, _, tag = words
        for blob in (parts["config"], *parts["layers"]):
            digest = blob["digest"].removeprefix("sha256:")
            _put(root / name / "blobs", (blobs / digest).read_bytes())
        _put(root / name / "manifests", manifest)
        _write(root / name / "manifests" / tag, _put(root / name / "manifests", index) + "\n")


def _put(kind: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = kind / "sha256" / digest[:2] / digest / "data"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digest}"


def _coredns(root: Path, materials: Materials) -> None:
    _copy(materials.programs["coredns"], root / "coredns", 0o755)


def _nginx(root: Path, materials: Materials) -> None:
    (root / "var/log/nginx").mkdir(parents=True)
    (root / "var/log/nginx/access.log").symlink_to("/dev/stdout")
    (root / "var/log/nginx/error.log").symlink_to("/dev/stderr")
    _write(root / "usr/share/nginx/html/index.html", _PAGE)
    _write(root / "etc/nginx/conf.d/default.conf", _SITE)
    _write(root / "etc/nginx/sites-enabled/default", "")


def _pet(name: str) -> Callable[[Path, Materials], None]:
    def fill(root: Path, materials: Materials) -> None:
        for source in (materials.images / name / "html").iterdir():
            _copy(source, root / source.name)
        _write(root / "etc/os-release", _OS_RELEASE)

    return fill


def _program(name: str, target: str, mode: int = 0o755) -> Callable[[Path, Materials], None]:
    def fill(root: Path, materials: Materials) -> None:
        _copy(materials.programs[name], root / target, mode)

    return fill


def _consumer(root: Path, materials: Materials) -> None:
    for name in ("consumer", "consume-cpu"):
        _copy(materials.programs[name], root / name, 0o755)


def _nothing(root: Path, materials: Materials) -> None:
    pass


def _copy(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _write(target: Path, text: str, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


_TOOLS = (
    *("bash", "bind9-dnsutils", "ca-certificates", "curl", "inotify-tools", "iperf", "iperf3"),
    *("iproute2", "netcat-openbsd", "perl-base", "procps", "socat", "stress"),
)

LAYERS: Mapping[str, Layer] = {
    "pause": Layer(fill=_nothing),
    "debian": Layer(packages=_TOOLS),
    "debian-nginx": Layer(packages=("nginx-light",)),
    "busybox": Layer(fill=_busybox, revision=2),
    "agnhost": Layer(fill=_agnhost),
    "coredns": Layer(fill=_coredns),
    "nginx": Layer(fill=_nginx),
    "kitten": Layer(fill=_pet("kitten")),
    "nautilus": Layer(fill=_pet("nautilus")),
    "nnp": Layer(fill=_program("nnp", "usr/local/bin/nnp", 0o6755)),
    "resource-consumer": Layer(fill=_consumer),
    "sample-apiserver": Layer(fill=_program("sample-apiserver", "sample-apiserver")),
    "regression-issue-74839": Layer(
        fill=_program("regression-issue-74839", "regression-issue-74839")
    ),
    "sampledeviceplugin": Layer(fill=_program("sampledeviceplugin", "sampledeviceplugin")),
    "etcd": Layer(fill=_program("etcd", "usr/local/bin/etcd")),
}
