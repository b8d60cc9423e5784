"""Keys and certificates of one control plane, made once and kept in ``$HPK_HOME/pki``.

Four authorities that do not vouch for each other: ``api`` (API server, its clients, the kubelet
API), ``etcd``, ``front-proxy`` (aggregated APIs) and ``channel`` (what pod supervisors dial).
Authorities are kept for ever; a certificate is issued anew when what it must say has changed (the
host moved) or when its end is near. Private keys never leave their 0600 files.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hpk.durable import private_directory, write_atomically
from hpk.model.errors import PermanentError

AUTHORITIES = ("api", "etcd", "front-proxy", "channel")

_AUTHORITY_DAYS = 3650
_LEAF_DAYS = 365
_RENEW_BEFORE_DAYS = 60
_BACKDATED = datetime.timedelta(hours=1)  # clocks of a cluster's nodes differ a little


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What a certificate must say.

    :param name: of its files, ``NAME.crt`` and ``NAME.key``.
    :param authority: one of AUTHORITIES.
    :param common_name: Kubernetes' user name, for clients.
    :param organizations: Kubernetes' groups, for clients.
    :param sans: DNS names and IP addresses, for servers.
    """

    name: str
    authority: str
    common_name: str
    organizations: tuple[str, ...] = ()
    client: bool = False
    server: bool = False
    sans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """The paths of all keys and certificates."""

    root: Path

    def certificate(self, name: str) -> Path:
        """Path of a certificate, an authority's as ``NAME-ca``."""
        return self.root / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Path of a private key."""
        return self.root / f"{name}.key"

    def authority(self, name: str) -> Path:
        """Path of an authority's certificate."""
        return self.certificate(f"{name}-ca")

    @property
    def service_account_key(self) -> Path:
        """Signs service-account tokens."""
        return self.key("service-account")

    @property
    def service_account_public_key(self) -> Path:
        """Verifies service-account tokens."""
        return self.root / "service-account.pub"

    @property
    def encryption(self) -> Path:
        """The API server's EncryptionConfiguration, with the key of the Secrets in etcd."""
        return self.root / "encryption.json"


def ensure(pki: Pki, leaves: Iterable[Leaf]) -> tuple[str, ...]:
    """Make what is missing or no longer right.

    :returns: the names of the certificates that were issued.
    :raises PermanentError: a file is there and is not what it must be.
    """
    private_directory(pki.root)
    for name in AUTHORITIES:
        if not pki.authority(name).exists():
            _make_authority(pki, name)
    if not pki.service_account_public_key.exists():
        key = _write_new_key(pki.service_account_key)
        write_atomically(pki.service_account_public_key, _public_pem(key))
    issued = []
    for leaf in leaves:
        if not _is_right(pki, leaf):
            _issue(pki, leaf)
            issued.append(leaf.name)
    return tuple(issued)


def _is_right(pki: Pki, leaf: Leaf) -> bool:
    try:
        certificate = _load_certificate(pki.certificate(leaf.name))
        key = _load_key(pki.key(leaf.name))
    except FileNotFoundError:
        return False
    now = datetime.datetime.now(datetime.UTC)
    left = certificate.not_valid_after_utc - now
    try:
        certificate.verify_directly_issued_by(_load_certificate(pki.authority(leaf.authority)))
    except Exception:  # any way in which it is not: then it is issued anew
        return False
    return (
        left.days >= _RENEW_BEFORE_DAYS
        and key.public_key() == certificate.public_key()
        and certificate.subject == _subject(leaf)
        and _extension(certificate, x509.ExtendedKeyUsage) == _usages(leaf)
        and _extension(certificate, x509.SubjectAlternativeName) == _alternative_names(leaf)
    )


def _extension(
    certificate: x509.Certificate,
    kind: type[x509.ExtendedKeyUsage] | type[x509.SubjectAlternativeName],
) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(leaf: Leaf) -> x509.Name:
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in leaf.organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name),
        ]
    )


def _usages(leaf: Leaf) -> x509.ExtendedKeyUsage:
    usages = []
    if leaf.client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    if leaf.server:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    return x509.ExtendedKeyUsage(usages)


def _alternative_names(leaf: Leaf) -> x509.SubjectAlternativeName | None:
    names: list[x509.GeneralName] = []
    for san in leaf.sans:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(san)))
        except ValueError:
            names.append(x509.DNSName(san))
    return x509.SubjectAlternativeName(names) if names else None


def _issue(pki: Pki, leaf: Leaf) -> None:
    authority = _load_certificate(pki.authority(leaf.authority))
    authority_key = _load_key(pki.key(f"{leaf.authority}-ca"))
    key = _write_new_key(pki.key(leaf.name))
    builder = (
        _builder(_LEAF_DAYS)
        .subject_name(_subject(leaf))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(_usages(leaf), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    names = _alternative_names(leaf)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    _write_certificate(pki.certificate(leaf.name), builder.sign(authority_key, hashes.SHA256()))


def _make_authority(pki: Pki, name: str) -> None:
    key = _write_new_key(pki.key(f"{name}-ca"))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hpk-{name}-ca")])
    builder = (
        _builder(_AUTHORITY_DAYS)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write_certificate(pki.authority(name), builder.sign(key, hashes.SHA256()))


def _builder(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    # "EC PRIVATE KEY" (SEC 1) is what every reader of these files takes, Go's included.
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    write_atomically(path, pem)
    return key


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    write_atomically(path, certificate.public_bytes(serialization.Encoding.PEM))


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise _damaged(path) from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path)
    return key


def _damaged(path: Path) -> PermanentError:
    return PermanentError(
        f"{path} is damaged",
        remedy=f"stop the control plane and remove {path.parent}: all certificates are made anew",
    )
