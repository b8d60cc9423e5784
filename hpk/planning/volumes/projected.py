"""``projected``: several sources in one directory, the API server's own among them."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import (
    ConfigMapSource,
    DownwardItem,
    PodCertificateSource,
    ProjectedVolume,
    SecretSource,
    TokenSource,
    TrustBundleSource,
)
from hpk.planning.base.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_integer,
    get_object,
    get_objects,
    get_relative_path,
    get_text,
)
from hpk.planning.volumes import (
    config_map,
    downward_api,
    pod_certificate,
    secret,
    trust_bundle,
)
from hpk.planning.volumes.base import VolumeContext, default_mode

DEFAULT_EXPIRATION_S = 3600
_KINDS = (
    "clusterTrustBundle",
    "configMap",
    "downwardAPI",
    "podCertificate",
    "secret",
    "serviceAccountToken",
)


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> ProjectedVolume:
    """The volume; sources that give the same path come in the Pod's order."""
    tokens: list[TokenSource] = []
    config_maps: list[ConfigMapSource] = []
    secrets: list[SecretSource] = []
    downward: list[DownwardItem] = []
    trust_bundles: list[TrustBundleSource] = []
    certificates: list[PodCertificateSource] = []
    order: list[str] = []
    for source_path, source in get_objects(volume, "sources", path):
        kind = _kind(source, source_path)
        content = get_object(source, kind, source_path)
        kind_path = f"{source_path}.{kind}"
        if kind == "serviceAccountToken":
            tokens.append(_token(content, kind_path))
            order.append("tokens")
        elif kind == "configMap":
            config_maps.append(config_map.plan_source(content, kind_path))
            order.append("config_maps")
        elif kind == "secret":
            secrets.append(secret.plan_source(content, kind_path))
            order.append("secrets")
        elif kind == "clusterTrustBundle":
            trust_bundles.append(trust_bundle.plan_source(content, kind_path))
            order.append("trust_bundles")
        elif kind == "podCertificate":
            certificates.append(pod_certificate.plan_source(content, kind_path))
            order.append("certificates")
        else:
            items = downward_api.plan_items(context.downward, content, kind_path)
            downward.extend(items)
            order.extend(["downward"] * len(items))
    return ProjectedVolume(
        name=name,
        default_mode=default_mode(volume, path),
        tokens=tuple(tokens),
        config_maps=tuple(config_maps),
        downward=tuple(downward),
        secrets=tuple(secrets),
        order=tuple(order),
        trust_bundles=tuple(trust_bundles),
        certificates=tuple(certificates),
    )


def _kind(source: JsonObject, path: str) -> str:
    kinds = [kind for kind, value in source.items() if value is not None]
    for kind in kinds:
        if kind not in _KINDS:
            raise AdmissionError(UNSUPPORTED, f"{path}.{kind}", "is not supported yet")
    if len(kinds) != 1:
        raise AdmissionError(INVALID, path, "must be exactly one source")
    return kinds[0]


def _token(token: JsonObject, path: str) -> TokenSource:
    expiration = get_integer(token, "expirationSeconds", path, DEFAULT_EXPIRATION_S)
    return TokenSource(
        path=get_relative_path(token, "path", path),
        audience=get_text(token, "audience", path),
        expiration_s=DEFAULT_EXPIRATION_S if expiration is None else expiration,
    )
