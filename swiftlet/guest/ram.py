"""A running machine's memory, read from the host: the file that it is in, through the guest's own page tables.

Reading takes nothing of the guest's time. What is read may change meanwhile, and a guest can write into its tables what
it likes: all that follows from them is an offset, which is checked against the file's length.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

PAGE = 4096
_WORD = struct.Struct("<Q")
_PRESENT, _LARGE = 1, 1 << 7
_ADDRESS = 0x000F_FFFF_FFFF_F000
_FOUR_GIB = 1 << 32
_LEVELS_5 = 1 << 12
"""CR4.LA57."""


class Ram:
    """The memory of a machine. below: how much of it lies below 4 GiB, the rest begins there."""

    def __init__(self, fd: int, below: int) -> None:
        """fd: of the file, closed by its owner. Raises OSError."""
        self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        self._below = below

    def close(self) -> None:
        """Let go of it."""
        self._map.close()

    def physical(self, address: int, size: int) -> bytes:
        """Bytes at a physical address, fewer where the memory ends."""
        if address >= _FOUR_GIB:
            address = address - _FOUR_GIB + self._below
        elif address >= self._below:
            return b""
        return self._map[address : address + size]

    def place_of(self, address: int, table: int, cr4: int) -> int | None:
        """The physical address of a virtual one. table: physical address of the topmost page table, as in CR3."""
        levels = 5 if cr4 & _LEVELS_5 else 4
        table &= _ADDRESS
        for level in range(levels - 1, -1, -1):
            shift = 12 + 9 * level
            raw = self.physical(table + (address >> shift & 511) * 8, 8)
            entry = _WORD.unpack(raw)[0] if len(raw) == 8 else 0
            if not entry & _PRESENT:
                return None
            if not level or (level < 3 and entry & _LARGE):
                mask = (1 << shift) - 1
                return int(entry & _ADDRESS & ~mask | address & mask)
            table = entry & _ADDRESS
        return None

    def virtual(self, address: int, size: int, table: int, cr4: int) -> bytes:
        """Bytes at a virtual address, fewer where something is not mapped."""
        found = bytearray()
        while len(found) < size:
            place = self.place_of(address + len(found), table, cr4)
            if place is None:
                break
            piece = self.physical(place, min(size - len(found), PAGE - (place & PAGE - 1)))
            if not piece:
                break
            found += piece
        return bytes(found)


def below_4_gib(machine_type: str, memory: int) -> int:
    """How much of a machine's memory (bytes) QEMU 7.2 puts below 4 GiB (hw/i386/microvm.c, hw/i386/pc_q35.c)."""
    if machine_type == "microvm":
        return min(memory, 0xC000_0000)
    return 0x8000_0000 if memory >= 0xB000_0000 else memory


def memory_file(pid: int, size: int) -> int:
    """The file that is a machine's memory, as a descriptor for reading. size: bytes. Raises OSError.

    QEMU seals it. One that could be cut off would end with SIGBUS whoever reads it through a mapping.
    """
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if not os.readlink(f"{folder}/{name}").startswith("/memfd:memory-backend-memfd"):
                continue
            fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK and os.fstat(fd).st_size == size:
            return fd
        os.close(fd)
    raise FileNotFoundError(2, "the machine's memory is not to be found", folder)
