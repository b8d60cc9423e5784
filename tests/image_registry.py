"""Debian's registry on the loopback interface, over TLS, with images that tests make up."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_certificates

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\n"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Entrypoint": ["/bin/busybox"],
        "Cmd": ["echo", "a b"],
        "Env": ["PATH=/bin", "EMPTY=", "EQ=a=b"],
        "WorkingDir": "/srv",
        "User": "app",
        "StopSignal": "SIGINT",
    },
}


def write_oci_layout(directory: Path, config: dict[str, Any], *, foreign_index: bool) -> None:
    """An OCI image layout: one image of one layer; with an index, another platform beside it."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    layer = put(buffer.getvalue())
    kind = "application/vnd.oci.image"

    def image(architecture: str) -> dict[str, Any]:
        described = {**config, "architecture": architecture}
        described["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"]]}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {
                "mediaType": f"{kind}.config.v1+json",
                **put(json.dumps(described).encode()),
            },
            "layers": [{"mediaType": f"{kind}.layer.v1.tar", **layer}],
        }
        return {
            "mediaType": f"{kind}.manifest.v1+json",
            **put(json.dumps(manifest).encode()),
            "platform": {"os": "linux", "architecture": architecture},
        }

    top = image("amd64")
    if foreign_index:
        index = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.index.v1+json",
            "manifests": [image("s390x"), top],
        }
        top = {"mediaType": f"{kind}.index.v1+json", **put(json.dumps(index).encode())}
    (directory / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [{**top, "annotations": {}}]})
    )
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@dataclass
class RegistryServer:
    """Debian's docker-registry on a free port of the loopback interface."""

    host: str
    directory: Path
    process: subprocess.Popen[bytes]

    def push(self, name: str, config: dict[str, Any] | None = None, *, index: bool = False) -> None:
        layout = self.directory / f"layout-{time.monotonic_ns()}"
        write_oci_layout(layout, CONFIG if config is None else config, foreign_index=index)
        subprocess.run(
            [
                "skopeo",
                "copy",
                "--quiet",
                "--all",
                "--insecure-policy",
                "--dest-tls-verify=false",
                f"oci:{layout}",
                f"docker://{self.host}/{name}",
            ],
            check=True,
            timeout=60,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    directory = tmp_path / "registry"
    directory.mkdir()
    ca, certificate, key = make_certificates(directory, "localhost")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = directory / "config.json"
    configuration.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
                "http": {
                    "addr": f"127.0.0.1:{port}",
                    "tls": {"certificate": str(certificate), "key": str(key)},
                },
            }
        )
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(configuration)], stdout=log, stderr=log
        )
    server = RegistryServer(f"localhost:{port}", directory, process)
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield server
    finally:
        server.stop()
