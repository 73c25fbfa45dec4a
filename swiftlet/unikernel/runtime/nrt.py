"""What Numba's code calls for arrays and lists: its run time's functions, by their names, over a task's arena.

A MemInfo (numba/core/runtime/nrt.h, of Numba 0.68) lies in a block's header, and its data behind it; a list's data is
a block of its own, since it grows. No count is atomic: a task's memory is one processor's.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Struct, at, call, export, many, u64
from swiftlet.unikernel.runtime.arena import give_back, room_of, take
from swiftlet.unikernel.runtime.blocks import UNIT


class MemInfo(Struct):
    """count: of references. destructor: called with data, size and info before it is freed; 0 for none."""

    count: u64
    destructor: u64
    info: u64
    data: u64
    size: u64
    allocator: u64


def made(size: u64, destructor: u64) -> u64:
    """A MemInfo with its data behind it; 0 where there is no room."""
    block = take(size)
    if block == 0:
        return 0
    info = at(MemInfo, block)
    info.count = 1
    info.destructor = destructor
    info.info = 0
    info.data = block + UNIT
    info.size = size
    info.allocator = 0
    return block


@export
def NRT_MemInfo_alloc(size: u64) -> u64:
    return made(size, 0)


@export
def NRT_MemInfo_alloc_safe(size: u64) -> u64:
    return made(size, 0)


@export
def NRT_MemInfo_alloc_aligned(size: u64, alignment: u64) -> u64:
    return made(size, 0)


@export
def NRT_MemInfo_alloc_safe_aligned(size: u64, alignment: u64) -> u64:
    return made(size, 0)


@export
def NRT_MemInfo_alloc_dtor(size: u64, destructor: u64) -> u64:
    return made(size, destructor)


@export
def NRT_MemInfo_alloc_dtor_safe(size: u64, destructor: u64) -> u64:
    return made(size, destructor)


@export
def NRT_MemInfo_new_varsize(size: u64) -> u64:
    return NRT_MemInfo_new_varsize_dtor(size, 0)


@export
def NRT_MemInfo_new_varsize_dtor(size: u64, destructor: u64) -> u64:
    """A MemInfo whose data may move."""
    data = take(size)
    if data == 0:
        return 0
    block = made(0, destructor)
    if block == 0:
        give_back(data)
        return 0
    at(MemInfo, block).data = data + UNIT
    at(MemInfo, block).size = size
    return block


@export
def NRT_MemInfo_varsize_alloc(place: u64, size: u64) -> u64:
    """New data for one whose old data somebody else has freed."""
    info = at(MemInfo, place)
    data = take(size)
    info.data = data + UNIT if data else 0
    info.size = size
    return info.data


@export
def NRT_MemInfo_varsize_realloc(place: u64, size: u64) -> u64:
    """Make the data larger or smaller; 0 where there is no room, and then it is as before."""
    info = at(MemInfo, place)
    old = info.data - UNIT
    if size > room_of(old):
        data = take(size)
        if data == 0:
            return 0
        words = many(u64, data + UNIT)
        before = many(u64, info.data)
        for i in range((info.size + 7) >> 3):
            words[i] = before[i]
        give_back(old)
        info.data = data + UNIT
    info.size = size
    return info.data


@export
def NRT_MemInfo_varsize_free(place: u64, data: u64) -> None:
    """Free data; the MemInfo stays."""
    give_back(data - UNIT)
    info = at(MemInfo, place)
    if info.data == data:
        info.data = 0


@export
def NRT_MemInfo_call_dtor(place: u64) -> None:
    """Nobody refers to it any more."""
    info = at(MemInfo, place)
    if info.destructor:
        call(info.destructor, info.data, info.size, info.info)
    if info.data and info.data != place + UNIT:
        give_back(info.data - UNIT)
    give_back(place)


@export
def NRT_MemInfo_data_fast(place: u64) -> u64:
    return at(MemInfo, place).data


@export
def NRT_Allocate(size: u64) -> u64:
    block = take(size)
    return block + UNIT if block else 0


@export
def NRT_Free(data: u64) -> None:
    if data:
        give_back(data - UNIT)
