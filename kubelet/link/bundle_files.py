"""The files of one volume, from what was read for it. Pure.

Sources: pkg/volume/projected, configmap, secret and downwardapi, pkg/kubelet/clustertrustbundle,
whose messages these are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hpk.model.bundle import BundleFile, BundleVolume
from hpk.model.errors import ParseError, TransientError
from hpk.model.plan import (
    ConfigMapSource,
    DownwardItem,
    PodCertificateSource,
    ProjectedVolume,
    SecretSource,
    TokenSource,
    TrustBundleSource,
)
from kubelet.link.objects import ObjectData
from kubelet.link.pod_certificates import Credentials

_LISTS = ("tokens", "config_maps", "secrets", "downward", "trust_bundles", "certificates")
_Source = (
    TokenSource
    | ConfigMapSource
    | SecretSource
    | DownwardItem
    | TrustBundleSource
    | PodCertificateSource
)


class MountError(TransientError):
    """A volume that cannot be filled yet."""

    def __init__(self, volume: str, problem: str) -> None:
        message = f'MountVolume.SetUp failed for volume "{volume}" : {problem}'
        super().__init__(message, reason="FailedMount")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeValues:
    """What volumes are made of.

    :param config_maps: by name, None for one that does not exist; secrets alike.
    :param tokens: by their source.
    :param trust_bundles: PEM by their source, None where nothing is chosen.
    :param certificates: by their source.
    :param field: the value of a ``fieldPath``; raises ParseError.
    """

    config_maps: Mapping[str, ObjectData | None]
    secrets: Mapping[str, ObjectData | None]
    tokens: Mapping[TokenSource, str]
    trust_bundles: Mapping[TrustBundleSource, bytes | None]
    certificates: Mapping[PodCertificateSource, Credentials]
    field: Callable[[str], str]


def volume_files(volume: ProjectedVolume, values: VolumeValues) -> BundleVolume:
    """The volume; of two sources with the same path the later one wins.

    :raises MountError: something that is not optional is missing.
    """
    files: dict[str, BundleFile] = {}
    try:
        for source in _in_order(volume):
            for path, data, mode in _contents(source, values):
                bits = volume.default_mode if mode is None else mode
                files[path] = BundleFile(path, base64.b64encode(data).decode(), bits)
    except ParseError as error:
        raise MountError(volume.name, error.message) from error
    return BundleVolume(name=volume.name, files=tuple(files.values()))


def _in_order(volume: ProjectedVolume) -> Iterator[_Source]:
    lists: dict[str, Iterator[_Source]] = {name: iter(getattr(volume, name)) for name in _LISTS}
    for name in volume.order:
        if name in lists:
            yield from _first(lists[name])
    for rest in lists.values():
        yield from rest


def _first(items: Iterator[_Source]) -> Iterator[_Source]:
    for item in items:
        yield item
        return


def _contents(source: _Source, values: VolumeValues) -> Iterator[tuple[str, bytes, int | None]]:
    """Path, bytes and mode of each file of one source."""
    if isinstance(source, TokenSource):
        yield source.path, values.tokens[source].encode(), None
    elif isinstance(source, TrustBundleSource):
        yield source.path, _anchors(source, values), None
    elif isinstance(source, PodCertificateSource):
        found = values.certificates[source]
        for path, data in (
            (source.bundle_path, found.key + found.chain),
            (source.key_path, found.key),
            (source.chain_path, found.chain),
        ):
            if path:
                yield path, data, None
    elif isinstance(source, DownwardItem):
        text = source.value if source.source is None else values.field(source.source.key)
        yield source.path, text.encode(), source.mode
    else:
        yield from _keys(source, values)


def _anchors(source: TrustBundleSource, values: VolumeValues) -> bytes:
    found = values.trust_bundles[source]
    if found is not None or source.optional:
        return found or b""
    if source.name:
        missing = f'clustertrustbundle.certificates.k8s.io "{source.name}" not found'
        raise ParseError(f"while getting ClusterTrustBundle: {missing}")
    raise ParseError("combination of signerName and labelSelector matched zero ClusterTrustBundles")


def _keys(
    source: ConfigMapSource | SecretSource, values: VolumeValues
) -> Iterator[tuple[str, bytes, int | None]]:
    is_secret = isinstance(source, SecretSource)
    found = (values.secrets if is_secret else values.config_maps).get(source.name)
    if found is None and not source.optional:
        raise ParseError(f'{"secret" if is_secret else "configmap"} "{source.name}" not found')
    files = found.files if found is not None else {}
    if not source.items:
        yield from ((key, files[key], None) for key in sorted(files))
        return
    for item in source.items:
        if item.key in files:
            yield item.path, files[item.key], item.mode
        elif not source.optional:
            what = "references non-existent secret key"
            if not is_secret:
                what = "configmap references non-existent config key"
            raise ParseError(f"{what}: {item.key}")
