"""GRUB for BIOS without its installer: two files of grub-pc-bin, changed where the installer changes them. Pure.

The first sector (boot.img) loads the first of core.img, which holds a list of where the rest lies. Offsets are those of
GRUB 2.06's include/grub/i386/pc/boot.h and util/setup.c; a file that does not look like that is refused.
"""

from __future__ import annotations

import struct

from swiftlet.image.disk.table import SECTOR
from swiftlet.model.error import HostError

FOLDER = "/usr/lib/grub/i386-pc"
"""Where Debian's grub-pc-bin has its parts."""

_KERNEL_SECTOR = 0x5C
_BOOT_DRIVE = 0x64
_DRIVE_CHECK = 0x66
CODE_BYTES = 440
"""Of the first sector; behind it come the disk's signature and the table."""

_FIRST_BLOCK = SECTOR - 12
_SEGMENT = 0x820
"""Where the rest of core.img is loaded (GRUB_BOOT_I386_PC_KERNEL_SEG + 0x20)."""

_HINT = "apt-get install --reinstall grub-pc-bin; 2.06 is what this is written for"


def boot_code(boot_image: bytes, core_sector: int) -> bytes:
    """The first 440 bytes of a disk whose core.img begins at a sector. Raises HostError for another boot.img."""
    if len(boot_image) != SECTOR or boot_image[-2:] != b"\x55\xaa" or boot_image[_DRIVE_CHECK] != 0xEB:
        raise HostError("boot.img is not GRUB's for a BIOS", _HINT)
    code = bytearray(boot_image[:CODE_BYTES])
    code[_KERNEL_SECTOR : _KERNEL_SECTOR + 8] = struct.pack("<Q", core_sector)
    code[_BOOT_DRIVE] = 0xFF  # the drive that the BIOS says it starts from
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"  # no jump around what helps where the BIOS says it wrongly
    return bytes(code)


def core(core_image: bytes, sector: int, room: int) -> bytes:
    """core.img as it lies on a disk from a sector on, in one piece. room: in sectors. Raises HostError."""
    needed = -(-len(core_image) // SECTOR)
    start, count, segment = struct.unpack_from("<QHH", core_image, _FIRST_BLOCK) if needed > 1 else (0, 0, 0)
    if (count, segment) != (needed - 1, _SEGMENT) or start not in (0, 1, 2):
        raise HostError("core.img is not as GRUB 2.06 makes it", _HINT)
    if needed > room:
        raise HostError(f"core.img takes {needed} sectors, and there are {room} for it", _HINT)
    placed = bytearray(core_image.ljust(needed * SECTOR, b"\0"))
    struct.pack_into("<Q", placed, _FIRST_BLOCK, sector + 1)
    return bytes(placed)


def modules(gpt: bool) -> tuple[str, ...]:
    """What core.img needs to read a kernel from a FAT partition and to start it."""
    return ("biosdisk", "part_gpt" if gpt else "part_msdos", "fat", "linux")


def prefix(number: int, gpt: bool) -> str:
    """The partition with the kernel, on whichever drive GRUB was itself started from."""
    return f"(,{'gpt' if gpt else 'msdos'}{number})/"


def configuration(kernel: str, words: str) -> str:
    """What GRUB does, without a menu: there is nothing to choose. No initrd, as in the MicroswiftOS paper (4.4)."""
    return f"linux {kernel} {words}\nboot\n"
