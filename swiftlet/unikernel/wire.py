"""The datagrams between a client and a unikernel, as `calls.message` has them. See docs/unikernels.md."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = 0x31555753
CALL, DESCRIBE, STATISTICS, HEALTH, TRACE, CANCEL, FETCH, SHUTDOWN = 1, 2, 3, 4, 5, 6, 7, 8
REPLY = 0x80
WANTED, BUSY, REFUSED = 0x89, 0x8A, 0x8B
SUM = 1
PART = 1400
"""Bytes of payload in a datagram."""

_HEADER = struct.Struct("<IBBHQIIHHI")
HEADER_BYTES = _HEADER.size

ABORTED = 0x40000000
"""Statuses from here on are of tasks that were ended: plus the vector of what ended them."""

ABORT_VECTOR, TIMER_VECTOR = 57, 58


class Message(NamedTuple):
    """A datagram's header. task: by its place in the description; tasks: how many of it. deadline: ms, 0 for none.

    part, parts: of the payload; length: of the whole of it.
    """

    kind: int
    id: int = 0
    task: int = 0
    flags: int = 0
    tasks: int = 1
    deadline: int = 0
    part: int = 0
    parts: int = 1
    length: int = 0


class Outcome(NamedTuple):
    """How a task ended. data: its result, or what is known of its failure."""

    status: int
    data: bytes


def encoded(message: Message, payload: bytes = b"") -> bytes:
    """A datagram."""
    return (
        _HEADER.pack(
            MAGIC, message.kind, message.flags, message.task, message.id, message.tasks,
            message.deadline, message.part, message.parts, message.length,
        )
        + payload
    )  # fmt: skip


def decoded(datagram: bytes) -> tuple[Message, bytes] | None:
    """A datagram's header and payload; None for what is none."""
    if len(datagram) < HEADER_BYTES:
        return None
    magic, kind, flags, task, id_, count, deadline, part, parts, length = _HEADER.unpack_from(datagram)
    if magic != MAGIC:
        return None
    return Message(kind, id_, task, flags, count, deadline, part, parts, length), datagram[HEADER_BYTES:]


def parts_of(length: int) -> int:
    """How many datagrams a payload takes: one at least."""
    return max(1, -(-length // PART))


def outcomes_of(data: bytes, count: int) -> list[Outcome]:
    """The outcomes in a whole answer. Raises ValueError where it is cut short."""
    found, place = [], 0
    for _ in range(count):
        if place + 8 > len(data):
            raise ValueError("the answer is cut short")
        status, length = struct.unpack_from("<II", data, place)
        found.append(Outcome(status, data[place + 8 : place + 8 + length]))
        place += 8 + length
    if place != len(data):
        raise ValueError("the answer has another length than its outcomes")
    return found
