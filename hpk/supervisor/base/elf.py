"""Static programs of a few instructions, written without a compiler or anything of an image."""

from __future__ import annotations

import struct

_BASE = 0x400000
_HEADER_BYTES = 64 + 56
_NUMBERS = {"x86_64": 62, "aarch64": 183}


def static_elf(machine: str, code: bytes) -> bytes:
    """A program whose one segment is ``code``, entered at its first byte, not writable.

    :param machine: as os.uname names it.
    :raises KeyError: another machine than x86_64 or aarch64.
    """
    number = _NUMBERS[machine]
    size = _HEADER_BYTES + len(code)
    header = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADER_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code
