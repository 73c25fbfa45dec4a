"""A task's memory: blocks of 64 bytes and more, from one region that is empty again before the next task.

A block is rounded up to a size of its class, and a freed one is the next of that class: both take a few instructions,
and no task can leave anything behind for another one. Who runs tasks provides `arena`, the address of the running
task's own.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    address,
    at,
    export,
    external,
    leading_zeros,
    many,
    size_of,
    u64,
)
from swiftlet.unikernel.runtime.blocks import CLASS, CLASSES, SMALL, UNIT, Arena


@external
def arena() -> u64:
    raise NotImplementedError


@export
def arena_begin(place: u64, size: u64) -> None:
    """Make an arena of a region. Both are multiples of 64."""
    made = at(Arena, place)
    made.next = place + (size_of(Arena) + UNIT - 1 & ~(UNIT - 1))
    made.end = place + size
    for i in range(CLASSES):
        made.free[i] = 0


def class_of(units: u64) -> u64:
    """The class of blocks of so many units or, just, more."""
    if units <= SMALL:
        return units
    shift = 61 - leading_zeros(units - 1)
    return SMALL + (shift << 2) + (units - 1 >> shift) - 3


def units_of(class_: u64) -> u64:
    """Units of a class's blocks."""
    if class_ <= SMALL:
        return class_
    above = class_ - SMALL - 1
    return (above & 3) + 5 << (above >> 2)


def take(size: u64) -> u64:
    """A block for so many bytes; its header's address, 0 where there is no room."""
    if size >> 48:
        return 0
    class_ = class_of((size + UNIT - 1) // UNIT + 1)
    own = at(Arena, arena())
    block = own.free[class_]
    if block:
        own.free[class_] = many(u64, block)[0]
    else:
        length = units_of(class_) * UNIT
        block = own.next
        if length > own.end - block:
            return 0
        own.next = block + length
        own.used = own.next - address(own)
    many(u64, block)[CLASS] = class_
    return block


def give_back(block: u64) -> None:
    """Free a block by its header's address."""
    own = at(Arena, arena())
    words = many(u64, block)
    class_ = words[CLASS]
    words[0] = own.free[class_]
    own.free[class_] = block


def room_of(block: u64) -> u64:
    """Bytes that a block holds."""
    return (units_of(many(u64, block)[CLASS]) - 1) * UNIT
