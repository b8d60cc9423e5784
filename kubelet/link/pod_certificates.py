"""Certificates of pods: a key that is made here, and a signer's certificate for it.

Source: pkg/kubelet/podcertificate. In memory only: a kubelet that starts anew asks anew.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hpk.model.errors import TransientError
from hpk.model.ids import PodRef, PodUid
from hpk.model.plan import PodCertificateSource
from kubelet.api.apiserver import ApiError, ApiServer, Json, path

_ISSUED_WITHIN_S = 3.0
"""How long is waited for a signer at once, before the Pod is told that it waits."""
_LOOK_S = 0.2
_LOOK_AGAIN_S = 10.0
"""For a newer certificate, while the pod has one."""
_SPREAD_S = 300.0
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_RSA_BITS = {"RSA3072": 3072, "RSA4096": 4096}
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ECDSAP256": ec.SECP256R1,
    "ECDSAP384": ec.SECP384R1,
    "ECDSAP521": ec.SECP521R1,
}
_Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: dict[str, type[_Hash]] = {"ECDSAP384": hashes.SHA384, "ECDSAP521": hashes.SHA512}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a pod gets: both PEM."""

    key: bytes
    chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a certificate is for."""

    pod: PodRef
    service_account: str
    node: str


@dataclass(slots=True)
class _Held:
    """What is known of one source of a pod.

    :param asked: name and key of the request under way, None where there is none.
    :param refusal: of the signer, for good.
    """

    current: Credentials | None = None
    renew_at_s: float = 0.0
    asked: tuple[str, bytes] | None = None
    refusal: str = ""


class PodCertificates:
    """The certificates of all pods.

    :param now_s: Unix seconds.
    """

    def __init__(self, api: ApiServer, now_s: Callable[[], float] = time.time) -> None:
        self._api = api
        self._now_s = now_s
        self._held: dict[PodUid, dict[PodCertificateSource, _Held]] = {}

    async def get(self, subject: Subject, source: PodCertificateSource) -> Credentials:
        """Key and certificate; those that are there until newer ones have been issued.

        :raises TransientError: there are none yet, or the signer has refused them for good.
        """
        held = self._held.setdefault(subject.pod.uid, {}).setdefault(source, _Held())
        if held.refusal:
            raise TransientError(held.refusal)
        try:
            if held.asked is None and self._now_s() >= held.renew_at_s:
                held.asked = await self._request(subject, source)
            deadline_s = time.monotonic() + _ISSUED_WITHIN_S
            while held.asked is not None:
                await self._look(subject.pod, held)
                if held.current is not None or time.monotonic() >= deadline_s:
                    break
                await asyncio.sleep(_LOOK_S)
        except (ApiError, KeyError, TypeError, ValueError) as error:
            raise TransientError(f"certificate of {source.signer_name}: {error}") from error
        if held.refusal:
            raise TransientError(held.refusal)
        if held.current is None:
            raise TransientError("credential bundle is not issued yet")
        return held.current

    def again_s(self, uid: PodUid) -> float | None:
        """In how many seconds the first of a pod's certificates is to be looked at; None without
        any."""
        held = self._held.get(uid, {}).values()
        due_s = [_LOOK_AGAIN_S if h.asked else h.renew_at_s - self._now_s() for h in held]
        return max(1.0, min(due_s)) if due_s else None

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._held.pop(uid, None)

    async def _request(self, subject: Subject, source: PodCertificateSource) -> tuple[str, bytes]:
        pod = subject.pod
        account = await self._api.get(
            path(
                "api", "v1", "namespaces", pod.namespace, "serviceaccounts", subject.service_account
            )
        )
        node = await self._api.get(path("api", "v1", "nodes", subject.node))
        key, proof = await asyncio.to_thread(_key_and_proof, source.key_type)
        spec: Json = {
            "signerName": source.signer_name,
            "podName": pod.name,
            "podUID": pod.uid,
            "serviceAccountName": subject.service_account,
            "serviceAccountUID": account["metadata"]["uid"],
            "nodeName": subject.node,
            "nodeUID": node["metadata"]["uid"],
            "stubPKCS10Request": base64.b64encode(proof).decode(),
        }
        if source.max_expiration_s is not None:
            spec["maxExpirationSeconds"] = source.max_expiration_s
        if source.user_annotations:
            spec["unverifiedUserAnnotations"] = dict(source.user_annotations)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        request = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "PodCertificateRequest",
            "metadata": {"generateName": "req-", "ownerReferences": [owner]},
            "spec": spec,
        }
        created = await self._api.create(_requests(pod), request)
        return str(created["metadata"]["name"]), key

    async def _look(self, pod: PodRef, held: _Held) -> None:
        """What has become of the request."""
        if held.asked is None:
            return
        name, key = held.asked
        try:
            status = (await self._api.get(f"{_requests(pod)}{path(name)}")).get("status") or {}
        except ApiError as error:
            if error.is_not_found:
                held.asked = None  # somebody has deleted it: ask again
            raise
        for condition in status.get("conditions") or []:
            kind = condition.get("type")
            if kind == "Issued":
                chain = "".join(
                    f"{block}\n" for block in _BLOCK.findall(status["certificateChain"])
                )
                held.current = Credentials(key, chain.encode())
                renew_at_s = datetime.fromisoformat(status["beginRefreshAt"]).timestamp()
                held.renew_at_s = renew_at_s + random.uniform(0, _SPREAD_S)  # noqa: S311
                held.asked = None
                return
            if kind in ("Denied", "Failed"):
                became = "permanently denied" if kind == "Denied" else "permanently failed"
                held.refusal = (
                    f'PodCertificateRequest was {became}: reason="{condition.get("reason")}"'
                    f' message="{condition.get("message")}"'
                )
                held.asked = None
                return


def _requests(pod: PodRef) -> str:
    return path(
        "apis", "certificates.k8s.io", "v1", "namespaces", pod.namespace, "podcertificaterequests"
    )


def _key_and_proof(key_type: str) -> tuple[bytes, bytes]:
    """A new key as PKCS #8 PEM, and a request that proves that it is ours, as DER."""
    key: Any
    algorithm: _Hash | None = _HASHES.get(key_type, hashes.SHA256)()
    if key_type in _RSA_BITS:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[key_type])
    elif key_type in _CURVES:
        key = ec.generate_private_key(_CURVES[key_type]())
    else:
        key, algorithm = ed25519.Ed25519PrivateKey.generate(), None
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    proof = request.sign(key, algorithm).public_bytes(serialization.Encoding.DER)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, proof
