"""What is said over UDP: every datagram begins with a Message, little-endian. docs/unikernels.md has it in full."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Packed, u8, u16, u32, u64

MAGIC = 0x31555753
"""`SWU1`."""

CALL, DESCRIBE, STATISTICS, HEALTH, TRACE, CANCEL, FETCH, SHUTDOWN = 1, 2, 3, 4, 5, 6, 7, 8
"""What is asked for. A reply has the same number, and REPLY."""

REPLY = 0x80
WANTED = 0x81 + 8
"""Of a call in parts: the part that is wanted next."""

BUSY, REFUSED = 0x8A, 0x8B
"""No room now; never: the reason follows as text."""

SUM = 1
"""Flag of a call: its reply is the sum of the results, and how many failed."""

MOST_PARTS = 0xFFFF
"""That a header can count."""

PART = 1400
"""Bytes of payload in a datagram; the last part is shorter."""


class Message(Packed):
    """task: by its place in the description. count: tasks. deadline: milliseconds, 0 for none.

    part, parts: of this payload. length: of the whole payload.
    """

    magic: u32
    kind: u8
    flags: u8
    task: u16
    id: u64
    count: u32
    deadline: u32
    part: u16
    parts: u16
    length: u32
