"""Requests: a call becomes a job, whose answer is kept so that a repeated request is not computed twice.

The oldest job whose answer was sent gives way when a new one comes.
"""

from __future__ import annotations

from swiftlet.unikernel.calls import answer, message, target, trace
from swiftlet.unikernel.calls.answer import page, received, tell
from swiftlet.unikernel.calls.figures import state
from swiftlet.unikernel.calls.job import (
    ANSWERED,
    FILLING,
    FREE,
    JOBS,
    OUTCOME,
    READY,
    Job,
    Task,
    find,
    jobs,
)
from swiftlet.unikernel.calls.message import Message
from swiftlet.unikernel.calls.target import memcpy, memset
from swiftlet.unikernel.calls.trace import Ring
from swiftlet.unikernel.metal.words import address, at, many, size_of, symbol, text, u64

PATIENCE = 2000
"""Milliseconds after which a call whose parts have not all come gives way."""

LEAST_ROOM = 256
"""Bytes of a result that may be of any size."""


def handle() -> None:
    """A datagram has come (`answer.received`)."""
    asked = at(Message, received.data)
    if received.length < size_of(Message) or asked.magic != message.MAGIC:
        state.malformed += 1
        return
    kind = asked.kind
    if kind == message.CALL:
        call_(asked)
    elif kind == message.DESCRIBE:
        page(asked, symbol("service_description"), many(u64, symbol("service_length"))[0])
    elif kind == message.STATISTICS:
        page(asked, target.figures_place(), target.figures_size())
    elif kind == message.HEALTH:
        page(asked, 0, 0)
    elif kind == message.TRACE:
        if asked.part == 0:
            trace.show()
        page(asked, address(trace.shown), size_of(Ring))
    elif kind == message.FETCH:
        fetch(asked)
    elif kind == message.CANCEL:
        cancel(asked)
    elif kind == message.SHUTDOWN and target.may_shut_down():
        page(asked, 0, 0)
        target.shut_down()
    else:
        state.malformed += 1


def call_(asked: Message) -> None:
    """A call, or a part of one."""
    known = find(asked.id, received.peer)
    if known:
        again(asked, at(Job, known))
        return
    wrong = refusal(asked)
    if wrong:
        state.refused += 1
        tell(asked, message.REFUSED, wrong)
        return
    place_ = vacant(asked.parts > 1)
    if place_ == 0 or not fill(at(Job, place_), asked):
        state.busy += 1
        tell(asked, message.BUSY, text("every place is taken"))
        return
    state.calls += 1
    trace.note(trace.ARRIVED, 0, asked.id, asked.count)
    add_part(at(Job, place_), asked)


def again(asked: Message, one: Job) -> None:
    """A request that is known: a further part of it, or a repetition."""
    if one.state == FILLING:
        add_part(one, asked)
    else:
        state.repeated += 1
        trace.note(trace.KNOWN, 0, asked.id, asked.part)
        if one.state == ANSWERED and asked.part == 0:
            answer.send_all(one)


def refusal(asked: Message) -> u64:
    """Why a call is never done: a text; 0 when it is."""
    table = symbol("task_table")
    if asked.task >= many(u64, table)[0]:
        return text("there is no such task")
    if asked.count == 0:
        return text("no tasks are asked for")
    parts = (asked.length + message.PART - 1) // message.PART
    if asked.parts != (parts if parts else 1):
        return text("the parts do not fit the length")
    if asked.part:
        return text("its first part is missing")
    task = many(Task, table + 8)[asked.task]
    if asked.flags & message.SUM and task.number == 0:
        return text("its results are no integers, of which there would be a sum")
    per_task = OUTCOME + (rounded(task.room) if task.room else LEAST_ROOM)
    most = target.most_of_a_call()
    if asked.length + 64 > most or asked.count > (most - asked.length - 64) // per_task:
        return target.too_large()
    return 0


def rounded(room: u64) -> u64:
    """Bytes of a result, so that the next one lies well."""
    return room + 15 & ~15


def room_of(task: Task, count: u64, left: u64) -> u64:
    """Bytes for each result; where those may be of any size, a part of what one call may take."""
    if task.room:
        return rounded(task.room)
    room = left // count - OUTCOME & ~15
    most = target.most_of_a_result()
    return room if room < most else most


def vacant(in_parts: bool) -> u64:
    """A place for a job: a free one, that of a call whose parts stay away, or of the oldest answer; 0 for none.

    Calls of which parts are missing have at most half of the places, so that those which come whole find one.
    """
    best = 0
    oldest = 0
    filling = 0
    for i in range(JOBS):
        one = jobs[i]
        if one.state == FREE or is_stale(one):
            return address(one)
        if one.state == FILLING:
            filling += 1
        elif one.state == ANSWERED and (best == 0 or one.sequence < oldest):
            best = address(one)
            oldest = one.sequence
    return 0 if in_parts and filling >= JOBS // 2 else best


def is_stale(one: Job) -> bool:
    """Whether the next part of a call has been missing for long."""
    return one.state == FILLING and target.moment() - one.began > PATIENCE * target.millisecond()


def fill(one: Job, asked: Message) -> bool:
    """Note what is asked for; whether there is memory for it."""
    task = many(Task, symbol("task_table") + 8)[asked.task]
    one.state = FREE
    one.function = task.function
    one.length = asked.length
    one.count = asked.count
    arguments = asked.length + 63 & ~63
    one.room = room_of(task, asked.count, target.most_of_a_call() - arguments)
    if target.take_room(address(one), arguments + asked.count * (OUTCOME + one.room)) == 0:
        return False
    one.arguments = one.memory
    one.outcomes = one.arguments + arguments
    one.results = one.outcomes + asked.count * OUTCOME
    one.id = asked.id
    one.peer = received.peer
    one.path = received.path
    one.task = asked.task
    one.flags = asked.flags
    one.deadline = asked.deadline
    one.parts = asked.parts
    one.missing = 0
    one.began = target.moment()
    state.sequence += 1
    one.sequence = state.sequence
    one.counts[0] = 0
    one.counts[1] = 0
    one.state = FILLING
    return True


def add_part(one: Job, asked: Message) -> None:
    """Take a part, if it is the next; begin when it was the last."""
    size = received.length - size_of(Message)
    start = asked.part * message.PART
    if asked.part == one.missing and asked.length == one.length:
        expected = one.length - start if one.length - start < message.PART else message.PART
        if size == expected:
            memcpy(one.arguments + start, received.data + size_of(Message), size)
            one.missing += 1
            one.began = target.moment()
    if one.missing < one.parts:
        asked.part = one.missing
        tell(asked, message.WANTED, 0)
        return
    memset(one.outcomes, 0, one.count * OUTCOME)
    if one.deadline:
        one.deadline = target.moment() + one.deadline * target.millisecond()
    trace.note(trace.READY, 0, one.id, one.count)
    target.begin_tasks(address(one))


def fetch(asked: Message) -> None:
    """Send one part of an answer once more."""
    known = find(asked.id, received.peer)
    if known and at(Job, known).state == ANSWERED and asked.part < at(Job, known).parts:
        answer.send_part(at(Job, known), asked.part)
    elif known == 0:
        tell(asked, message.REFUSED, text("its answer is not kept any more"))


def cancel(asked: Message) -> None:
    """End a job's tasks, as when its time is over."""
    known = find(asked.id, received.peer)
    if known and at(Job, known).state == READY:
        at(Job, known).deadline = 1
        target.end_tasks(known)
    page(asked, 0, 0)
