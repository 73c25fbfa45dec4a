"""A console that is written to without end stays short, and keeps its end."""

from __future__ import annotations

import os
from pathlib import Path

from swiftlet.guest import console


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)


def test_a_short_console_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"x" * console.MOST)
    fd = opened(path)
    assert not console.cut(fd)
    assert path.stat().st_size == console.MOST
    os.close(fd)


def test_a_long_one_keeps_whole_lines_of_its_end_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"".join(b"line %08d\n" % number for number in range(console.MOST // 14 + 10)))
    last = path.read_bytes()[-100:]
    writer = os.open(path, os.O_WRONLY | os.O_APPEND)
    fd = opened(path)
    assert console.cut(fd)
    os.write(writer, b"after\n")
    kept = path.read_bytes()
    assert len(kept) <= console.KEPT + 6
    assert kept.endswith(last + b"after\n")
    assert kept.startswith(b"line ")
    os.close(fd)
    os.close(writer)
