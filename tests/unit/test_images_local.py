"""Images given as a path: SIF files and sandbox directories."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hpk.images.errors import ERR_IMAGE_PULL, INVALID_IMAGE_NAME, ImageError
from hpk.images.local import is_local, look
from hpk.model.sif import data_object

DESCRIPTOR = struct.Struct("<iBIIIqq5q128s384s")
TABLE_AT = 128


def descriptor(kind: int, offset: int, size: int, name: bytes = b"", extra: bytes = b"") -> bytes:
    return DESCRIPTOR.pack(kind, 1, 1, 1, 0, offset, size, size, 0, 0, 0, 0, name, extra)


def write_sif(path: Path, config: bytes | None, *, squashfs: int = 1) -> Path:
    data_at = TABLE_AT + 2 * DESCRIPTOR.size
    root = descriptor(0x4004, data_at, 4, extra=struct.pack("<ii", squashfs, 2))
    data = b"hsqs"
    table = root
    if config is not None:
        table += descriptor(0x4006, data_at + 4, len(config), b"oci-config.json")
        data += config
    header = bytearray(TABLE_AT)
    header[32:42] = b"SIF_MAGIC\0"
    struct.pack_into("<qqqq", header, 80, 0, len(table) // DESCRIPTOR.size, TABLE_AT, len(table))
    path.write_bytes(bytes(header) + table.ljust(data_at - TABLE_AT, b"\0") + data)
    return path


def test_only_absolute_paths_are_files() -> None:
    assert is_local("/images/app.sif")
    assert not is_local("images/app.sif")
    assert not is_local("./app.sif")


def test_a_file_brings_the_configuration_it_was_pulled_with(tmp_path: Path) -> None:
    config = b'{"Entrypoint":["/tell"],"Cmd":["a b"],"Env":["X=1=2"],"User":"7:8"}'
    path = write_sif(tmp_path / "an image, 'so to say':x.sif", config)
    image = look(str(path))
    assert image.config.entrypoint == ("/tell",)
    assert image.config.cmd == ("a b",)
    assert image.config.env == (("X", "1=2"),)
    assert image.config.user == "7:8"
    assert not image.is_directory
    assert image.path == str(path)


def test_a_file_without_one_has_an_empty_configuration(tmp_path: Path) -> None:
    assert look(str(write_sif(tmp_path / "a.sif", None))).config.entrypoint == ()


def test_the_image_id_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sif"
    before = look(str(write_sif(path, None))).image_id
    assert before.startswith(f"{path}@")
    after = look(str(write_sif(path, b"{}"))).image_id
    assert before != after


def test_a_sandbox_runs_its_runscript(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert look(f"{tmp_path}/").config.entrypoint == ()
    script = tmp_path / ".singularity.d/runscript"
    script.parent.mkdir()
    script.touch(mode=0o755)
    image = look(f"{tmp_path}/")
    assert image.config.entrypoint == ("/.singularity.d/runscript",)
    assert image.is_directory
    assert image.path == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.sif", ERR_IMAGE_PULL),
        ("text.sif", INVALID_IMAGE_NAME),
        ("encrypted.sif", INVALID_IMAGE_NAME),
        ("bad-config.sif", INVALID_IMAGE_NAME),
        ("empty", INVALID_IMAGE_NAME),
        ("../x.sif", INVALID_IMAGE_NAME),
        ("socket", INVALID_IMAGE_NAME),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "text.sif").write_text("no image")
    write_sif(tmp_path / "encrypted.sif", None, squashfs=4)
    write_sif(tmp_path / "bad-config.sif", b'{"Cmd":"x"}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "socket").symlink_to("/dev/null")
    with pytest.raises(ImageError, match=name) as raised:
        look(f"{tmp_path}/{name}")
    assert raised.value.reason == reason


def test_a_damaged_table_names_nothing() -> None:
    assert data_object(b"\xff" * 585 * 3, "oci-config.json") is None
    assert data_object(b"", "oci-config.json") is None
