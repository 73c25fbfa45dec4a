"""A task's signature as callers see it. Kinds of values are written as codes, which are the same everywhere:

::

    i int (64 bits)    f float    b bool    s bytes    (..) tuple of what is between
    I1 I2 F1 F2        arrays of int64 or float64 with one or two dimensions
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

NAMES = {
    "i": "int",
    "f": "float",
    "b": "bool",
    "s": "bytes",
    "I1": "int64[:]",
    "I2": "int64[:, :]",
    "F1": "float64[:]",
    "F2": "float64[:, :]",
}
WORD = 8
"""Bytes of a number, and of a length; everything lies on a multiple of it."""


class Signature(NamedTuple):
    """arguments: (name, code) each. result: a code. line: where the task is."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    result: str
    line: int = 0

    @property
    def room(self) -> int:
        """Bytes of a result; 0 where they are known only when it is there."""
        return size_of(self.result)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}: {name_of(code)}" for name, code in self.arguments)
        return f"{self.name}({arguments}) -> {name_of(self.result)}"


def elements_of(code: str) -> list[str]:
    """The codes between a tuple's parentheses."""
    return list(_split(code[1:-1]))


def _split(text: str) -> Iterator[str]:
    depth, begin = 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        following = text[place + 1 : place + 2]
        if depth == 0 and not following.isdigit():
            yield text[begin : place + 1]
            begin = place + 1


def size_of(code: str) -> int:
    """Bytes of every value of a kind; 0 where they differ."""
    if code.startswith("("):
        sizes = [size_of(each) for each in elements_of(code)]
        return sum(sizes) if all(sizes) else 0
    return WORD if code in ("i", "f", "b") else 0


def name_of(code: str) -> str:
    """A kind as a program writes it."""
    if code.startswith("("):
        return f"tuple[{', '.join(name_of(each) for each in elements_of(code))}]"
    return NAMES.get(code, code)


def described(signatures: Sequence[Signature]) -> list[dict[str, Any]]:
    """As a service tells it."""
    return [
        {
            "name": each.name,
            "arguments": [list(one) for one in each.arguments],
            "result": each.result,
            "line": each.line,
        }
        for each in signatures
    ]


def from_description(tasks: Sequence[dict[str, Any]]) -> tuple[Signature, ...]:
    """What a service has told. Raises KeyError, TypeError, ValueError for nonsense."""
    return tuple(
        Signature(
            str(each["name"]),
            tuple((str(name), str(code)) for name, code in each["arguments"]),
            str(each["result"]),
            int(each["line"]),
        )
        for each in tasks
    )
