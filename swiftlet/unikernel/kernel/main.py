"""The first processor's life: from the loader's word to serving."""

from __future__ import annotations

from swiftlet.unikernel.kernel import (
    apic,
    console,
    discovery,
    interrupt,
    memory,
    net,
    orders,
    paging,
    processor,
    processors,
    service,
    virtio,
)
from swiftlet.unikernel.kernel.memory import StartInfo
from swiftlet.unikernel.kernel.processor import everyone
from swiftlet.unikernel.metal.words import address, allow_interrupts, at, export, external, text, u64


@external
def switch_stack(stack: u64, function: u64, argument: u64) -> None: ...


ARENA = 256 << 10


@export
def kmain(start: u64) -> None:
    """Where 64-bit code begins. start: of PVH's hvm_start_info."""
    info = at(StartInfo, start)
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
    for i in range(everyone.count):
        other = processor.of(i)
        other.arena = memory.take(ARENA, 4096)
        other.arena_end = other.arena + ARENA
    processors.start()
    console.say(text("processors "))
    console.say_number(everyone.count)
    console.fact(text(" by "), how)
    apic.route_all(me.apic)
    orders.begin(info.command_line)
    if virtio.begin():
        if net.network.hardware == 0:
            net.network.hardware = virtio.card.mac
        console.say(text("network "))
        console.say_address(net.network.address)
        console.line()
    service.begin(1)
    allow_interrupts()
    console.say(text("ready\n"))
    orders.report(text("started\n"))
    service.serve(me)
