"""What has happened last in a unikernel (`calls.trace`), as plain values."""

from __future__ import annotations

import struct
from typing import NamedTuple

from swiftlet.model.error import WireError
from swiftlet.unikernel import wire
from swiftlet.unikernel.client import Client

_HEADER = struct.Struct("<4Q")
_EVENT = struct.Struct("<4Q")
_WHAT = ("", "arrived", "ready", "begun", "ended", "answered", "woken", "known")


class Event(NamedTuple):
    """microseconds: before the ring was told, so below zero. call: its number. ticket: the task, or how many."""

    microseconds: float
    processor: int
    what: str
    call: int
    ticket: int


def events_of(client: Client) -> list[Event]:
    """The events that are known, the oldest first. Raises WireError."""
    data = client.read(wire.TRACE)
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % _EVENT.size:
        raise WireError(f"{client.name} tells events that cannot be read")
    rate, now, count, _ = _HEADER.unpack_from(data)
    found = []
    for moment, what, number, ticket in _EVENT.iter_unpack(data[_HEADER.size :]):
        if moment and what & 0xFF < len(_WHAT):
            found.append(Event((moment - now) * 1000 / max(rate, 1), what >> 8, _WHAT[what & 0xFF], number, ticket))
    return sorted(found)[-count:]
