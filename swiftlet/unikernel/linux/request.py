"""Requests: a call becomes a job, whose answer is kept so that a repeated request is not computed twice.

The first thread alone runs this. The oldest job whose answer was sent gives way when a new one comes.
"""

from __future__ import annotations

from swiftlet.unikernel.kernel import message
from swiftlet.unikernel.kernel.message import Message
from swiftlet.unikernel.linux import answer, crew, figures, system
from swiftlet.unikernel.linux import job as jobs
from swiftlet.unikernel.linux.answer import memcpy, page, tell
from swiftlet.unikernel.linux.figures import state
from swiftlet.unikernel.linux.job import (
    ANSWERED,
    DONE,
    FILLING,
    FREE,
    JOBS,
    NEXT,
    OUTCOME,
    READY,
    Job,
)
from swiftlet.unikernel.linux.network import network
from swiftlet.unikernel.linux.network import receive as receive_datagram
from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    at,
    external,
    many,
    place,
    size_of,
    symbol,
    text,
    u8,
    u64,
    unsigned,
)

LARGEST = 64 << 20
"""Bytes that a call's arguments, outcomes and results have at most."""

PATIENCE = 2000 * system.MILLISECOND
"""Nanoseconds after which a call whose parts have not all come gives way."""


LOOPBACK = 127
"""The first byte of the addresses that are this host's own."""

LEAST_ROOM, LARGEST_ROOM = 256, 8 << 20
"""Bytes of a result that may be of any size: of addresses, for memory is what is written."""


class Task(Struct):
    """An entry of the table that the builder makes (`build.tables`). room: bytes of a result."""

    function: u64
    room: u64
    number: u64
    reserved: u64


class Datagram(Struct):
    """What has come."""

    length: u64
    bytes = array(u8, answer.LONGEST)


datagram = place(Datagram)


@external
def memset(target: u64, byte: u64, count: u64) -> u64:
    raise NotImplementedError


def receive() -> bool:
    """Take the next datagram, if one is there, and do what it asks for."""
    length = receive_datagram(address(datagram.bytes), answer.LONGEST)
    if length < 0:
        return False
    datagram.length = unsigned(length)
    state.received += 1
    handle()
    return True


def handle() -> None:
    """A datagram has come."""
    asked = at(Message, address(datagram.bytes))
    if datagram.length < size_of(Message) or datagram.length > answer.LONGEST or asked.magic != message.MAGIC:
        state.malformed += 1
        return
    kind = asked.kind
    if kind == message.CALL:
        call_(asked)
    elif kind == message.DESCRIBE:
        page(asked, symbol("service_description"), many(u64, symbol("service_length"))[0])
    elif kind == message.STATISTICS:
        figures.gather()
        page(asked, address(figures.told), figures.size())
    elif kind == message.HEALTH:
        page(asked, 0, 0)
    elif kind == message.FETCH:
        fetch(asked)
    elif kind == message.CANCEL:
        cancel(asked)
    elif kind == message.SHUTDOWN and network.peer >> 32 & 255 == LOOPBACK:  # others may call, and no more
        page(asked, 0, 0)
        system.exit_all(0)
    else:
        state.malformed += 1


def call_(asked: Message) -> None:
    """A call, or a part of one."""
    known = jobs.find(asked.id, network.peer)
    if known:
        again(asked, at(Job, known))
        return
    wrong = refusal(asked)
    if wrong:
        state.refused += 1
        tell(asked, message.REFUSED, wrong)
        return
    place_ = vacant()
    if place_ == 0 or not fill(at(Job, place_), asked):
        state.busy += 1
        tell(asked, message.BUSY, text("every place is taken"))
        return
    state.calls += 1
    add_part(at(Job, place_), asked)


def again(asked: Message, one: Job) -> None:
    """A request that is known: a further part of it, or a repetition."""
    if one.state == FILLING:
        add_part(one, asked)
    else:
        state.repeated += 1
        if one.state == ANSWERED and asked.part == 0:
            answer.send_all(one)


