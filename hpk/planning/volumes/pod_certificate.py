"""``podCertificate``: a certificate of a signer's for a key that the kubelet makes, as files."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import PodCertificateSource
from hpk.planning.base.fields import (
    INVALID,
    JsonObject,
    check_text,
    get_integer,
    get_object,
    get_relative_path,
    get_text,
)

KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")


def plan_source(source: JsonObject, path: str) -> PodCertificateSource:
    """One source of a projected volume."""
    key_type = get_text(source, "keyType", path)
    if key_type not in KEY_TYPES:
        raise AdmissionError(
            INVALID, f"{path}.keyType", f"must be one of {', '.join(KEY_TYPES)}, not {key_type!r}"
        )
    annotations = get_object(source, "userAnnotations", path)
    return PodCertificateSource(
        signer_name=get_text(source, "signerName", path),
        key_type=key_type,
        max_expiration_s=get_integer(source, "maxExpirationSeconds", path, None),
        bundle_path=_path(source, "credentialBundlePath", path),
        key_path=_path(source, "keyPath", path),
        chain_path=_path(source, "certificateChainPath", path),
        user_annotations=tuple(
            (key, check_text(text, f"{path}.userAnnotations[{key}]"))
            for key, text in sorted(annotations.items())
        ),
    )


def _path(source: JsonObject, name: str, path: str) -> str:
    return get_relative_path(source, name, path) if source.get(name) else ""
