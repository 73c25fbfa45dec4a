"""Of what goes wrong in a task, the caller is told the line: of the program's own, of nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from swiftlet.model.error import InputError
from swiftlet.unikernel import build_linux, wire
from swiftlet.unikernel.wire import Message
from tests.unit.test_unikernel_linux import Service, written

PROGRAM = """\
import numpy as np
from swiftlet.unikernel import float64, service, task

@task
def divided(a: int, b: int) -> int:
    c = a + 1
    return (
        c // b)

@task
def taken(n: int) -> int:
    values = np.zeros(4, np.int64)
    total = 0
    for i in range(n):
        total += values[i]
    return total

@task
def within(n: int) -> int:
    return 1 % n

@task
def without(n: int) -> int:
    x = within(n) + 1
    return x

@task
def shifted(n: int) -> int:
    return 1 << n if n < 60 else 0

@task
def checked(n: int) -> int:
    assert n > 0, "none"
    return n

@task
def stored(n: int) -> float:
    values = np.zeros((2, 2))
    values[1, n] = 1.0
    return values[1, 1]

@task
def number(x: float) -> int:
    return int(x)

@task
def large(n: int) -> int:
    return len(np.zeros(n))

@task
def largest(values: float64[:]) -> float:
    return values.max()

@task
def spread(n: int) -> int:
    values = np.ones(3, np.int64)
    others = (
        (values + 1) // n + values)
    return others[0]

app = service(spread, divided, taken, within, without, shifted, checked, stored, number, large, largest)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "lines.py").write_text(PROGRAM)
    program = written(folder, build_linux.build(str(folder / "lines.py")).image)
    with Service(program, "--threads") as running:
        yield running


@pytest.mark.parametrize(
    ("task", "arguments", "kind", "place"),
    [
        ("divided", (1, 0), ZeroDivisionError, "lines.py:8, in divided"),
        ("taken", (9,), IndexError, "lines.py:15, in taken"),
        ("within", (0,), ZeroDivisionError, "lines.py:20, in within"),
        ("without", (0,), ZeroDivisionError, "lines.py:20, in within"),
        ("shifted", (-1,), ValueError, "lines.py:29, in shifted"),
        ("checked", (0,), AssertionError, "lines.py:33, in checked"),
        ("stored", (2,), IndexError, "lines.py:39, in stored"),
        ("spread", (0,), ZeroDivisionError, "lines.py:58, in spread"),
        ("number", (float("nan"),), ValueError, "in number"),
        ("large", (1 << 40,), MemoryError, "in large"),
        ("largest", ([],), ValueError, "in largest"),
    ],
)
def test_the_line_is_told(service: Service, task: str, arguments: Any, kind: type[Exception], place: str) -> None:
    with service.client() as client, pytest.raises(kind) as raised:
        client.call(task, *arguments)
    assert raised.value.__notes__ == [place]


MANY = 32_000
LONG = "share_of_each" * 230
"""A function's name so long that so many failures of it are more than can be told in parts."""


def test_an_answer_of_more_parts_than_can_be_counted_is_refused(tmp_path) -> None:
    text = f"from swiftlet.unikernel import service, task\n\n@task\ndef {LONG}(n: int) -> int:\n    return 1 // n\n"
    (tmp_path / "many.py").write_text(f"{text}\napp = service({LONG})\n")
    program = written(tmp_path, build_linux.build(str(tmp_path / "many.py")).image)
    with Service(program, "--threads") as running, running.client() as client:
        with pytest.raises(InputError, match="more parts than can be counted: ask for fewer tasks"):
            client.run(LONG, [0], MANY)
        with pytest.raises(ZeroDivisionError):
            client.run(LONG, [0], 100)


def test_calls_that_come_in_parts_and_never_whole_keep_nobody_out(service: Service) -> None:
    with service.client() as client:
        place, _ = client.find("largest")
        for number in range(40):
            client.call("checked", 1)
            head = Message(wire.CALL, 1000 + number, place, 0, 1, 0, 0, 100, 100 * wire.PART)
            client.send(wire.encoded(head, bytes(wire.PART)))
        assert client.call("checked", 7) == 7
        begin = time.monotonic()
        for number in range(100):
            assert client.call("checked", number + 1) == number + 1
        assert time.monotonic() - begin < 2, "none waits for a place"
