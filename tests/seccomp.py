"""A filter of system calls, run as the kernel would."""

from __future__ import annotations

import struct


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would make of a system call: the few instructions that are used."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, operand = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x05:
            at += operand
        elif operation == 0x15:
            at += if_true if accumulator == operand else if_false
        elif operation == 0x25:
            at += if_true if accumulator > operand else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= operand else if_false
        elif operation == 0x06:
            return int(operand)
        else:
            raise AssertionError(operation)
