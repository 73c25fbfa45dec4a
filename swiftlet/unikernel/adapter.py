"""The adapters' texts: Python that reads a task's arguments from the wire, calls it, and writes its result. Pure.

Numba compiles them with the task. They use the words of `access`; every length is checked before it is believed.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

from swiftlet.unikernel.signature import WORD, Signature, elements_of, size_of

_SHORT = 'raise TypeError("the arguments of {0} are cut short, or of other types")'
_LARGE = 'raise MemoryError("the result of {0} is larger than its room")'


class _Text:
    """Lines of a function's body, and names that nobody has yet."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.lines: list[str] = []
        self.kinds: dict[str, type] = {}
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"value_{self._count}"

    def add(self, line: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + line)

    def refuse_unless(self, condition: str, complaint: str) -> None:
        self.add(f"if not ({condition}):")
        self.add(complaint.format(self.task), 2)


def source(signature: Signature, number: int, hints: Sequence[Any]) -> tuple[str, dict[str, type]]:
    """The adapter of a task, as Python, and the named tuples that it makes, by the names that it has for them.

    hints: the arguments' annotations.
    """
    text = _Text(signature.name)
    names = [_read(text, code, hint) for (_, code), hint in zip(signature.arguments, hints, strict=True)]
    text.refuse_unless("place == end", _SHORT)
    text.add(f"result = task({', '.join(names)})")
    if size := size_of(signature.result):
        text.refuse_unless(f"capacity >= {size}", _LARGE)
    _write(text, signature.result, "result")
    head = f"def adapter_{number}(arguments, length, output, capacity):"
    begin = ["    place, end = arguments, arguments + length", "    out, limit = output, output + capacity"]
    return "\n".join([head, *begin, *text.lines, "    return out - output", ""]), text.kinds


def _read(text: _Text, code: str, hint: Any) -> str:
    """Lines that read a value; the expression for it then."""
    if code.startswith("("):
        named = isinstance(hint, type) and hasattr(hint, "_fields")
        hints = tuple(typing.get_type_hints(hint).values()) if named else typing.get_args(hint)
        inside = [_read(text, each, one) for each, one in zip(elements_of(code), hints, strict=True)]
        if not named:
            return f"({', '.join(inside)},)"
        text.kinds[kind := f"kind_{len(text.kinds)}"] = hint
        return f"{kind}({', '.join(inside)})"
    name = text.name()
    if code in ("i", "f", "b"):
        text.refuse_unless(f"place + {WORD} <= end", _SHORT)
        word = {"i": "read_int(place)", "f": "read_float(place)", "b": "read_int(place) != 0"}[code]
        text.add(f"{name} = {word}")
        text.add(f"place += {WORD}")
    elif code == "s":
        text.refuse_unless(f"place + {WORD} <= end", _SHORT)
        text.add("size = read_int(place)")
        text.refuse_unless(f"0 <= size <= end - place - {WORD}", _SHORT)
        text.add(f"{name} = read_bytes(place + {WORD}, size)")
        text.add(f"place += {WORD} + (size + {WORD - 1}) // {WORD} * {WORD}")
    else:
        _read_array(text, code, name)
    return name


def _read_array(text: _Text, code: str, name: str) -> None:
    """An array is copied: tasks of one call share their arguments, and each may write to its own."""
    dimensions = int(code[1])
    text.refuse_unless(f"place + {WORD * dimensions} <= end", _SHORT)
    text.add("rows = read_int(place)")
    text.add("columns = " + (f"read_int(place + {WORD})" if dimensions == 2 else "1"))
    text.add(f"place += {WORD * dimensions}")
    most = f"(end - place) // {WORD}"
    text.refuse_unless(f"0 <= rows <= {most} and columns >= 0 and (rows == 0 or columns <= {most} // rows)", _SHORT)
    pointer = "pointer_int" if code[0] == "I" else "pointer_float"
    shape = "(rows, columns)" if dimensions == 2 else "(rows,)"
    text.add(f"{name} = carray({pointer}(place), {shape}).copy()")
    text.add(f"place += rows * columns * {WORD}")


def _write(text: _Text, code: str, value: str) -> None:
    """Lines that write a value behind what was written."""
    if code.startswith("("):
        for place, each in enumerate(elements_of(code)):
            _write(text, each, f"{value}[{place}]")
        return
    if code in ("i", "f", "b"):
        text.refuse_unless(f"out + {WORD} <= limit", _LARGE)
        word = {"i": "write_int(out, {0})", "f": "write_float(out, {0})", "b": "write_int(out, 1 if {0} else 0)"}[code]
        text.add(word.format(value))
        text.add(f"out += {WORD}")
        return
    name = text.name()
    text.add(f"{name} = {value}")
    if code == "s":
        _write_bytes(text, name)
    else:
        _write_array(text, code, name)


def _write_bytes(text: _Text, name: str) -> None:
    text.add(f"size = len({name})")
    text.refuse_unless(f"size <= limit - out - {2 * WORD}", _LARGE)
    text.add("write_int(out, size)")
    text.add(f"out += {WORD}")
    text.add("for index in range(size):")
    text.add(f"write_byte(out + index, {name}[index])", 2)
    text.add(f"for index in range(size, (size + {WORD - 1}) // {WORD} * {WORD}):")
    text.add("write_byte(out + index, 0)", 2)
    text.add(f"out += (size + {WORD - 1}) // {WORD} * {WORD}")


def _write_array(text: _Text, code: str, name: str) -> None:
    dimensions = int(code[1])
    text.refuse_unless(f"{WORD} * ({name}.size + {dimensions}) <= limit - out", _LARGE)
    for dimension in range(dimensions):
        text.add(f"write_int(out, {name}.shape[{dimension}])")
        text.add(f"out += {WORD}")
    write: Callable[[str], str] = ("write_int(out, {0})" if code[0] == "I" else "write_float(out, {0})").format
    text.add(f"for item in {name}.flat:")
    text.add(write("item"), 2)
    text.add(f"out += {WORD}", 2)
