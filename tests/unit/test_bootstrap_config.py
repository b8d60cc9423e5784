"""The two tables of config.toml that are the control plane's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.config import Config, load_config
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    return HpkPaths(home=tmp_path, cache=tmp_path)


def _site(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_without_files_there_are_defaults(paths: HpkPaths, tmp_path: Path) -> None:
    assert load_config(paths, site=tmp_path / "none") == Config()


def test_the_user_wins_key_by_key(paths: HpkPaths, tmp_path: Path) -> None:
    site = _site(
        tmp_path, '[control-plane]\naddress = "10.0.0.1"\norphan-timeout-s = 60\n[other]\nx = 1\n'
    )
    paths.config.write_text("[control-plane]\norphan-timeout-s = 90\n")
    config = load_config(paths, site=site).control_plane
    assert (config.address, config.orphan_timeout_s) == ("10.0.0.1", 90)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[control-plane]\nadress = '10.0.0.1'", "adress"),
        ("[control-plane]\naddress = 'login'", "address"),
        ("[control-plane]\nservice-cidr = '10.0.0.0/28'", "service-cidr"),
        ("[control-plane]\ncluster-name = 'a b'", "cluster-name"),
        ("[control-plane]\norphan-timeout-s = 0", "orphan-timeout-s"),
        ("[binaries]\nsources = ['pip']", "sources"),
        ("[binaries", "config.toml"),
    ],
)
def test_what_is_wrong_is_named(paths: HpkPaths, tmp_path: Path, text: str, named: str) -> None:
    paths.config.write_text(text)
    with pytest.raises(PermanentError, match=named):
        load_config(paths, site=tmp_path / "none")
