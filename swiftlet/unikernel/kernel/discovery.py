"""Which processors there are: by ACPI's MADT, else the MP table, else what QEMU's fw_cfg says."""

from __future__ import annotations

from swiftlet.unikernel.kernel import apic, processor
from swiftlet.unikernel.metal.words import Packed, array, at, in8, many, out16, size_of, u8, u16, u32, u64

RSD_SIGNATURE = 0x2052545020445352
"""`RSD PTR ` (ACPI 6.4, 5.2.5.3)."""

APIC_SIGNATURE = 0x43495041
MP_SIGNATURE = 0x5F504D5F
"""`_MP_` (MultiProcessor Specification 1.4, 4.1)."""

BIOS, BIOS_END = 0xE0000, 0x100000
BASE_END = 0x9FC00
"""Where QEMU's firmware may put the MP table besides: the last KiB of base memory."""

FW_CFG_SELECT, FW_CFG_DATA, FW_CFG_SIGNATURE, FW_CFG_CPUS = 0x510, 0x511, 0, 5
QEMU = 0x554D4551
"""QEMU, docs/specs/fw_cfg."""

LOCAL, IO, EXTENDED = 0, 1, 9
"""Entries of the MADT (ACPI 6.4, 5.2.12)."""


class RootPointer(Packed):
    """ACPI 6.4, 5.2.5.3."""

    signature: u64
    checksum: u8
    oem = array(u8, 6)
    revision: u8
    rsdt: u32
    length: u32
    xsdt: u64


class Header(Packed):
    """ACPI 6.4, 5.2.6."""

    signature: u32
    length: u32
    rest = array(u8, 28)


class Local(Packed):
    """A processor's interrupt controller."""

    kind: u8
    length: u8
    number: u8
    id: u8
    flags: u32


class Extended(Packed):
    """A processor's interrupt controller, of a number above 254."""

    kind: u8
    length: u8
    reserved: u16
    id: u32
    flags: u32


class IoController(Packed):
    """The devices' interrupt controller."""

    kind: u8
    length: u8
    id: u8
    reserved: u8
    address: u32


class MpPointer(Packed):
    """MultiProcessor Specification 1.4, 4.1."""

    signature: u32
    table: u32


class MpHeader(Packed):
    """MultiProcessor Specification 1.4, 4.2."""

    signature: u32
    length: u16
    revision: u8
    checksum: u8
    text = array(u8, 20)
    oem: u32
    oem_size: u16
    entries: u16
    local: u32
    extended: u32


def find_others(acpi: u64, me: u64) -> u64:
    """Add all processors but this one. Returns by what they were found: 1 MADT, 2 MP table, 3 fw_cfg."""
    if by_acpi(acpi if acpi else scan(RSD_SIGNATURE, BIOS, BIOS_END, 1), me):
        return 1
    found = scan(MP_SIGNATURE, BIOS, BIOS_END, 0)
    if found == 0:
        found = scan(MP_SIGNATURE, BASE_END, BASE_END + 1024, 0)
    told = by_mp(at(MpPointer, found).table, me) if found else 0
    if by_fw_cfg() == 0 and told:
        return 2
    return 3


def scan(signature: u64, start: u64, end: u64, wide: u64) -> u64:
    """Where a signature lies on a paragraph of the firmware's memory; 0 for nowhere."""
    place = start
    while place < end:
        if (wide and many(u64, place)[0] == signature) or (not wide and many(u32, place)[0] == signature):
            return place
        place += 16
    return 0


def by_acpi(pointer: u64, me: u64) -> u64:
    """Add what the MADT tells; whether there is one."""
    if pointer == 0:
        return 0
    root = at(RootPointer, pointer)
    wide = root.revision >= 2 and root.xsdt != 0
    table = root.xsdt if wide else root.rsdt
    size = 8 if wide else 4
    count = (at(Header, table).length - size_of(Header)) // size
    for i in range(count):
        place = table + size_of(Header) + i * size
        other = many(u64, place)[0] if wide else many(u32, place)[0]
        if at(Header, other).signature == APIC_SIGNATURE:
            by_madt(other, me)
            return 1
    return 0


def by_madt(table: u64, me: u64) -> None:
    """Add what a MADT tells."""
    place = table + size_of(Header) + 8
    end = table + at(Header, table).length
    while place < end:
        entry = at(Local, place)
        if entry.kind == LOCAL and entry.flags & 1:
            one_more(entry.id, me)
        elif entry.kind == EXTENDED and at(Extended, place).flags & 1 and at(Extended, place).id > 254:
            one_more(at(Extended, place).id, me)
        elif entry.kind == IO:
            apic.add_io(at(IoController, place).address)
        if entry.length == 0:
            return
        place += entry.length


def by_mp(table: u64, me: u64) -> u64:
    """Add what an MP table tells; whether there is one."""
    if table == 0:
        return 0
    header = at(MpHeader, table)
    place = table + size_of(MpHeader)
    for _ in range(header.entries):
        kind = many(u8, place)
        if kind[0] == 0:
            if kind[3] & 1:
                one_more(kind[1], me)
            place += 20
        else:
            place += 8
    return 1


def by_fw_cfg() -> u64:
    """Add as many as QEMU says beyond those that are known; returns how many.

    An MP table has only the first processor of each core. Which numbers the others have they say themselves.
    """
    out16(FW_CFG_SELECT, FW_CFG_SIGNATURE)
    for letter in range(4):
        if in8(FW_CFG_DATA) != QEMU >> (8 * letter) & 255:
            return 0
    out16(FW_CFG_SELECT, FW_CFG_CPUS)
    count = in8(FW_CFG_DATA)
    count = count | in8(FW_CFG_DATA) << 8
    added = 0
    while processor.everyone.count < count and processor.everyone.count < processor.MOST:
        processor.add(processor.everyone.count)
        added += 1
    return added


def one_more(id_: u64, me: u64) -> None:
    """Add a processor, unless it is this one."""
    if id_ != me and processor.everyone.count < processor.MOST:
        processor.add(id_)
