"""What registries answer: indexes, manifests and image configurations. Pure; trusts nothing.

Sources: OCI image-spec (manifest.md, image-index.md, config.md), and Docker's image manifest
version 2, schema 2, which differs in media types only.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

from hpk.images.reference import is_digest
from hpk.model.errors import ParseError
from hpk.model.plan import ImageConfig

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64"}


def this_architecture() -> str:
    """This machine in Go's words, ``amd64``."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    :raises ParseError: it is none; the message names ``what``.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"{what} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ParseError(f"{what} is not a JSON object")
    return data


def is_index(manifest: Mapping[str, Any], content_type: str) -> bool:
    """Whether this lists manifests for several platforms.

    :raises ParseError: it is neither that nor an image.
    """
    kind = manifest.get("mediaType") or content_type.split(";")[0].strip()
    if kind in INDEX_TYPES or (kind not in MANIFEST_TYPES and "manifests" in manifest):
        return True
    if kind in MANIFEST_TYPES or "config" in manifest:
        return False
    if manifest.get("schemaVersion") == 1:
        raise ParseError("the image has a manifest of schema version 1, which is long obsolete")
    raise ParseError(f"not an image manifest (media type {kind!r})")


def choose_platform(index: Mapping[str, Any], architecture: str) -> str:
    """The digest of the index's manifest for Linux on this architecture.

    :raises ParseError: there is none; the message lists what there is.
    """
    offered: list[str] = []
    entries = index.get("manifests")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        of = entry.get("platform")
        of = of if isinstance(of, dict) else {}
        digest = entry.get("digest")
        if of.get("os") == "linux" and of.get("architecture") == architecture:
            if isinstance(digest, str) and is_digest(digest):
                return digest
            raise ParseError("the index names a manifest by something that is no digest")
        offered.append(f"{of.get('os')}/{of.get('architecture')}")
    raise ParseError(
        f"no match for platform linux/{architecture} in the index (it has {', '.join(offered)})"
    )


def config_digest(manifest: Mapping[str, Any]) -> str:
    """The digest of the configuration an image manifest points to.

    :raises ParseError: it points to none, or it is an artifact and no image.
    """
    config = manifest.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    if not isinstance(digest, str) or not is_digest(digest):
        raise ParseError("the manifest names no configuration")
    return digest


def parse_config(text: bytes) -> ImageConfig:
    """The part of an image configuration that decides what runs.

    :raises ParseError: a field has the wrong type.
    """
    whole = parse_object(text, "image configuration")
    config = whole.get("config")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise ParseError("image configuration: config is not an object")
    return _image_config(config)


def parse_image_settings(text: bytes) -> ImageConfig:
    """The same from the "config" object alone, as Apptainer keeps it in a SIF file.

    :raises ParseError: a field has the wrong type.
    """
    return _image_config(parse_object(text, "image configuration"))


def _image_config(config: Mapping[str, Any]) -> ImageConfig:
    return ImageConfig(
        entrypoint=_strings(config, "Entrypoint"),
        cmd=_strings(config, "Cmd"),
        env=tuple(
            (name, value)
            for name, equals, value in (item.partition("=") for item in _strings(config, "Env"))
            if equals and name
        ),
        working_dir=_string(config, "WorkingDir"),
        user=_string(config, "User"),
        stop_signal=_string(config, "StopSignal"),
    )


def _string(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ParseError(f"image configuration: {name} is not a string")
    return value


def _strings(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ParseError(f"image configuration: {name} is not a list")
    for item in value:
        if not isinstance(item, str) or "\0" in item:
            raise ParseError(f"image configuration: {name} holds something that is no string")
    return tuple(value)
