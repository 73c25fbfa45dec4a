"""Partition tables as bytes: GPT (UEFI specification 2.10, chapter 5) and the master boot record. Pure.

All places and lengths are in sectors of 512 bytes. What is written is a mapping from sector to bytes, so that whoever
writes it needs no more than a seek.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

SECTOR = 512

MIB = (1 << 20) // SECTOR
"""Sectors of a MiB, at multiples of which partitions begin."""

_ENTRIES, _ENTRY_BYTES = 128, 128
_TABLE_SECTORS = _ENTRIES * _ENTRY_BYTES // SECTOR

BACKUP_SECTORS = 1 + _TABLE_SECTORS
"""What GPT keeps for itself at the end of a disk."""

TYPES: Mapping[str, tuple[int, UUID]] = {
    "bios": (0x00, UUID("21686148-6449-6e6f-744e-656564454649")),
    "boot": (0x0C, UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")),
    "linux": (0x83, UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")),
}
"""What a partition is for -> its type in either table: GRUB's second part, FAT with the kernel, everything else."""

_ACTIVE, _PROTECTIVE = 0x80, 0xEE
_ANYWHERE = b"\xfe\xff\xff"
"""Cylinder, head and sector that nobody reads any more: the largest that can be said."""


class Partition(NamedTuple):
    """name: GPT's label. kind: of TYPES. start, sectors: of 512 bytes. id: GPT's PARTUUID."""

    name: str
    kind: str
    start: int
    sectors: int
    id: UUID


def mbr(partitions: Sequence[Partition], signature: int) -> bytes:
    """The last 72 bytes of the first sector: the disk's signature, four entries, the mark. Of GPT's see `gpt`.

    signature: 32 bits, not 0; with a partition's number it is the PARTUUID that Linux knows it by.
    """
    entries = b"".join(
        _mbr_entry(_ACTIVE if each.kind == "boot" else 0, TYPES[each.kind][0], each.start, each.sectors)
        for each in partitions
    )
    return struct.pack("<IH", signature, 0) + entries.ljust(64, b"\0") + b"\x55\xaa"


def _mbr_entry(flag: int, kind: int, start: int, sectors: int) -> bytes:
    return struct.pack("<B3sB3sII", flag, _ANYWHERE, kind, _ANYWHERE, start, min(sectors, 0xFFFFFFFF))


def protective(sectors: int) -> bytes:
    """The end of a GPT disk's first sector: one entry over the whole, so that old programs leave it alone."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", _PROTECTIVE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return struct.pack("<IH", 0, 0) + entry.ljust(64, b"\0") + b"\x55\xaa"


def gpt(partitions: Sequence[Partition], sectors: int, disk: UUID) -> dict[int, bytes]:
    """Sector -> bytes of both copies of the table on a disk of so many sectors, without the first sector."""
    table = b"".join(_gpt_entry(each) for each in partitions).ljust(_ENTRIES * _ENTRY_BYTES, b"\0")
    last = sectors - 1
    return {
        1: _gpt_header(1, last, 2, sectors, disk, table),
        2: table,
        last - _TABLE_SECTORS: table,
        last: _gpt_header(last, 1, last - _TABLE_SECTORS, sectors, disk, table),
    }


def _gpt_entry(partition: Partition) -> bytes:
    kind = TYPES[partition.kind][1]
    last = partition.start + partition.sectors - 1
    name = partition.name.encode("utf-16-le").ljust(72, b"\0")
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, partition.id.bytes_le, partition.start, last, 0, name)


def _gpt_header(own: int, other: int, table_at: int, sectors: int, disk: UUID, table: bytes) -> bytes:
    def header(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, checksum, 0, own, other,
            2 + _TABLE_SECTORS, sectors - 1 - BACKUP_SECTORS, disk.bytes_le, table_at, _ENTRIES, _ENTRY_BYTES,
            zlib.crc32(table),
        )  # fmt: skip

    return header(zlib.crc32(header(0))).ljust(SECTOR, b"\0")
