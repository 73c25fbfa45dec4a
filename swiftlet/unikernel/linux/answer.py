"""Answers: put together of a job's outcomes, part by part, as the kernel's own service does it (`kernel.service`)."""

from __future__ import annotations

from swiftlet.unikernel.kernel import message
from swiftlet.unikernel.kernel.message import Message
from swiftlet.unikernel.linux import job as jobs
from swiftlet.unikernel.linux import network
from swiftlet.unikernel.linux.job import ABORTED, Job, Outcome
from swiftlet.unikernel.metal.words import Struct, address, array, at, external, many, place, size_of, u8, u32, u64

SUM_BYTES = 16
OUTCOME_HEADER = 8
LONGEST = 2048


class Desk(Struct):
    """sent: datagrams. tasks, cycles, errors: of all answered jobs."""

    sent: u64
    tasks: u64
    cycles: u64
    errors: u64
    scratch = array(u32, 2)
    reply = array(u8, LONGEST)


class Exception_(Struct):
    """Numba's excinfo: of a task that raised, what the builder has put there instead of a pickle."""

    data: u64
    length: u64


desk = place(Desk)


@external
def memcpy(target: u64, source: u64, count: u64) -> u64:
    raise NotImplementedError


def collect(one: Job) -> None:
    """Measure a job's answer: of each outcome its status, its length and its data; or a sum. Counts what was done."""
    one.failed = 0
    length = 0
    for i in range(one.count):
        outcome = jobs.outcome_of(one, i)
        length += OUTCOME_HEADER + length_of(outcome)
        desk.tasks += 1
        desk.cycles += outcome.cycles
        if outcome.status:
            desk.errors += 1
            one.failed = 1
    one.length = SUM_BYTES if one.flags & message.SUM else length
    one.parts = (one.length + message.PART - 1) // message.PART


def length_of(outcome: Outcome) -> u64:
    """Bytes of a result, or of what is known of a failure."""
    if outcome.status == 0:
        return outcome.length
    if outcome.status >= ABORTED:
        return 8
    return at(Exception_, outcome.exception).length & 0xFFFFFFFF


def data_of(one: Job, ticket: u64) -> u64:
    """Where that lies."""
    outcome = jobs.outcome_of(one, ticket)
    if outcome.status == 0:
        return one.results + ticket * one.room
    if outcome.status >= ABORTED:
        return address(outcome.fault)
    return at(Exception_, outcome.exception).data


def send_all(one: Job) -> None:
    """Send every part of an answer."""
    for part in range(one.parts):
        send_part(one, part)


def send_part(one: Job, part: u64) -> None:
    """Send a part of an answer: what of the outcomes lies between two places of it."""
    start = part * message.PART
    size = one.length - start if one.length - start < message.PART else message.PART
    if one.flags & message.SUM:
        sum_up(one, body())
    else:
        write_outcomes(one, start, size)
    reply = at(Message, address(desk.reply))
    reply.magic = message.MAGIC
    reply.kind = message.REPLY | message.CALL
    reply.flags = one.flags
    reply.task = one.task
    reply.id = one.id
    reply.count = one.count
    reply.deadline = one.failed
    reply.part = part
    reply.parts = one.parts
    reply.length = one.length
    send(size, one.peer, one.local)


def body() -> u64:
    """Where a reply's data begin."""
    return address(desk.reply) + size_of(Message)


def send(size: u64, peer: u64, local: u64) -> None:
    """Send the reply that has been put together, with so many bytes of data."""
    desk.sent += 1
    network.send(address(desk.reply), size_of(Message) + size, peer, local)


def sum_up(one: Job, target: u64) -> None:
    """Write the sum of integers, and how many tasks failed."""
    total = 0
    failed = 0
    for i in range(one.count):
        if jobs.outcome_of(one, i).status:
            failed += 1
        else:
            total += many(u64, one.results + i * one.room)[0]
    words = many(u64, target)
    words[0] = total
    words[1] = failed


def write_outcomes(one: Job, start: u64, size: u64) -> None:
    """Write what of the outcomes lies in a part."""
    place_ = 0
    for i in range(one.count):
        outcome = jobs.outcome_of(one, i)
        length = length_of(outcome)
        desk.scratch[0] = outcome.status
        desk.scratch[1] = length
        put(start, size, place_, address(desk.scratch), OUTCOME_HEADER)
        put(start, size, place_ + OUTCOME_HEADER, data_of(one, i), length)
        place_ += OUTCOME_HEADER + length
        if place_ >= start + size:
            break


def put(start: u64, size: u64, place_: u64, source: u64, count: u64) -> None:
    """Copy what lies at `place_` of the whole, as far as it falls into the part that begins at `start`."""
    begin = place_ if place_ > start else start
    end = place_ + count if place_ + count < start + size else start + size
    if begin < end:
        memcpy(body() + (begin - start), source + (begin - place_), end - begin)


def refuse(one: Job, words: u64) -> None:
    """Tell who asked for a job that it is not done, and why."""
    asked = at(Message, address(desk.reply))
    asked.magic = message.MAGIC
    asked.kind = message.REFUSED
    asked.task = one.task
    asked.id = one.id
    asked.part = 0
    asked.parts = 1
    length = length_of_text(words)
    asked.count = length
    asked.length = length
    memcpy(body(), words, length)
    send(length, one.peer, one.local)


def length_of_text(words: u64) -> u64:
    """Bytes before the zero."""
    letters = many(u8, words)
    length = 0
    while letters[length]:
        length += 1
    return length


def tell(asked: Message, kind: u64, words: u64) -> None:
    """A short reply, with a text or without one."""
    length = 0
    if words:
        length = length_of_text(words)
    reply_with(asked, kind, words, length, length)


def page(asked: Message, source: u64, length: u64) -> None:
    """Reply with the part of something that is asked for."""
    start = asked.part * message.PART
    size = 0 if start >= length else length - start
    reply_with(asked, asked.kind | message.REPLY, source + start, size, length)


def reply_with(asked: Message, kind: u64, source: u64, size: u64, length: u64) -> None:
    """Reply to the message that has come last: its own header with another kind, and data."""
    shown = size if size < message.PART else message.PART
    memcpy(address(desk.reply), address(asked), size_of(Message))
    reply = at(Message, address(desk.reply))
    reply.kind = kind
    reply.count = 0
    reply.length = length
    memcpy(body(), source, shown)
    send(shown, network.network.peer, network.network.local)
