"""Certificates: what they say, when they are kept and when they are issued anew."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bootstrap import identities, pki
from bootstrap.pki import AUTHORITIES, Leaf, Pki, ensure
from hpk.model.errors import PermanentError

LEAVES = identities.leaves(
    address="10.1.2.3",
    hostname="login",
    service_cidr="100.73.0.0/16",
    cluster_domain="cluster.local",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    root = tmp_path_factory.mktemp("home") / "a b'c\"é$(x)"
    made = Pki(root=root)
    assert set(ensure(made, LEAVES)) == {leaf.name for leaf in LEAVES}
    return made


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _copy(made: Pki, tmp_path: Path) -> Pki:
    shutil.copytree(made.root, tmp_path / "pki")
    return Pki(root=tmp_path / "pki")


def test_every_file_is_private(made: Pki) -> None:
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700
    for path in made.root.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.name)
def test_a_certificate_says_what_it_must(made: Pki, leaf: Leaf) -> None:
    certificate = _load(made.certificate(leaf.name))
    for authority in AUTHORITIES:
        if authority == leaf.authority:
            certificate.verify_directly_issued_by(_load(made.authority(authority)))
        else:
            with pytest.raises(ValueError):
                certificate.verify_directly_issued_by(_load(made.authority(authority)))
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == [leaf.common_name]
    usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert (ExtendedKeyUsageOID.CLIENT_AUTH in usages) == leaf.client
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) == leaf.server
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = load_pem_private_key(made.key(leaf.name).read_bytes(), None)
    assert key.public_key() == certificate.public_key()


def test_the_api_servers_names(made: Pki) -> None:
    certificate = _load(made.certificate("kube-apiserver"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        ipaddress.ip_address(text) for text in ("10.1.2.3", "127.0.0.1", "100.73.0.1")
    }
    assert set(names.get_values_for_type(x509.DNSName)) >= {
        "login",
        "localhost",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    }


def test_only_the_user_is_a_master() -> None:
    masters = [leaf.name for leaf in LEAVES if "system:masters" in leaf.organizations]
    assert masters == ["admin"]


def test_nothing_is_issued_twice(made: Pki) -> None:
    before = {path: path.read_bytes() for path in made.root.iterdir()}
    assert ensure(made, LEAVES) == ()
    assert {path: path.read_bytes() for path in made.root.iterdir()} == before


def test_a_new_address_renews_servers_and_keeps_the_rest(made: Pki, tmp_path: Path) -> None:
    copy = _copy(made, tmp_path)
    moved = identities.leaves(
        address="10.9.9.9",
        hostname="n7",
        service_cidr="100.73.0.0/16",
        cluster_domain="cluster.local",
    )
    assert set(ensure(copy, moved)) == {"kube-apiserver", "kubelet", "channel"}
    for name in AUTHORITIES:
        assert copy.authority(name).read_bytes() == made.authority(name).read_bytes()
    assert copy.service_account_key.read_bytes() == made.service_account_key.read_bytes()


def test_a_certificate_near_its_end_is_renewed(
    made: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _copy(made, tmp_path)
    copy.certificate("admin").unlink()
    monkeypatch.setattr(pki, "_LEAF_DAYS", 59)
    assert ensure(copy, LEAVES) == ("admin",)
    monkeypatch.undo()
    assert ensure(copy, LEAVES) == ("admin",)
    left = _load(copy.certificate("admin")).not_valid_after_utc - datetime.datetime.now(
        datetime.UTC
    )
    assert left.days > 300


def test_a_certificate_of_another_authority_is_renewed(made: Pki, tmp_path: Path) -> None:
    copy = _copy(made, tmp_path)
    shutil.copy(copy.certificate("coredns"), copy.certificate("etcd"))
    shutil.copy(copy.key("coredns"), copy.key("etcd"))
    assert ensure(copy, LEAVES) == ("etcd",)


def test_a_key_that_does_not_fit_is_renewed(made: Pki, tmp_path: Path) -> None:
    copy = _copy(made, tmp_path)
    shutil.copy(copy.key("admin"), copy.key("kubelet"))
    assert ensure(copy, LEAVES) == ("kubelet",)


def test_a_damaged_file_is_named(made: Pki, tmp_path: Path) -> None:
    copy = _copy(made, tmp_path)
    copy.key("etcd").write_text("rubbish")
    with pytest.raises(PermanentError, match=r"etcd\.key is damaged"):
        ensure(copy, LEAVES)
