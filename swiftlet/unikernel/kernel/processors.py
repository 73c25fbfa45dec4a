"""Further processors: started all at once, and parked until there is work."""

from __future__ import annotations

from swiftlet.unikernel.kernel import apic, interrupt, job, memory, options, paging, processor
from swiftlet.unikernel.kernel.processor import Processor, everyone
from swiftlet.unikernel.metal.words import address, at, atomic_add, cpuid, export, many, pause, symbol, u64

PAGE_OF_START = 0x8000
"""Where further processors begin: the page that the start-up interrupt names."""

PATIENCE = 1 << 24
"""Turns of waiting for processors after which those that are missing are started once more."""


def start() -> None:
    """Start all others, and wait until they are parked."""
    others = everyone.count - 1
    if others == 0:
        return
    many(u64, symbol("further_tables"))[0] = paging.root.tables
    many(u64, symbol("further_processors"))[0] = address(everyone.list) + 8
    many(u64, symbol("further_count"))[0] = others
    memory.copy(PAGE_OF_START, symbol("trampoline"), symbol("trampoline_end") - symbol("trampoline"))
    apic.command(0, apic.INIT_OTHERS)
    apic.command(0, apic.START_OTHERS)
    turns = 0
    while everyone.online < others:
        pause()
        turns += 1
        if turns == PATIENCE:
            apic.command(0, apic.START_OTHERS)
            turns = 0


@export
def further_main(place: u64) -> None:
    """A further processor's life. place: of its structure."""
    me = at(Processor, place)
    processor.load(me, address(interrupt.gates))
    apic.enable()
    me.apic = apic.identity()
    me.monitors = can_monitor()
    me.online = 1
    count_in()
    while True:
        job.work(me)
        job.park(me)


def can_monitor() -> u64:
    """Whether a sleeping processor sees a write: MONITOR is there, and has a line (Intel SDM 2A, CPUID leaf 5).

    A machine that only knows the word for it, as QEMU's emulation does, has none, and would spin.
    """
    if cpuid(1, 0, 2) >> 3 & 1 == 0:
        return 0
    has_line = cpuid(0, 0, 0) >= 5 and cpuid(5, 0, 1) & 0xFFFF != 0
    return 1 if has_line or options.options.monitors else 0


def count_in() -> None:
    """One more has come."""
    atomic_add(many(u64, address(everyone)), 1, 1)
