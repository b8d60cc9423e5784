"""Which programs of Kubernetes' own tests are built, and from what."""

from __future__ import annotations

from pathlib import Path

from bootstrap.components import KUBERNETES_VERSION, PROGRAMS, Program, kubernetes_ldflags

SOURCES = Path(__file__).parent / "gobuild" / "kubernetes"
_IMAGES = "k8s.io/kubernetes/test/images"


def _program(name: str, package: str) -> Program:
    # None of them can be asked for its version: each is built.
    return Program(
        name=name,
        version=KUBERNETES_VERSION,
        module=str(SOURCES),
        package=package,
        ldflags=kubernetes_ldflags(),
        version_argv=(),
    )


SUITE = Program(
    name="e2e.test",
    version=KUBERNETES_VERSION,
    module=str(SOURCES),
    package="k8s.io/kubernetes/test/e2e",
    is_test=True,
    ldflags=kubernetes_ldflags(),
)
"""All specs in one program."""

IN_IMAGES: dict[str, Program] = {
    program.name: program
    for program in (
        _program("agnhost", f"{_IMAGES}/agnhost"),
        _program("nnp", f"{_IMAGES}/nonewprivs"),
        _program("regression-issue-74839", f"{_IMAGES}/regression-issue-74839"),
        _program("consumer", f"{_IMAGES}/resource-consumer"),
        _program("consume-cpu", f"{_IMAGES}/resource-consumer/consume-cpu"),
        _program("sample-apiserver", "k8s.io/sample-apiserver"),
        _program("sampledeviceplugin", f"{_IMAGES}/sample-device-plugin"),
        PROGRAMS["coredns"],
        PROGRAMS["etcd"],
    )
}
"""What the suite's images hold."""
