"""Ports, addresses and the place for etcd's data, on this very host."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from bootstrap import host
from bootstrap.host import choose_ports, find_address, is_free, probe_data_directory
from hpk.model.errors import PermanentError


def test_ports_are_kept(tmp_path: Path) -> None:
    first = choose_ports(tmp_path / "ports.json", "127.0.0.1")
    assert choose_ports(tmp_path / "ports.json", "127.0.0.1") == first
    numbers = [getattr(first, name) for name in first.__dataclass_fields__]
    assert len(set(numbers)) == len(numbers)


def test_only_the_port_a_stranger_took_is_chosen_anew(tmp_path: Path) -> None:
    before = choose_ports(tmp_path / "ports.json", "127.0.0.1")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", before.kubelet))
        stranger.listen()
        assert not is_free("127.0.0.1", before.kubelet)
        after = choose_ports(tmp_path / "ports.json", "127.0.0.1")
    changed = {
        name
        for name in before.__dataclass_fields__
        if getattr(before, name) != getattr(after, name)
    }
    assert changed == {"kubelet"}
    assert json.loads((tmp_path / "ports.json").read_text())["kubelet"] == after.kubelet


@pytest.mark.parametrize("text", ["", "[]", "{", '{"api": "x", "etcd": -1, "dns": 70000}'])
def test_a_file_that_holds_no_ports_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    ports = choose_ports(tmp_path / "ports.json", "127.0.0.1")
    assert 0 < ports.api < 65536


def test_two_ports_are_never_the_same(tmp_path: Path) -> None:
    names = list(host.Ports.__dataclass_fields__)
    (tmp_path / "ports.json").write_text(json.dumps(dict.fromkeys(names, 20001)))
    ports = choose_ports(tmp_path / "ports.json", "127.0.0.1")
    assert len({getattr(ports, name) for name in names}) == len(names)


def test_a_configured_address_must_be_this_hosts() -> None:
    assert find_address("127.0.0.1") == "127.0.0.1"
    with pytest.raises(PermanentError, match=r"203\.0\.113\.7.*config\.toml"):
        find_address("203.0.113.7")


def test_a_good_directory_passes_and_keeps_nothing(tmp_path: Path) -> None:
    probe_data_directory(tmp_path / "etcd")
    assert list((tmp_path / "etcd").iterdir()) == []


def test_a_file_system_without_mmap_is_refused() -> None:
    with pytest.raises((PermanentError, OSError)):
        probe_data_directory(Path("/proc/self/etcd"))
