"""Merging our context into a kubeconfig that holds others."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap import identities, pki
from bootstrap.kubeconfig import kubeconfig, merged, read_kubeconfig, write_kubeconfig
from bootstrap.pki import Pki
from hpk.model.errors import ParseError

OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "site", "cluster": {"server": "https://site"}}],
    "users": [{"name": "me", "user": {}}],
    "contexts": [{"name": "site", "context": {"cluster": "site", "user": "me"}}],
    "current-context": "site",
    "preferences": {"colors": True},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(root=tmp_path_factory.mktemp("pki"))
    leaves = identities.leaves(
        address="10.0.0.1", hostname="h", service_cidr="100.73.0.0/16", cluster_domain="c.l"
    )
    pki.ensure(made, leaves)
    return made


def test_others_are_left_alone(made: Pki) -> None:
    ours = kubeconfig(made, "admin", server="https://10.0.0.1:1", cluster="hpk")
    result = merged(OTHER, ours)
    assert result["current-context"] == "site"
    assert result["preferences"] == {"colors": True}
    assert [entry["name"] for entry in result["clusters"]] == ["site", "hpk"]
    assert merged(result, ours) == result


def test_an_older_entry_of_ours_is_replaced(made: Pki) -> None:
    old = kubeconfig(made, "admin", server="https://10.0.0.1:1", cluster="hpk")
    new = kubeconfig(made, "admin", server="https://10.0.0.9:2", cluster="hpk")
    result = merged(merged(OTHER, old), new)
    servers = [entry["cluster"]["server"] for entry in result["clusters"]]
    assert servers == ["https://site", "https://10.0.0.9:2"]


def test_into_an_empty_file_ours_becomes_current(made: Pki, tmp_path: Path) -> None:
    ours = kubeconfig(made, "admin", server="https://10.0.0.1:1", cluster="hpk")
    target = tmp_path / "config"
    write_kubeconfig(target, merged(read_kubeconfig(target), ours))
    assert read_kubeconfig(target) == ours
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["a: [", "- 1", "text", "\x00"])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ParseError, match="config"):
        read_kubeconfig(tmp_path / "config")
