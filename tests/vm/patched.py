"""A kernel that does something else from the first instruction of one of its functions on: it hangs, or it faults.

So real kernels that cannot boot come of the one that all tests share, without a compiler.
"""

from __future__ import annotations

import struct
from pathlib import Path

from swiftlet.image.kernel.kept import Kernel

HANG = b"\xeb\xfe"
"""jmp to itself"""

FAULT = b"\x0f\x0b"
"""ud2"""

_LOAD = 1


def address_of(kernel: Kernel, function: str) -> int:
    """Where a function lies, by the kernel's System.map."""
    for line in Path(kernel.folder, "System.map").read_text().splitlines():
        value, kind, name = line.split()
        if name == function and kind in "tT":
            return int(value, 16)
    raise LookupError(function)


def patched(kernel: Kernel, function: str, code: bytes) -> bytes:
    """The kernel's image with other code at the beginning of a function."""
    image = bytearray(Path(kernel.vmlinux).read_bytes())
    address = address_of(kernel, function)
    (first,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for place in range(first, first + size * count, size):
        kind, _, offset, virtual, _, length = struct.unpack_from("<IIQQQQ", image, place)
        if kind == _LOAD and virtual <= address < virtual + length:
            at = offset + address - virtual
            image[at : at + len(code)] = code
            return bytes(image)
    raise LookupError(f"{function} is in no segment")
