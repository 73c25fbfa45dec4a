"""The index of a log as the log worker writes it and as `swiftlet logs` reads it back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swiftlet.cli.logfile import Log, tail
from swiftlet.guest import logindex
from swiftlet.guest.logindex import RECORD, Index

NAMES = ("stdout", "stderr", "index")


class Written:
    """A log that is written as the log worker does: bytes to the stream's file, then a record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts = {1: b"", 2: b""}
        self.open()

    def open(self) -> None:
        fds = [os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in NAMES]
        self.fds = {1: fds[0], 2: fds[1]}
        self.index = Index(fds[2], self.fds)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.index.close()

    def write(self, number: int, data: bytes, *, record: bool = True) -> None:
        os.pwrite(self.fds[number], data, len(self.texts[number]))
        self.texts[number] += data
        if record:
            self.index.note(1_000, len(data), number)

    def reader(self) -> Log:
        return Log(*(os.open(self.folder / name, os.O_RDONLY) for name in NAMES))

    def blocks(self) -> int:
        return sum(os.stat(self.folder / name).st_blocks * 512 for name in NAMES)


def shown(log: Log) -> dict[int, bytes]:
    texts = {1: b"", 2: b""}
    for chunk in [*log.chunks(), *log.rest()]:
        texts[chunk.stream] += b"".join(log.data(chunk))
    return texts


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setattr(logindex, "BYTES_KEPT", 1 << 20)
    monkeypatch.setattr(logindex, "RECORDS_KEPT", 8192)
    monkeypatch.setattr(logindex, "_BYTES_APART", 1 << 16)
    monkeypatch.setattr(logindex, "_RECORDS_APART", 512)
    return Written(tmp_path)


def test_a_log_of_many_small_writes_takes_bounded_room_and_shows_its_end(written: Written) -> None:
    for number in range(60_000):
        written.write(1 + number % 3 // 2, b"%d\n" % number)
    assert written.blocks() < 1 << 20, "60,000 records alone are a MB"
    texts = shown(written.reader())
    for number in (1, 2):
        assert written.texts[number].endswith(texts[number]) and len(texts[number]) > 8192
        assert not texts[number].startswith(b"\0")
    assert b"59999\n" in texts[1] + texts[2]


def test_a_log_of_large_writes_takes_bounded_room(written: Written) -> None:
    for number in range(300):
        written.write(1, bytes([65 + number % 26]) * (1 << 16))
    written.write(2, b"the end")
    assert written.blocks() < 3 << 20, "of 19 MiB"
    texts = shown(written.reader())
    assert written.texts[1].endswith(texts[1]) and len(texts[1]) >= 1 << 20 and texts[2] == b"the end"


def test_the_next_worker_goes_on_where_the_killed_one_was(written: Written) -> None:
    for start in range(0, 60_000, 7_000):
        for number in range(start, start + 7_000):
            written.write(1, b"%d\n" % number)
        written.write(1, b"without a record\n", record=False)
        os.ftruncate(written.index.fd, os.fstat(written.index.fd).st_size - 5)  # and the last record half written
        written.close()
        written.open()
    assert written.blocks() < 1 << 20
    text = shown(written.reader())[1]
    assert written.texts[1].endswith(text) and len(text) > 8192
    with open(written.folder / "index", "rb") as file:
        assert len(file.read()) % RECORD.size == 0


def test_who_follows_is_not_led_astray_by_what_is_given_up_meanwhile(written: Written) -> None:
    log = written.reader()
    seen = b""
    for number in range(60_000):
        written.write(1, b"%d\n" % number)
        if (number % 1_000 == 0 and number < 10_000) or number == 59_999:
            seen += b"".join(b"".join(log.data(chunk)) for chunk in log.chunks())
    lines = [int(line) for line in seen.split()]
    assert lines == sorted(set(lines)) and lines[0] == 0 and lines[-1] == 59_999


def test_a_tail_ends_where_the_log_was_given_up(written: Written) -> None:
    for number in range(60_000):
        written.write(1, b"%d\n" % number)
    log = written.reader()
    lines = b"".join(b"".join(log.data(chunk)) for chunk in tail(log, 5, alive=False)).split()
    assert lines == [b"59995", b"59996", b"59997", b"59998", b"59999"]
    log = written.reader()
    everything = b"".join(b"".join(log.data(chunk)) for chunk in tail(log, 10**6, alive=False))
    assert written.texts[1].endswith(everything) and len(everything) > 8192


def test_what_a_full_disk_left_without_a_record_is_shown_with_the_next(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    for number in range(3_000):
        line = b"%d\n" % number
        written.write(1, line, record=False)
        with monkeypatch.context() as disk:
            if 1_000 <= number < 1_100:
                disk.setattr(os, "pwrite", full)
            written.index.note(1_000, len(line), 1)
    chunks = [chunk for chunk in written.reader().chunks() if chunk.stream == 1]
    assert sum(chunk.length for chunk in chunks) == len(written.texts[1]) and len(chunks) == 2_900
    assert shown(written.reader())[1] == written.texts[1]
