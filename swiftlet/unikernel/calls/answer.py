"""Answers: put together of a job's outcomes, part by part."""

from __future__ import annotations

from swiftlet.unikernel.calls import message, target
from swiftlet.unikernel.calls.job import ABORTED, Job, Outcome, outcome_of
from swiftlet.unikernel.calls.message import Message
from swiftlet.unikernel.calls.target import memcpy
from swiftlet.unikernel.metal.words import Struct, address, array, at, many, place, size_of, text, u8, u32, u64

SUM_BYTES = 16
OUTCOME_HEADER = 8


class Received(Struct):
    """The datagram that has come last. peer, path: as a job has them."""

    data: u64
    length: u64
    peer: u64
    path: u64


class Exception_(Struct):
    """Numba's excinfo: of a task that raised, what the builder has put there instead of a pickle."""

    data: u64
    length: u64


class Cursor(Struct):
    """Where the part that was written last ended: in which outcome, and where that begins in the whole answer."""

    job: u64
    sequence: u64
    index: u64
    place: u64


received = place(Received)
cursor = place(Cursor)
scratch = array(u32, 2)


def collect(one: Job) -> None:
    """Measure a job's answer: of each outcome its status, its length and its data; or a sum."""
    one.failed = 0
    length = 0
    for i in range(one.count):
        outcome = outcome_of(one, i)
        length += OUTCOME_HEADER + length_of(outcome)
        if outcome.status:
            one.failed = 1
    one.length = SUM_BYTES if one.flags & message.SUM else length
    parts = (one.length + message.PART - 1) // message.PART
    one.parts = parts if parts <= message.MOST_PARTS else 0


def length_of(outcome: Outcome) -> u64:
    """Bytes of a result, or of what is known of a failure."""
    if outcome.status == 0:
        return outcome.length
    if outcome.status >= ABORTED:
        return 8
    return at(Exception_, outcome.exception).length & 0xFFFFFFFF


def data_of(one: Job, ticket: u64) -> u64:
    """Where that lies."""
    outcome = outcome_of(one, ticket)
    if outcome.status == 0:
        return one.results + ticket * one.room
    if outcome.status >= ABORTED:
        return address(outcome.fault)
    return at(Exception_, outcome.exception).data


def send_all(one: Job) -> None:
    """Send every part of an answer; of one that has too many, that."""
    if one.parts == 0:
        refuse(one, text("its answer has more parts than can be counted: ask for fewer tasks"))
    for part in range(one.parts):
        send_part(one, part)


def send_part(one: Job, part: u64) -> None:
    """Send a part of an answer: what of the outcomes lies between two places of it."""
    place_ = target.reply_room()
    if place_ == 0:
        return
    start = part * message.PART
    size = one.length - start if one.length - start < message.PART else message.PART
    if one.flags & message.SUM:
        sum_up(one, place_ + size_of(Message))
    else:
        write_outcomes(one, place_ + size_of(Message), start, size)
    reply = at(Message, place_)
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
    target.send_reply(place_, size_of(Message) + size, one.peer, one.path)


def sum_up(one: Job, body: u64) -> None:
    """Write the sum of integers, and how many tasks failed."""
    total = 0
    failed = 0
    for i in range(one.count):
        if outcome_of(one, i).status:
            failed += 1
        else:
            total += many(u64, one.results + i * one.room)[0]
    words = many(u64, body)
    words[0] = total
    words[1] = failed


def write_outcomes(one: Job, body: u64, start: u64, size: u64) -> None:
    """Write what of the outcomes lies in a part."""
    place_ = 0
    begin = 0
    if cursor.job == address(one) and cursor.sequence == one.sequence and cursor.place <= start:
        place_ = cursor.place
        begin = cursor.index
    for i in range(begin, one.count):
        outcome = outcome_of(one, i)
        cursor.index = i
        cursor.place = place_
        length = length_of(outcome)
        scratch[0] = outcome.status
        scratch[1] = length
        put(body, start, size, place_, address(scratch), OUTCOME_HEADER)
        put(body, start, size, place_ + OUTCOME_HEADER, data_of(one, i), length)
        place_ += OUTCOME_HEADER + length
        if place_ >= start + size:
            break
    cursor.job = address(one)
    cursor.sequence = one.sequence


def put(body: u64, start: u64, size: u64, place_: u64, source: u64, count: u64) -> None:
    """Copy what lies at `place_` of the whole, as far as it falls into the part that begins at `start`."""
    first = place_ if place_ > start else start
    last = place_ + count if place_ + count < start + size else start + size
    if first < last:
        memcpy(body + (first - start), source + (first - place_), last - first)


def refuse(one: Job, words: u64) -> None:
    """Tell who asked for a job that it is not done, and why."""
    place_ = target.reply_room()
    if place_ == 0:
        return
    length = length_of_text(words)
    reply = at(Message, place_)
    reply.magic = message.MAGIC
    reply.kind = message.REFUSED
    reply.flags = one.flags
    reply.task = one.task
    reply.id = one.id
    reply.count = 0
    reply.deadline = 0
    reply.part = 0
    reply.parts = 1
    reply.length = length
    memcpy(place_ + size_of(Message), words, length)
    target.send_reply(place_, size_of(Message) + length, one.peer, one.path)


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
    place_ = target.reply_room()
    if place_ == 0:
        return
    shown = size if size < message.PART else message.PART
    memcpy(place_, address(asked), size_of(Message))
    reply = at(Message, place_)
    reply.kind = kind
    reply.count = 0
    reply.length = length
    memcpy(place_ + size_of(Message), source, shown)
    target.send_reply(place_, size_of(Message) + shown, received.peer, received.path)
