"""Memory: what the loader says there is, given out from below and never taken back."""

from __future__ import annotations

from swiftlet.unikernel.kernel import console
from swiftlet.unikernel.metal.words import (
    Struct,
    external,
    many,
    place,
    symbol,
    text,
    u8,
    u32,
    u64,
)

PAGE = 4096
START_MAGIC = 0x336EC578
"""PVH: hvm_start_info.magic."""

RAM = 1
LARGEST = 64


class StartInfo(Struct):
    """PVH: struct hvm_start_info, version 1."""

    magic: u32
    version: u32
    flags: u32
    modules: u32
    module_list: u64
    command_line: u64
    acpi: u64
    map: u64
    map_entries: u32
    reserved: u32


class MapEntry(Struct):
    """PVH: struct hvm_memmap_table_entry. kind: as the E820 map has it, 1 for memory."""

    address: u64
    size: u64
    kind: u32
    reserved: u32


class Heap(Struct):
    """next: the first byte that nobody has. end: of the part that is given out. top: behind the highest memory."""

    next: u64
    end: u64
    top: u64
    bytes: u64


heap = place(Heap)


@external
def reset() -> None: ...


def begin(info: StartInfo) -> None:
    """Find the memory behind the image."""
    image_end = (symbol("image_bss_end") + PAGE - 1) & ~(PAGE - 1)
    entries = many(MapEntry, info.map)
    for i in range(info.map_entries):
        entry = entries[i]
        if entry.kind == RAM:
            end = entry.address + entry.size
            heap.bytes += entry.size
            if end > heap.top:
                heap.top = end
            if entry.address <= image_end and image_end < end:
                heap.next = image_end
                heap.end = end
    if info.magic != START_MAGIC or heap.end == 0:
        console.say(text("swiftlet: the loader says nothing of memory\n"))
        reset()


def left() -> u64:
    """Bytes that nobody has."""
    return heap.end - heap.next


def take(size: u64, alignment: u64) -> u64:
    """So many bytes of zeros. Stops the machine where there are too few."""
    start = (heap.next + alignment - 1) & ~(alignment - 1)
    if start + size > heap.end:
        too_little()
    heap.next = start + size
    clear(start, size)
    return start


def too_little() -> None:
    """Say that there is too little memory, and end the machine."""
    console.say(text("swiftlet: out of memory: this machine has "))
    console.say_number(heap.bytes >> 10)
    console.say(text(" KiB, too little for its processors and buffers; give it more: -m\n"))
    reset()


def clear(start: u64, size: u64) -> None:
    """Write zeros, to a multiple of eight bytes."""
    words = many(u64, start)
    for i in range((size + 7) >> 3):
        words[i] = 0


def copy(target: u64, source: u64, count: u64) -> None:
    """Copy bytes, from the first to the last."""
    to = many(u64, target)
    of = many(u64, source)
    words = count >> 3
    for i in range(words):
        to[i] = of[i]
    to_bytes = many(u8, target)
    of_bytes = many(u8, source)
    for i in range(words << 3, count):
        to_bytes[i] = of_bytes[i]
