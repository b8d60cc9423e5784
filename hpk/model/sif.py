"""Where the root file system, and data beside it, lie in a SIF file. Pure.

Source: the SIF specification, version 1 (github.com/apptainer/sif, pkg/sif: header and
rawDescriptor): all little-endian, nothing aligned.
"""

from __future__ import annotations

import struct
from typing import Optional

from hpk.model.errors import ParseError
from hpk.model.frozen import dataclass

HEADER_BYTES = 128
_MAGIC = b"SIF_MAGIC\0"
_MAGIC_AT = 32
# descriptors free, descriptors total, offset and size of the descriptors
_TABLE = struct.Struct("<qqqq")
_TABLE_AT = 80
# data type, used, id, group id, linked id, offset, size
_DESCRIPTOR = struct.Struct("<iBIIIqq")
_DESCRIPTOR_BYTES = 585
_EXTRA_AT = 201
_EXTRA = struct.Struct("<ii")
_NAME_AT = 73
_NAME_BYTES = 128
_PARTITION = 0x4004
_GENERIC_JSON = 0x4006
_SQUASHFS = 1
_PRIMARY_SYSTEM = 2


@dataclass(frozen=True)
class DescriptorTable:
    """Where the descriptors lie, in bytes."""

    offset: int
    size: int


def parse_header(header: bytes) -> DescriptorTable:
    """The table's place, from the file's first HEADER_BYTES.

    :raises ParseError: this is no SIF file.
    """
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC, _MAGIC_AT):
        raise ParseError("not a SIF file")
    _free, total, offset, size = _TABLE.unpack_from(header, _TABLE_AT)
    if not (0 <= total <= 10_000 and offset >= HEADER_BYTES and size >= 0):
        raise ParseError("a SIF file with a damaged header")
    return DescriptorTable(offset=offset, size=min(size, total * _DESCRIPTOR_BYTES))


def primary_squashfs_offset(table: bytes) -> int:
    """Where the primary system partition begins, in bytes, from the table's bytes.

    :raises ParseError: there is no such partition, or it is no squashfs.
    """
    for at in range(0, len(table) - _DESCRIPTOR_BYTES + 1, _DESCRIPTOR_BYTES):
        kind, used, _id, _group, _link, offset, _size = _DESCRIPTOR.unpack_from(table, at)
        if not used or kind != _PARTITION:
            continue
        file_system, partition = _EXTRA.unpack_from(table, at + _EXTRA_AT)
        if partition != _PRIMARY_SYSTEM:
            continue
        if file_system != _SQUASHFS or offset <= 0:
            raise ParseError("the SIF file's root file system is no squashfs")
        return int(offset)
    raise ParseError("the SIF file holds no root file system")


def data_object(table: bytes, name: str) -> Optional[tuple[int, int]]:
    """Offset and size, in bytes, of the JSON object of this name; None where there is none."""
    for at in range(0, len(table) - _DESCRIPTOR_BYTES + 1, _DESCRIPTOR_BYTES):
        kind, used, _id, _group, _link, offset, size = _DESCRIPTOR.unpack_from(table, at)
        if not used or kind != _GENERIC_JSON or offset <= 0 or size < 0:
            continue
        text = table[at + _NAME_AT : at + _NAME_AT + _NAME_BYTES].split(b"\0")[0]
        if text == name.encode():
            return int(offset), int(size)
    return None
