"""The upstream programs of the control plane and of the lab's images: pinned versions.

Pure data and the rules to read it; finding, downloading and building are in bootstrap.binaries,
bootstrap.download and bootstrap.build.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from hpk.model.errors import PermanentError

KUBERNETES_VERSION = "v1.37.2"
ETCD_VERSION = "v3.7.3"
COREDNS_VERSION = "v1.15.0"
ARGO_VERSION = "v3.7.6"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One upstream program.

    :param version: with its leading ``v``.
    :param module: directory in bootstrap/gobuild that builds it, or the absolute path of another.
    :param package: Go package within that module.
    :param is_test: the package's tests are the program (``go test -c``).
    :param url: official release; ``{version}``, ``{plain}`` (no v) and ``{arch}`` are filled in;
        "" where upstream releases no such program and it can only be built.
    :param checksum_url: published SHA-256, alone or in a list of ``SHA  NAME`` lines; asked of
        upstream alone, never of a mirror.
    :param member: path of the program in a tar archive, "" where the release is the bare program.
    :param version_argv: arguments that make it print its version; () where nothing does, and none
        on PATH can be told from another.
    :param upstream: Go module whose directory holds ``links``; "" without any.
    :param links: symbolic links of that module, as (link, its target), relative to the module's
        directory. Go's module archives leave links out, so a build has to put them back.
    """

    name: str
    version: str
    module: str
    package: str
    is_test: bool = False
    url: str = ""
    checksum_url: str = ""
    member: str = ""
    ldflags: tuple[str, ...] = ("-s", "-w")
    version_argv: tuple[str, ...] = ("--version",)
    upstream: str = ""
    links: tuple[tuple[str, str], ...] = ()

    def fill(self, template: str) -> str:
        """The URL or member path for this machine."""
        return template.format(
            version=self.version, plain=self.version.removeprefix("v"), arch=architecture()
        )

    def prints_version(self, output: str) -> bool:
        """Whether what the program printed says that it is of exactly this version."""
        plain = re.escape(self.version.removeprefix("v"))
        return re.search(rf"(?<![\w.])v?{plain}(?![\w.+-])", output) is not None


def architecture() -> str:
    """Go's name of this machine's architecture."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise PermanentError(
            f"no upstream programs for {machine}", remedy="use an x86_64 or aarch64 host"
        )
    return _ARCHITECTURES[machine]


def kubernetes_ldflags() -> tuple[str, ...]:
    """What a program of Kubernetes is linked with, to know its own version."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    return (
        "-s",
        "-w",
        f"-X {stamp}.gitVersion={KUBERNETES_VERSION}",
        f"-X {stamp}.gitMajor={major}",
        f"-X {stamp}.gitMinor={minor}",
    )


def _kubernetes(name: str, version_argv: tuple[str, ...] = ("--version",)) -> Program:
    url = "https://dl.k8s.io/release/{version}/bin/linux/{arch}/" + name
    return Program(
        name=name,
        version=KUBERNETES_VERSION,
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        url=url,
        checksum_url=f"{url}.sha256",
        ldflags=kubernetes_ldflags(),
        version_argv=version_argv,
    )


_ETCD_RELEASE = "https://github.com/etcd-io/etcd/releases/download/{version}"
_COREDNS_RELEASE = "https://github.com/coredns/coredns/releases/download/{version}"
_COREDNS_ARCHIVE = f"{_COREDNS_RELEASE}/coredns_{{plain}}_linux_{{arch}}.tgz"

PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl", ("version", "--client")),
        Program(
            name="etcd",
            version=ETCD_VERSION,
            module="etcd",
            package=".",
            url=f"{_ETCD_RELEASE}/etcd-{{version}}-linux-{{arch}}.tar.gz",
            checksum_url=f"{_ETCD_RELEASE}/SHA256SUMS",
            member="etcd-{version}-linux-{arch}/etcd",
        ),
        Program(
            name="coredns",
            version=COREDNS_VERSION,
            module="coredns",
            package="github.com/coredns/coredns",
            url=_COREDNS_ARCHIVE,
            checksum_url=f"{_COREDNS_ARCHIVE}.sha256",
            member="coredns",
            version_argv=("-version",),
        ),
    )
}


ARGO_MODULE = "github.com/argoproj/argo-workflows/v3"
_ARGO_SIGNALS = "workflow/executor/osspecific"


def _argo(name: str) -> Program:
    """Argo's releases hold its command line alone; the rest is published as container images."""
    return Program(
        name=name,
        version=ARGO_VERSION,
        module="argo",
        package=f"{ARGO_MODULE}/cmd/{name}",
        ldflags=("-s", "-w", f"-X {ARGO_MODULE}.version={ARGO_VERSION}"),
        version_argv=("version", "--short"),
        upstream=ARGO_MODULE,
        links=((f"{_ARGO_SIGNALS}/signal_linux.go", f"{_ARGO_SIGNALS}/signal_darwin.go"),),
    )


SAMPLES: dict[str, Program] = {
    program.name: program for program in (_argo("workflow-controller"), _argo("argoexec"))
}
"""Programs of the lab's images; no part of the control plane."""
