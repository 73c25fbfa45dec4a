"""What a kernel has noted in its log, read from its memory: the ring of kernel/printk/printk_ringbuffer.h (since 5.10).

Nothing has to be printed for that, which is what makes logging slow: under emulation a line on the console takes longer
than most of the initcalls that it tells of.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

_RING = struct.Struct("<I4xQQQQ")
"""count_bits, descs, infos, head_id, tail_id of struct prb_desc_ring."""

_DATA = struct.Struct("<I4xQ")
"""size_bits and data of struct prb_data_ring."""

_DATA_AT = 48
_DESCRIPTOR = struct.Struct("<QQQ")
_INFO = struct.Struct("<QQH")
_INFO_BYTES = 88
_ID = (1 << 62) - 1
_MOST_RECORDS_BITS, _MOST_BYTES_BITS = 20, 25
"""Of the two rings: what a damaged one says must not be believed."""

Read = Callable[[int, int], bytes]
"""Bytes at an address of the kernel's: fewer where nothing is mapped."""


class Record(NamedTuple):
    """One line. ns: of the kernel's own clock, which begins about when it does."""

    ns: int
    text: str


class Log:
    """The log of a kernel. pointer: where its `prb` lies."""

    def __init__(self, pointer: int, read: Read) -> None:
        self._pointer = pointer
        self._read = read

    def newest_ns(self) -> int:
        """When the newest record was made, 0 when that cannot be told yet."""
        ring = self._ring()
        if ring is None:
            return 0
        bits, _, infos, head, _ = ring
        raw = self._read(infos + ((head & _ID) % (1 << bits)) * _INFO_BYTES, _INFO.size)
        return int(_INFO.unpack(raw)[1]) if len(raw) == _INFO.size else 0

    def records(self) -> list[Record]:
        """Every record that is there, the oldest first."""
        ring = self._ring()
        if ring is None:
            return []
        bits, descriptors, infos, head, tail = ring
        data = self._data()
        table = self._read(descriptors, _DESCRIPTOR.size << bits), self._read(infos, _INFO_BYTES << bits)
        if data is None or len(table[0]) < _DESCRIPTOR.size << bits or len(table[1]) < _INFO_BYTES << bits:
            return []
        count = min((head - tail & _ID) + 1, 1 << bits)
        found = (_record(*table, (tail + number & _ID) % (1 << bits), data) for number in range(count))
        return [record for record in found if record is not None]

    def _ring(self) -> tuple[int, int, int, int, int] | None:
        raw = self._read(self._pointer, 8)
        ring = self._read(int.from_bytes(raw, "little"), _RING.size) if len(raw) == 8 else b""
        if len(ring) < _RING.size:
            return None
        bits, descriptors, infos, head, tail = _RING.unpack(ring)
        return (bits, descriptors, infos, head, tail) if bits <= _MOST_RECORDS_BITS else None

    def _data(self) -> bytes | None:
        pointer = self._read(self._pointer, 8)
        ring = self._read(int.from_bytes(pointer, "little") + _DATA_AT, _DATA.size) if len(pointer) == 8 else b""
        if len(ring) < _DATA.size:
            return None
        bits, place = _DATA.unpack(ring)
        data = self._read(place, 1 << bits) if bits <= _MOST_BYTES_BITS else b""
        return data if len(data) == 1 << bits else None


def _record(descriptors: bytes, infos: bytes, place: int, data: bytes) -> Record | None:
    state, begin, end = _DESCRIPTOR.unpack_from(descriptors, place * _DESCRIPTOR.size)
    _, ns, length = _INFO.unpack_from(infos, place * _INFO_BYTES)
    if state >> 62 not in (1, 2) or begin & 1:
        return None  # it is being written, or has no text
    start = begin % len(data)
    if begin // len(data) != end // len(data):
        start = 0  # it did not fit in at the end of the ring, and lies whole at its beginning
    return Record(ns, data[start + 8 : start + 8 + length].decode(errors="replace"))
