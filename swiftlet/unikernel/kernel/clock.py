"""Deadlines: one shot of the first processor's timer while something has one, and no tick. Intel SDM 3, 11.5.4."""

from __future__ import annotations

from swiftlet.unikernel.calls.job import JOBS, READY, Job, jobs
from swiftlet.unikernel.kernel import apic, processor
from swiftlet.unikernel.kernel.processor import everyone
from swiftlet.unikernel.metal.words import Struct, at, counter, pause, place, u64

TICKS_IN_TWO = 15_625
"""Ticks of the timer in two milliseconds: QEMU's and KVM's bus counts nanoseconds, of which 128 are a tick."""

ALL = 0xFFFFFFFF
"""What the timer can count."""

LONGEST = ALL * 2 // TICKS_IN_TWO
"""Milliseconds for which it can be set: 549 seconds, so an idle machine that waits for something wakes up seven times
an hour.
"""

MEASURED = 4000
"""Ticks for which the counter is compared with the timer, once: half a millisecond."""

LOOKS = 8


class Rate(Struct):
    """counts: of the time stamp counter in a millisecond; 0 as long as nobody needed it.

    wake: the counter's value at which the first processor has something to do besides tasks; 0 for never.
    """

    counts: u64
    wake: u64


rate = place(Rate)


def per_millisecond() -> u64:
    """Counts of the time stamp counter in a millisecond."""
    if rate.counts == 0:
        apic.write(apic.TIMER, 1 << 16 | apic.TIMER_VECTOR)
        apic.write(apic.TIMER_COUNT, ALL)
        begin, begin_ticks = look()
        while begin_ticks - apic.read(apic.TIMER_NOW) < MEASURED:
            pause()
        end, end_ticks = look()
        rate.counts = (end - begin) * TICKS_IN_TWO // (2 * (begin_ticks - end_ticks))
        apic.once(0)
    return rate.counts


def look() -> tuple[u64, u64]:
    """The counter and the timer at the same time: the best of several looks, for a host may hold this one up."""
    best = 0
    then = 0
    ticks = 0
    for i in range(LOOKS):
        before = counter()
        now = apic.read(apic.TIMER_NOW)
        took = counter() - before
        if i == 0 or took < best:
            best = took
            then = before + took // 2
            ticks = now
    return then, ticks


def counts(milliseconds: u64) -> u64:
    """Counts of the time stamp counter in so many milliseconds."""
    return milliseconds * per_millisecond()


def after(milliseconds: u64) -> u64:
    """The counter's value in so many milliseconds."""
    return counter() + counts(milliseconds)


def older(then: u64, milliseconds: u64) -> bool:
    """Whether a value of the counter is so long ago."""
    return counter() - then > counts(milliseconds)


def wake_at(then: u64) -> None:
    """Let the first processor wake up at a value of the counter; 0 for never."""
    rate.wake = then
    plan()


def plan() -> None:
    """Set the timer for the earliest deadline there is, a part of the way where that is far."""
    first = rate.wake
    for i in range(JOBS):
        one = jobs[i]
        if one.state == READY and one.deadline and (first == 0 or one.deadline < first):
            first = one.deadline
    if first == 0:
        return
    now = counter()
    wait = (first - now) // per_millisecond() + 1 if first > now else 1
    apic.once((wait if wait < LONGEST else LONGEST) * TICKS_IN_TWO // 2)


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
