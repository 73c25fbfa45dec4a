"""Of what goes wrong in a task, the caller is told the line: of the program's own, of nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from swiftlet.unikernel import build_linux
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

app = service(divided, taken, within, without, shifted, checked, stored, number, large, largest)
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
        ("number", (float("nan"),), ValueError, "in number"),
        ("large", (1 << 40,), MemoryError, "in large"),
        ("largest", ([],), ValueError, "in largest"),
    ],
)
def test_the_line_is_told(service: Service, task: str, arguments: Any, kind: type[Exception], place: str) -> None:
    with service.client() as client, pytest.raises(kind) as raised:
        client.call(task, *arguments)
    assert raised.value.__notes__ == [place]
