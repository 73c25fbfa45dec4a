"""Deadlines: one shot of the first processor's timer while something has one, and no tick. Intel SDM 3, 11.5.4."""

from __future__ import annotations

from swiftlet.unikernel.calls.job import JOBS, READY, Job, jobs
from swiftlet.unikernel.kernel import apic, processor
from swiftlet.unikernel.kernel.processor import everyone
from swiftlet.unikernel.metal.words import Struct, at, counter, pause, place, u64

MILLISECOND = 1_000_000
"""Ticks of the timer: QEMU's and KVM's bus counts nanoseconds."""

MEASURED = 200_000
"""Ticks for which the counter is compared with the timer, once."""

LONGEST = 2000


class Rate(Struct):
    """counts: of the time stamp counter in a millisecond; 0 as long as nobody needed it."""

    counts: u64


rate = place(Rate)


def per_millisecond() -> u64:
    """Counts of the time stamp counter in a millisecond."""
    if rate.counts == 0:
        apic.write(apic.TIMER, 1 << 16 | apic.TIMER_VECTOR)
        apic.write(apic.TIMER_COUNT, 0xFFFFFFFF)
        begin = counter()
        while 0xFFFFFFFF - apic.read(apic.TIMER_NOW) < MEASURED:
            pause()
        rate.counts = (counter() - begin) * (MILLISECOND // MEASURED)
        apic.once(0)
    return rate.counts


def older(then: u64, milliseconds: u64) -> bool:
    """Whether a value of the counter is so long ago."""
    return counter() - then > milliseconds * per_millisecond()


def plan() -> None:
    """Set the timer for the earliest deadline there is, a part of the way where that is far."""
    first = 0
    for i in range(JOBS):
        one = jobs[i]
        if one.state == READY and one.deadline and (first == 0 or one.deadline < first):
            first = one.deadline
    if first == 0:
        return
    now = counter()
    wait = (first - now) // per_millisecond() + 1 if first > now else 1
    apic.once((wait if wait < LONGEST else LONGEST) * MILLISECOND)


def expire(me: u64) -> bool:
    """Interrupt whoever runs a task whose time is over; whether this processor does. me: its dense number."""
    ours = False
    now = counter()
    for i in range(everyone.count):
        other = processor.of(i)
        runs = other.job  # read once: it may be over by the time of a second look
        if runs and is_late(runs, now):
            if i == me:
                ours = True
            else:
                apic.send(other.apic, apic.ABORT_VECTOR)
    return ours


def is_late(place_: u64, now: u64) -> bool:
    """Whether a job's time is over."""
    one = at(Job, place_)
    return one.deadline != 0 and one.deadline <= now
