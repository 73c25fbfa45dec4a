"""What cannot be compiled is refused with its line, in words of the program's, whatever Numba says of it."""

from __future__ import annotations

import pytest

from swiftlet.model.error import InputError
from swiftlet.unikernel import compile as tasks

HEAD = """\
import numpy as np
from swiftlet.unikernel import float64, int64, service, task

@task
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(a: int) -> int:\n    b = a\n    return b + missing\n", ":7: nothing has the name missing"),
        ("def f(a: int) -> int:\n    return helper(a)\n", ":6: nothing has the name helper"),
        ("def f(a: float64[:, :]) -> float64[:, :]:\n    return a @ a\n", ":6: there is no linear algebra"),
        (
            "def f(a: float64[:]) -> float:\n    b = a * 2.0\n    return np.dot(a, b)\n",
            ":7: there is no linear algebra",
        ),
        ("def f(a: float64[:, :]) -> float64[:]:\n    return np.linalg.solve(a, a[0])\n", ":6: there is no linear"),
        ("def f(a: int) -> int:\n    return a + 'x'\n", ":6: there is no add of int, str"),
        ("def f(a: int) -> int:\n    return 'x'\n", ":4: f returns str, and says int"),
        ("def f(a: int) -> int:\n    return a / 2\n", ":4: f returns float, and says int"),
        ("def f(a: int) -> int:\n    if a:\n        return 1\n", ":4: f returns nothing on one of its paths"),
        ("def f(a: int64[:]) -> float:\n    return a.median()\n", r":6: int64\[:\] has no median in a task"),
        ("def f(a: float64[:]) -> float64[:]:\n    return np.fft.fft(a)\n", ":6: a task has no numpy.fft"),
        ("def f(a: float64[:]) -> float64[:]:\n    return np.nosuch(a)\n", ":6: numpy has no nosuch"),
        ("def f(a: bytes) -> bool:\n    return a == b'x'\n", ":6: bytes are compared one by one"),
        ("def f(a: int) -> int:\n    return 1 + f(a)\n", ":6: it calls itself on every path"),
        ("def f(a: int64) -> int:\n    return a\n", ":4: f: its argument a is one number, and no array"),
    ],
)
def test_the_line_and_the_reason_are_told(tmp_path, text, told):
    path = tmp_path / "refused.py"
    path.write_text(f"{HEAD}{text}\napp = service(f)\n")
    with pytest.raises(InputError, match=rf"^refused\.py{told}") as raised:
        tasks.compiled(str(path))
    assert raised.value.hint


def test_a_mistake_of_the_compilers_own_is_not_the_programs(tmp_path, monkeypatch):
    path = tmp_path / "refused.py"
    path.write_text(f"{HEAD}def f(a: int) -> int:\n    return a\n\napp = service(f)\n")

    def broken(*_, **__):
        raise AttributeError("'NoneType' object has no attribute 'x'")

    monkeypatch.setattr(tasks.compiler, "compile_extra", broken)
    with pytest.raises(AttributeError):
        tasks.compiled(str(path))
