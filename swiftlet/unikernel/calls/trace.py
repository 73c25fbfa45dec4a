"""What happened last: a ring of events, each written by whoever it happened to, with one locked addition and no lock.

`moment` is written last. Who reads the ring while it is written may still find fields of two events in one.
"""

from __future__ import annotations

from swiftlet.unikernel.calls import target
from swiftlet.unikernel.calls.target import memcpy
from swiftlet.unikernel.metal.words import Shared, address, array, atomic_add, place, size_of, u64

EVENTS = 512
"""A power of two."""

ARRIVED, READY, BEGUN, ENDED, ANSWERED, WOKEN, KNOWN = 1, 2, 3, 4, 5, 6, 7
"""A call's first part has come; all have; a task; all answered; a processor; a call that was there already."""


class Event(Shared):
    """what: has happened, and above eight bits, to which processor. number: of the request. ticket: of the task."""

    moment: u64
    what: u64
    number: u64
    ticket: u64


class Ring(Shared):
    """rate: moments in a millisecond. now: when this is told. counts: how many events there were."""

    rate: u64
    now: u64
    counts = array(u64, 2)
    events = array(Event, EVENTS)


ring = place(Ring)
shown = place(Ring)


def note(what: u64, processor: u64, number: u64, ticket: u64) -> None:
    """Something has happened."""
    event = ring.events[atomic_add(ring.counts, 0, 1) & EVENTS - 1]
    event.what = processor << 8 | what
    event.number = number
    event.ticket = ticket
    event.moment = target.moment()


def show() -> None:
    """Keep the ring as it is now, to be told part by part."""
    memcpy(address(shown), address(ring), size_of(Ring))
    shown.rate = target.millisecond()
    shown.now = target.moment()
