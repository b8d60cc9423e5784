"""Image references as the rest of the world reads them: ``busybox`` is docker.io/library/busybox.

The grammar is that of the distribution project's reference package. What parses here consists of
harmless characters only, so it may stand in an argument list or a URL. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpk.images.errors import INVALID_IMAGE_NAME, ImageError

_DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_DOCKER_API = "registry-1.docker.io"
_MAX_NAME = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[^@]+))?",
    re.ASCII,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference in full.

    :param domain: the registry, ``docker.io`` or ``host[:port]``.
    :param path: the repository within it.
    :param tag: "" where there is a digest: the digest alone counts then.
    """

    domain: str
    path: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The repository, ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def api_host(self) -> str:
        """Where the registry's API answers."""
        return _DOCKER_API if self.domain == _DEFAULT_DOMAIN else self.domain

    @property
    def version(self) -> str:
        """Tag or digest, what the API calls the manifest's reference."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Reference:
        """The same repository at a digest."""
        return Reference(domain=self.domain, path=self.path, tag="", digest=digest)

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def is_digest(text: str) -> bool:
    """Whether the text is a digest of a kind that can be verified."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """A reference as a Pod spells it; tag ``latest`` where there is neither tag nor digest.

    :raises ImageError: ``InvalidImageName``.
    """
    if _IDENTIFIER.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits alone are no repository name")
    domain, remainder = _split_domain(text)
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None:
        repository = remainder.split(":", 1)[0]
        if repository != repository.lower():
            raise _invalid(text, "repository name must be lowercase")
        raise _invalid(text, "invalid reference format")
    if len(found["path"]) > _MAX_NAME:
        raise _invalid(text, f"repository name must not be more than {_MAX_NAME} characters")
    digest = found["digest"] or ""
    if digest and not is_digest(digest):
        raise _invalid(text, "the digest is neither sha256 nor sha512 in lower case")
    tag = "" if digest else found["tag"] or "latest"
    return Reference(domain=domain, path=found["path"], tag=tag, digest=digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    domain, remainder = (first, rest) if is_domain else (_DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder


def _invalid(text: str, why: str) -> ImageError:
    shown = text if len(text) <= 300 else text[:300] + "…"
    return ImageError(
        INVALID_IMAGE_NAME,
        f"couldn't parse image name {shown!r}: {why}",
        remedy="write it as [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]",
    )
