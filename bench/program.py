"""The smallest programs that can be timed: static x86-64 ELF files of some 130 bytes, put together here.

Every arm runs the same file, so nothing of a libc or a dynamic loader is in the figures, and no compiler is needed.
"""

from __future__ import annotations

import os
import struct

_BASE = 0x400000
_HEADERS = 64 + 56

EXIT_ZERO = bytes.fromhex("b83c000000 31ff 0f05")
"""mov eax, 60 (exit); xor edi, edi; syscall"""

WAIT_FOREVER = bytes.fromhex("b822000000 0f05 ebf7")
"""mov eax, 34 (pause); syscall; jmp to the start"""


def elf(code: bytes) -> bytes:
    """An executable with one read-and-execute segment that starts at `code` (elf(5), System V gABI chapter 4)."""
    size = _HEADERS + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def write_program(path: str, code: bytes) -> None:
    """Write an executable file with mode 0755."""
    with open(path, "wb") as file:
        file.write(elf(code))
    os.chmod(path, 0o755)
