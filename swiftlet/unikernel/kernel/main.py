"""The first processor's life: from the loader's word to serving."""

from __future__ import annotations

from swiftlet.unikernel.kernel import (
    apic,
    console,
    discovery,
    errand,
    features,
    interrupt,
    lease,
    memory,
    net,
    options,
    orders,
    paging,
    placement,
    power,
    processor,
    processors,
    service,
    virtio,
)
from swiftlet.unikernel.kernel.console import say
from swiftlet.unikernel.kernel.memory import StartInfo
from swiftlet.unikernel.kernel.orders import report
from swiftlet.unikernel.kernel.processor import everyone
from swiftlet.unikernel.metal.words import address, allow_interrupts, at, export, external, text, u64


@external
def switch_stack(stack: u64, function: u64, argument: u64) -> None: ...


RANDOM = 4096
"""Bytes of a processor's random numbers (`runtime.random`)."""
LEAST_ARENA = 64 << 10


def share_memory() -> None:
    """Half of the memory that is left is the processors', for their tasks; the rest is the jobs'."""
    each = (memory.left() // 2 // everyone.count) & ~4095
    if each < LEAST_ARENA or memory.left() < 2 * service.LEAST_DESKS:
        memory.too_little()
    for i in range(everyone.count):
        other = processor.of(i)
        other.random = memory.take(RANDOM, 4096)
        other.arena = memory.heap.next  # a task finds in it what the last one has left: numpy's empty does
        other.arena_size = each - RANDOM
        memory.heap.next += each - RANDOM


def give_up(info: StartInfo) -> None:
    """Say what the processor lacks, and end the machine."""
    console.say(text("swiftlet: "))
    features.complain(address(say))
    console.line()
    orders.begin(info.command_line)
    orders.report(text("failed "))
    features.complain(address(report))
    orders.report(text("\n"))
    power.off(features.UNFIT)


@export
def kmain(start: u64) -> None:
    """Where 64-bit code begins. start: of PVH's hvm_start_info."""
    info = at(StartInfo, start)
    if not features.is_fit():
        give_up(info)
    memory.begin(info)
    paging.begin()
    me = processor.add(0)
    interrupt.begin()
    processor.load(me, address(interrupt.gates))
    switch_stack(me.stack, address(live), start)


def live(start: u64) -> None:
    """On a stack of its own."""
    info = at(StartInfo, start)
    me = processor.mine()
    apic.begin()
    me.apic = apic.identity()
    console.say(text("swiftlet unikernel\n"))
    how = discovery.find_others(info.acpi, me.apic)
    options.read(info.command_line)
    processors.start()
    placement.begin(options.options.packed != 0)
    console.say(text("processors "))
    console.say_number(everyone.count)
    console.fact(text(" by "), how)
    apic.route_all(me.apic)
    orders.begin(info.command_line)
    if virtio.begin():
        if net.network.hardware == 0:
            net.network.hardware = virtio.card.mac
        if net.network.address == 0:
            lease.begin()
        else:
            net.tell()
    share_memory()
    service.begin(0 if options.options.serves and everyone.count > 1 else 1)
    allow_interrupts()
    console.say(text("ready\n"))
    orders.report(text("started\n"))
    errand.begin(info.command_line)
    service.serve(me)
