"""In which order processors are woken: siblings share their core's units, so by default each core gets a task first.

Intel SDM 2A, CPUID: leaf 1FH, or 0BH, says how many low bits of an APIC's number tell the siblings of a core apart.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import processor
from swiftlet.unikernel.kernel.processor import everyone
from swiftlet.unikernel.metal.words import Struct, array, cpuid, place, u64

NEWER, OLDER = 0x1F, 0xB
SIBLINGS = 1
"""The kind of the level, in bits 8 to 15 of ECX."""

EAX, EBX, ECX = 0, 1, 2


class Order(Struct):
    """Dense numbers of all processors but the first, in the order in which they are woken."""

    count: u64
    list = array(u64, processor.MOST)


order = place(Order)


def shift() -> u64:
    """By how many bits an APIC's number is a core's."""
    highest = cpuid(0, 0, EAX)
    if highest >= NEWER and cpuid(NEWER, 0, EBX) and cpuid(NEWER, 0, ECX) >> 8 & 255 == SIBLINGS:
        return cpuid(NEWER, 0, EAX) & 31
    if highest >= OLDER and cpuid(OLDER, 0, EBX) and cpuid(OLDER, 0, ECX) >> 8 & 255 == SIBLINGS:
        return cpuid(OLDER, 0, EAX) & 31
    return 0


def begin(packed: bool) -> None:
    """Put all processors in order. packed: fill core after core, so that the others sleep deeply."""
    bits = shift()
    for i in range(everyone.count):
        one = processor.of(i)
        one.core = one.apic >> bits
        one.rank = 0
        for j in range(i):
            if processor.of(j).core == one.core:
                one.rank += 1
    for i in range(1, everyone.count):
        insert(i, packed)


def insert(index: u64, packed: bool) -> None:
    """Put one more where it belongs among those that are in order."""
    at_ = order.count
    while at_ and comes_before(index, order.list[at_ - 1], packed):
        order.list[at_] = order.list[at_ - 1]
        at_ -= 1
    order.list[at_] = index
    order.count += 1


def comes_before(one: u64, other: u64, packed: bool) -> bool:
    """Whether a processor is woken before another one."""
    if packed:
        return distance(one) < distance(other)
    return processor.of(one).rank < processor.of(other).rank


def distance(index: u64) -> u64:
    """How far a processor's core is from the first one's, upwards and around."""
    return (processor.of(index).core - processor.of(0).core) & 0xFFFFFFFF