def refusal(asked: Message) -> u64:
    """Why a call is never done: a text; 0 when it is."""
    table = symbol("task_table")
    if asked.task >= many(u64, table)[0]:
        return text("there is no such task")
    if asked.count == 0:
        return text("no tasks are asked for")
    expected = (asked.length + message.PART - 1) // message.PART if asked.length else 1
    if asked.parts != expected:
        return text("the parts do not fit the length")
    if asked.part:
        return text("its first part is missing")
    task = many(Task, table + 8)[asked.task]
    per_task = OUTCOME + (task.room + 15 & ~15 if task.room else LEAST_ROOM)
    if asked.length + 64 > LARGEST or asked.count > (LARGEST - asked.length - 64) // per_task:
        return text("too large: arguments and results of one call are 64 MiB at most")
    return 0


def room_of(task: Task, count: u64, left: u64) -> u64:
    """Bytes for each result; where those may be of any size, a part of what one call may take."""
    if task.room:
        return task.room + 15 & ~15
    room = left // count - OUTCOME & ~15
    return room if room < LARGEST_ROOM else LARGEST_ROOM


def vacant() -> u64:
    """A place for a job: a free one, else that of the oldest answered one; 0 for none."""
    best = 0
    oldest = 0
    now = system.now(address(crew.first.time))
    for i in range(JOBS):
        one = jobs.jobs[i]
        if one.state == FREE:
            return address(one)
        if one.state == ANSWERED or (one.state == FILLING and now - one.began > PATIENCE):
            if best == 0 or one.sequence < oldest:
                best = address(one)
                oldest = one.sequence
    return best


def fill(one: Job, asked: Message) -> bool:
    """Note what is asked for; whether there is memory for it."""
    task = many(Task, symbol("task_table") + 8)[asked.task]
    one.state = FREE
    one.function = task.function
    one.length = asked.length
    one.count = asked.count
    arguments = asked.length + 63 & ~63
    one.room = room_of(task, asked.count, LARGEST - arguments)
    if not jobs.make_room(one, arguments + asked.count * (OUTCOME + one.room)):
        return False
    one.arguments = one.memory
    one.outcomes = one.arguments + arguments
    one.results = one.outcomes + asked.count * OUTCOME
    one.id = asked.id
    one.peer = network.peer
    one.local = network.local
    one.task = asked.task
    one.flags = asked.flags
    one.deadline = asked.deadline
    one.parts = asked.parts
    one.missing = 0
    one.began = system.now(address(crew.first.time))
    state.sequence += 1
    one.sequence = state.sequence
    one.counts[NEXT] = 0
    one.counts[DONE] = 0
    one.state = FILLING
    return True


def add_part(one: Job, asked: Message) -> None:
    """Take a part, if it is the next; begin when it was the last."""
    size = datagram.length - size_of(Message)
    start = asked.part * message.PART
    if asked.part == one.missing and asked.length == one.length:
        expected = one.length - start if one.length - start < message.PART else message.PART
        if size == expected:
            memcpy(one.arguments + start, address(datagram.bytes) + size_of(Message), size)
            one.missing += 1
    if one.missing < one.parts:
        asked.part = one.missing
        tell(asked, message.WANTED, 0)
        return
    memset(one.outcomes, 0, one.count * OUTCOME)
    if one.deadline:
        one.deadline = system.now(address(crew.first.time)) + one.deadline * system.MILLISECOND
    one.state = READY


def fetch(asked: Message) -> None:
    """Send one part of an answer once more."""
    known = jobs.find(asked.id, network.peer)
    if known and at(Job, known).state == ANSWERED and asked.part < at(Job, known).parts:
        answer.send_part(at(Job, known), asked.part)


def cancel(asked: Message) -> None:
    """End a job's tasks, as when its time is over."""
    known = jobs.find(asked.id, network.peer)
    if known and at(Job, known).state == READY:
        at(Job, known).deadline = 1
    page(asked, 0, 0)
