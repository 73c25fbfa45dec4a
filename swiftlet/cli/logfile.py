"""A guest's log as it lies on disk: two files of bytes and an index that orders them (docs/wire.md).

Reads through descriptors with pread; neither follows a guest nor prints.
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Struct("<QQB")
"""Wall-clock nanoseconds, length, stream (1 or 2; 3 and 4 give the position of 1 and 2 instead of a length)."""

_RECORDS = 4096
"""Records read at once."""

_PIECE = 1 << 20
"""Bytes of one chunk read at once; a chunk may be announced longer than memory."""


class Chunk:
    """A piece of output: when it was written (0: not known), on which stream (1 or 2), and its place there."""

    __slots__ = ("length", "offset", "stream", "time")

    def __init__(self, time: int, stream: int, offset: int, length: int) -> None:
        self.time = time
        self.stream = stream
        self.offset = offset
        self.length = length


class Log:
    """The three open files of one guest's log, and how far they have been read.

    A damaged index never stops the reader: records of unknown streams are skipped, lengths are cut to what
    the files hold, and what no record covers comes last, without a time.
    """

    def __init__(self, stdout: int, stderr: int, index: int) -> None:
        self.files = {1: stdout, 2: stderr}
        self.index = index
        self.read = {1: 0, 2: 0}
        self.records = 0
        self._sizes = {1: 0, 2: 0}
        self._unrecorded = {1: 0, 2: 0}

    def close(self) -> None:
        """Close the three descriptors."""
        for fd in (*self.files.values(), self.index):
            os.close(fd)

    def size(self, stream: int) -> int:
        """Bytes of a stream so far."""
        return os.fstat(self.files[stream]).st_size

    def chunks(self) -> Iterator[Chunk]:
        """The chunks that were indexed since the last call, in order."""
        while True:
            self._leave_hole()
            raw = os.pread(self.index, _RECORDS * RECORD.size, self.records * RECORD.size)
            whole = len(raw) - len(raw) % RECORD.size
            if not whole:
                return
            for time, length, stream in RECORD.iter_unpack(raw[:whole]):
                self.records += 1
                if stream in self.read:
                    yield self._advance(time, stream, length)
                elif stream - 2 in self.read:  # a position; it matters where what lay before it was given up
                    self.read[stream - 2] = max(self.read[stream - 2], min(length, self.size(stream - 2)))

    def _leave_hole(self) -> None:
        """Go on at the first record that is kept."""
        try:
            data = os.lseek(self.index, self.records * RECORD.size, os.SEEK_DATA)
        except OSError:
            return  # the end
        self.records = max(self.records, data // RECORD.size)

    def rest(self) -> Iterator[Chunk]:
        """What lies behind the last record; for a log that is not written any more."""
        for stream in (1, 2):
            length = self.size(stream) - self.read[stream]
            if length > 0:
                self._unrecorded[stream] += length
                yield self._advance(0, stream, length)

    def skip(self, *, alive: bool) -> None:
        """Take what is there as read; while the log is written, what has no record yet is about to get one."""
        for _ in self.chunks():
            pass
        for _ in () if alive else self.rest():
            pass

    def _advance(self, time: int, stream: int, length: int) -> Chunk:
        offset = self.read[stream]
        if offset + length > self._sizes[stream]:
            self._sizes[stream] = self.size(stream)
            length = min(length, max(self._sizes[stream] - offset, 0))
        self.read[stream] += length
        return Chunk(time, stream, offset, length)

    def backwards(self) -> Iterator[Chunk]:
        """All chunks that `chunks` and `rest` have given so far, the last one first."""
        end = dict(self.read)
        for stream in (2, 1):
            if self._unrecorded[stream]:
                end[stream] -= self._unrecorded[stream]
                yield Chunk(0, stream, end[stream], self._unrecorded[stream])
        for last in range(self.records, 0, -_RECORDS):
            first = max(last - _RECORDS, 0)
            raw = os.pread(self.index, (last - first) * RECORD.size, first * RECORD.size)
            if not any(raw):
                return  # what lay here was given up
            for time, length, stream in reversed([*RECORD.iter_unpack(raw)]):
                if stream in end:
                    length = min(length, end[stream])
                    end[stream] -= length
                    yield Chunk(time, stream, end[stream], length)

    def data(self, chunk: Chunk) -> Iterator[bytes]:
        """A chunk's bytes, in pieces."""
        offset, end = chunk.offset, chunk.offset + chunk.length
        while offset < end:
            piece = os.pread(self.files[chunk.stream], min(_PIECE, end - offset), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)


def tail(log: Log, lines: int, *, alive: bool) -> list[Chunk]:
    """The last `lines` lines of both streams together, as chunks cut where a line begins.

    Consumes the log up to its present end.
    """
    log.skip(alive=alive)
    kept: list[Chunk] = []
    first = dict(log.read)
    for chunk in log.backwards():
        if lines <= 0:
            break
        for start in _line_starts(log, chunk):
            first[chunk.stream] = start
            lines -= 1
            if not lines:
                break
        kept.append(chunk)
    return [cut for chunk in reversed(kept) if (cut := _cut(chunk, first[chunk.stream])).length]


def _line_starts(log: Log, chunk: Chunk) -> Iterator[int]:
    """Offsets within a chunk at which a line with something in it begins, the last one first."""
    data = b"".join(log.data(chunk))
    end = log.read[chunk.stream]
    at = len(data)
    while (at := data.rfind(b"\n", 0, at)) >= 0:
        if chunk.offset + at + 1 < end and at + 1 < len(data):
            yield chunk.offset + at + 1
    before = os.pread(log.files[chunk.stream], 1, chunk.offset - 1) if chunk.offset else b"\n"
    if data and before == b"\n":
        yield chunk.offset


def _cut(chunk: Chunk, start: int) -> Chunk:
    skipped = min(max(start - chunk.offset, 0), chunk.length)
    return Chunk(chunk.time, chunk.stream, chunk.offset + skipped, chunk.length - skipped)
