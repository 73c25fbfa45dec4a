"""What a processor has of its own: its structure, found by GS, its stacks, and tables that say where those are."""

from __future__ import annotations

from swiftlet.unikernel.kernel import memory
from swiftlet.unikernel.kernel.paging import guard
from swiftlet.unikernel.metal.words import (
    Packed,
    Shared,
    address,
    array,
    at,
    external,
    gs,
    place,
    size_of,
    u16,
    u32,
    u64,
    write_msr,
)

GS_BASE = 0xC0000101
"""IA32_GS_BASE (Intel SDM 4, 2.1)."""

MOST = 512
"""What `service.Told` has room for, too."""

STACK = 64 << 10
"""Bytes of a processor's stack, on which its tasks run."""

FAULT_STACK = 8 << 10

CODE, DATA, TASK_STATE = 8, 16, 32
"""Selectors."""


class TaskState(Packed):
    """Intel SDM 3, 8.7: the 64-bit task state segment."""

    reserved: u32
    stacks = array(u64, 3)
    reserved_too: u64
    faults: u64
    others = array(u64, 6)
    reserved_again: u64
    end: u16
    map: u16


class Pointer(Packed):
    """What lgdt and lidt read."""

    limit: u16
    base: u64


class Processor(Shared):
    """A processor. `boot.S` knows the places of the first three fields.

    parked: it sleeps. monitors: a write to `parked` wakes it. core, rank: which of a core's siblings (`placement`).
    """

    me: u64
    resume: u64
    stack: u64
    index: u64
    apic: u64
    parked: u64
    online: u64
    task: u64
    job: u64
    tasks: u64
    cycles: u64
    errors: u64
    wakeups: u64
    idle_from: u64
    idle: u64
    arena: u64
    arena_size: u64
    random: u64
    deadline: u64
    interrupts: u64
    fault_code: u64
    monitors: u64
    core: u64
    rank: u64
    tables = array(u64, 6)
    pointers = array(Pointer, 2)
    state = place(TaskState)


class Everyone(Shared):
    """count: processors that were told of. online: that have come."""

    count: u64
    online: u64
    list = array(u64, MOST)


everyone = place(Everyone)


@external
def load_tables(gdtr: u64, idtr: u64, selector: u64) -> None: ...


def mine() -> Processor:
    """This processor's structure."""
    return at(Processor, gs(0))


def of(index: u64) -> Processor:
    """A processor by its dense number."""
    return at(Processor, everyone.list[index])


def add(apic: u64) -> Processor:
    """Make what one more processor has of its own."""
    made = at(Processor, memory.take((size_of(Processor) + 63) & ~63, 64))
    made.me = address(made)
    made.index = everyone.count
    made.apic = apic
    made.stack = guarded(STACK)
    made.state.faults = guarded(FAULT_STACK)
    made.state.map = size_of(TaskState)
    base = address(made.state)
    made.tables[1] = 0x00AF9A000000FFFF  # as `boot_gdt` has them
    made.tables[2] = 0x00CF92000000FFFF
    limit = size_of(TaskState) - 1
    made.tables[4] = limit | (base & 0xFFFFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56
    made.tables[5] = base >> 32
    everyone.list[everyone.count] = made.me
    everyone.count += 1
    return made


def guarded(size: u64) -> u64:
    """The top of a stack below which lies a page that nobody may touch."""
    bottom = memory.take(size + memory.PAGE, memory.PAGE)
    guard(bottom)
    return bottom + memory.PAGE + size


def load(processor: Processor, idt: u64) -> None:
    """Make a structure this processor's own."""
    first = processor.pointers[0]
    first.limit = size_of(u64) * 6 - 1
    first.base = address(processor.tables)
    second = processor.pointers[1]
    second.limit = 64 * 16 - 1
    second.base = idt
    load_tables(address(first), address(second), TASK_STATE)
    write_msr(GS_BASE, processor.me)
