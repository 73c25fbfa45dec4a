"""The first thread's part in calls: what has come, what is told, and what calls ask of a target (`calls.target`)."""

from __future__ import annotations

from swiftlet.unikernel.calls import figures
from swiftlet.unikernel.calls.answer import received
from swiftlet.unikernel.calls.figures import Core, Figures
from swiftlet.unikernel.calls.job import READY, Job, Outcome, outcome_of
from swiftlet.unikernel.calls.request import handle
from swiftlet.unikernel.linux import crew, network, room, system
from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    at,
    counter,
    export,
    place,
    size_of,
    text,
    u8,
    u64,
    unsigned,
)

LARGEST = 64 << 20
"""Bytes that a call's arguments, outcomes and results have at most."""

LARGEST_ROOM = 8 << 20
"""Bytes of a result that may be of any size: of addresses, for memory is what is written."""

LONGEST = 2048
LOOPBACK = 127
"""The first byte of the addresses that are this host's own."""


class Desk(Struct):
    """datagram: that has come last. reply: that is put together. waits: how often the first thread has been woken."""

    received: u64
    sent: u64
    waits: u64
    datagram = array(u8, LONGEST)
    reply = array(u8, LONGEST)


class Told(Struct):
    """The answer to a request for statistics: all threads and processes are told of together, as one processor."""

    figures = place(Figures)
    core = place(Core)


desk = place(Desk)
told = place(Told)


def receive() -> bool:
    """Take the next datagram, if one is there, and do what it asks for."""
    length = network.receive(address(desk.datagram), LONGEST)
    if length < 0:
        return False
    received.data = address(desk.datagram)
    received.length = unsigned(length) if length <= LONGEST else 0  # what was cut is none
    received.peer = network.network.peer
    received.path = network.network.local
    desk.received += 1
    handle()
    return True


def count(one: Job) -> None:
    """Add a job that has ended to what is told."""
    for i in range(one.count):
        count_outcome(outcome_of(one, i))


def count_outcome(outcome: Outcome) -> None:
    """Add a task that has ended."""
    told.core.tasks += 1
    told.core.cycles += outcome.cycles
    if outcome.status:
        told.core.errors += 1


@export
def moment() -> u64:
    """Nanoseconds of the monotonic clock."""
    return system.now(address(crew.first.time))


@export
def millisecond() -> u64:
    """In nanoseconds."""
    return system.MILLISECOND


@export
def most_of_a_call() -> u64:
    """See `LARGEST`."""
    return LARGEST


@export
def most_of_a_result() -> u64:
    """See `LARGEST_ROOM`."""
    return LARGEST_ROOM


@export
def too_large() -> u64:
    """Of a call that is larger than `LARGEST`."""
    return text("too large: arguments and results of one call are 64 MiB at most")


@export
def take_room(place_: u64, size: u64) -> u64:
    """Give a job a mapping."""
    return 1 if room.make_room(at(Job, place_), size) else 0


@export
def begin_tasks(place_: u64) -> None:
    """The first thread starts them in its turn."""
    at(Job, place_).state = READY


@export
def end_tasks(place_: u64) -> None:
    """The first thread ends them in its turn."""


@export
def reply_room() -> u64:
    """There is one reply at a time."""
    return address(desk.reply)


@export
def send_reply(reply: u64, length: u64, peer: u64, path: u64) -> None:
    """From the address at which it was asked for. path: of ours."""
    desk.sent += 1
    network.send(reply, length, peer, path)


@export
def may_shut_down() -> u64:
    """Who is on this host; others may call, and no more."""
    return 1 if received.peer >> 32 & 255 == LOOPBACK else 0


@export
def shut_down() -> None:
    """End the program."""
    system.exit_all(0)


@export
def figures_size() -> u64:
    """Of all figures."""
    return size_of(Told)


@export
def figures_place() -> u64:
    """Bring the figures up to date."""
    figures.note(told.figures, counter())
    told.figures.processors = 1
    told.figures.received = desk.received
    told.figures.sent = desk.sent
    told.figures.memory = system.memory_of_host()
    told.figures.memory_left = system.information[5]
    told.core.wakeups = desk.waits
    told.core.running = 1 if crew.crew.running else 0
    told.core.parked = 1 - told.core.running
    return address(told)
