"""Pages: code that is not written to, data that is not executed, and nothing below a stack. Intel SDM 3, 4.5.

Everything lies where it lies: addresses are physical ones. The first 2 MiB blocks that the image touches are mapped by
pages of 4 KiB, the rest by blocks; a block becomes pages when a guard is put into it.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import memory
from swiftlet.unikernel.metal.words import Struct, load_page_tables, many, place, symbol, u64

PRESENT, WRITABLE, UNCACHED, LARGE = 1, 2, 0x10, 0x80
NOT_EXECUTED = 1 << 63
ADDRESS = 0x000FFFFFFFFFF000
BLOCK = 2 << 20
GIBI = 1 << 30
DEVICES = 3 << 30
"""From here to 4 GiB there are devices."""

FOUR_GIB = 4 << 30


class Root(Struct):
    """The PML4's address."""

    tables: u64
    levels: u64


root = place(Root)


def begin() -> None:
    """Map all memory and the devices below 4 GiB, and use it."""
    root.tables = memory.take(memory.PAGE, memory.PAGE)
    at = 0
    end = memory.heap.top if memory.heap.top > FOUR_GIB else FOUR_GIB
    while at < end:
        flags = PRESENT | WRITABLE | LARGE | NOT_EXECUTED
        if at >= DEVICES and at < FOUR_GIB:
            flags = flags | UNCACHED
        entries = many(u64, directory(at))
        entries[at >> 21 & 511] = at | flags
        at += BLOCK
        if at >= memory.heap.top and at < DEVICES:
            at = DEVICES
    protect(0, 1, 0)
    protect(0x8000, 0x9000, PRESENT | WRITABLE)
    protect(symbol("image_text"), symbol("image_text_end"), PRESENT)
    protect(symbol("image_rodata"), symbol("image_rodata_end"), PRESENT | NOT_EXECUTED)
    load_page_tables(root.tables)


def directory(at: u64) -> u64:
    """The page directory for an address, made where it is missing."""
    return below(below(root.tables, at >> 39 & 511), at >> 30 & 511)


def below(table: u64, index: u64) -> u64:
    """The table that an entry leads to, made where it is missing."""
    entries = many(u64, table)
    if entries[index] & PRESENT == 0:
        entries[index] = memory.take(memory.PAGE, memory.PAGE) | PRESENT | WRITABLE
    return entries[index] & ADDRESS


def pages(at: u64) -> u64:
    """The page table for an address; what was a block becomes one."""
    entries = many(u64, directory(at))
    index = at >> 21 & 511
    if entries[index] & LARGE:
        block = entries[index] & ~LARGE
        table = memory.take(memory.PAGE, memory.PAGE)
        ours = many(u64, table)
        for i in range(512):
            ours[i] = block + (i << 12)
        entries[index] = table | PRESENT | WRITABLE
    return entries[index] & ADDRESS


def protect(start: u64, end: u64, flags: u64) -> None:
    """Give the pages of a range these flags; 0 takes them away."""
    at = start & ~4095
    while at < end:
        entries = many(u64, pages(at))
        entries[at >> 12 & 511] = at | flags if flags else 0
        at += 4096


def map_device(start: u64, size: u64) -> None:
    """Map a device's registers, wherever they lie: a firmware may put them above 4 GiB."""
    at = start & ~(BLOCK - 1)
    while at < start + size:
        entries = many(u64, directory(at))
        entries[at >> 21 & 511] = at | PRESENT | WRITABLE | LARGE | NOT_EXECUTED | UNCACHED
        at += BLOCK
    load_page_tables(root.tables)


def guard(at: u64) -> None:
    """Let nobody touch a page."""
    protect(at, at + 1, 0)
    load_page_tables(root.tables)
