"""The index of a guest's log (docs/wire.md): what was written when, and how its beginning is given up.

A log keeps its last bytes and records only; what lies before them becomes a hole in all three files, so that an
endless log takes bounded room on the disk. Positions are noted from time to time, from which a reader can begin.
Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct

RECORD = struct.Struct("<QQB")
"""One record: wall clock in ns, bytes, stream (1 standard output or terminal, 2 standard error).

Streams 3 and 4 are no output: they say at which byte of stream 1 or 2 the records that follow go on."""

BYTES_KEPT, RECORDS_KEPT = 64 << 20, 1 << 20
"""What stays at least of one stream's log and of the index; at most twice that, and the bytes between positions."""

_BYTES_APART, _RECORDS_APART = 1 << 20, 4096
"""A position is noted after so many bytes or records."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)


class Index:
    """The index of one guest and what its streams hold, for the one process that writes them.

    fd: of the index, owned by this. logs: of the streams' files, by stream, not owned.
    """

    def __init__(self, fd: int, logs: dict[int, int]) -> None:
        self.fd = fd
        self.logs = logs
        self.sizes = {number: os.fstat(log).st_size for number, log in logs.items()}
        self._positions: list[tuple[int, dict[int, int]]] = []
        self._size = 0
        self._bytes = self._records = 0
        self._unrecorded: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        """Find the end, and give bytes that a killed worker left without a record one with time 0."""
        known = dict.fromkeys((1, 2), 0)
        for place, count, number in _records(self.fd):
            self._size = place + RECORD.size
            if number in known:
                known[number] += count
            elif number - 2 in known:
                known[number - 2] = count
                if number == 4:
                    self._positions.append((place - RECORD.size, dict(known)))
        for number, size in self.sizes.items():
            if size > known[number]:
                self._write(0, size - known[number], number)

    def note(self, when: int, count: int, number: int) -> None:
        """Add a record of `count` bytes that were added to a stream."""
        self.sizes[number] += count
        count += self._unrecorded.pop(number, 0)
        if not self._write(when, count, number):
            self._unrecorded[number] = count
            return  # no position either: a reader would go on there, behind what it has no record of
        self._bytes += count
        self._records += 1
        if self._bytes >= _BYTES_APART or self._records >= _RECORDS_APART:
            self._note_position()

    def _note_position(self) -> None:
        self._bytes = self._records = 0
        sizes = {number: self.sizes.get(number, 0) - self._unrecorded.get(number, 0) for number in (1, 2)}
        position = self._size, sizes
        if all(self._write(0, size, number + 2) for number, size in sizes.items()):
            self._positions.append(position)
            self._give_up()

    def _give_up(self) -> None:
        """Make holes of what lies before the last position that leaves enough, when there is twice enough."""
        first, before = self._positions[0]
        grown = max(size - before[number] for number, size in self.sizes.items())
        if self._size - first < 2 * RECORDS_KEPT * RECORD.size and grown < 2 * BYTES_KEPT:
            return
        while len(self._positions) > 1 and self._is_enough(self._positions[1]):
            del self._positions[0]
        first, before = self._positions[0]
        _punch(self.fd, first)
        for number, log in self.logs.items():
            _punch(log, before[number])

    def _is_enough(self, position: tuple[int, dict[int, int]]) -> bool:
        """Whether what follows a position is as many records as are kept, or as many bytes of a stream."""
        place, before = position
        return self._size - place >= RECORDS_KEPT * RECORD.size or any(
            size - before[number] >= BYTES_KEPT for number, size in self.sizes.items()
        )

    def _write(self, when: int, count: int, number: int) -> bool:
        """Write a record, or none on a full disk: the bytes that it was for are counted with the stream's next."""
        try:
            whole = os.pwrite(self.fd, RECORD.pack(when, count, number), self._size) == RECORD.size
        except OSError:
            return False
        self._size += RECORD.size if whole else 0
        return whole

    def close(self) -> None:
        """Close the index."""
        os.close(self.fd)


def _records(fd: int) -> Iterator[tuple[int, int, int]]:
    """Every whole record that is kept: its place, bytes, stream. The hole at the beginning has none."""
    try:
        place = os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:
        return  # it is empty
    place -= place % RECORD.size
    while data := os.pread(fd, _RECORDS_APART * RECORD.size, place):
        for _, count, number in RECORD.iter_unpack(data[: len(data) - len(data) % RECORD.size]):
            if number:
                yield place, count, number
            place += RECORD.size
        if len(data) % RECORD.size:
            return  # cut short: the next record overwrites it


def _punch(fd: int, end: int) -> None:
    keep_size_and_punch_hole = 3
    _libc.fallocate(fd, keep_size_and_punch_hole, ctypes.c_long(0), ctypes.c_long(end))
