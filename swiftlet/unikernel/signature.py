"""A task's signature as callers see it, and values as the wire has them: little-endian, eight bytes each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from swiftlet.model.error import InputError

NAMES = {"i": "int", "f": "float", "b": "bool"}
_FORMS = {"i": "<q", "f": "<d", "b": "<q"}
_LEAST, _BEYOND = -(1 << 63), 1 << 63


class Signature(NamedTuple):
    """arguments: (name, code) each; codes as in NAMES. result: a code. line: where the task is."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    result: str
    line: int = 0

    @property
    def room(self) -> int:
        """Bytes of a result."""
        return 8

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}: {NAMES[code]}" for name, code in self.arguments)
        return f"{self.name}({arguments}) -> {NAMES[self.result]}"


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


def packed(signature: Signature, values: Sequence[Any]) -> bytes:
    """Arguments as they are sent. Raises InputError."""
    if len(values) != len(signature.arguments):
        raise InputError(f"{signature} takes {len(signature.arguments)} arguments, not {len(values)}")
    return b"".join(_packed(name, code, value) for (name, code), value in zip(signature.arguments, values, strict=True))


def _packed(name: str, code: str, value: Any) -> bytes:
    try:
        if code == "f":
            return struct.pack("<d", float(value))
        number = int(value) if code == "i" else int(bool(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}: {value!r} is no {NAMES[code]}") from None
    if not _LEAST <= number < _BEYOND:
        raise InputError(f"{name}: {value} does not fit 64 bits")
    return struct.pack("<q", number)


def parsed(signature: Signature, words: Sequence[str]) -> list[Any]:
    """Arguments from a command line. Raises InputError."""
    if len(words) != len(signature.arguments):
        raise InputError(f"{signature} takes {len(signature.arguments)} arguments, not {len(words)}")
    return [_word(name, code, word) for (name, code), word in zip(signature.arguments, words, strict=True)]


def _word(name: str, code: str, word: str) -> Any:
    try:
        if code == "b":
            return {"true": True, "false": False, "1": True, "0": False}[word.lower()]
        return float(word) if code == "f" else int(word, 0)
    except (KeyError, ValueError):
        raise InputError(f"{name}: {word!r} is no {NAMES[code]}") from None


def unpacked(code: str, data: bytes) -> Any:
    """A result. Raises InputError for data of another length."""
    if len(data) != 8:
        raise InputError(f"a result of {len(data)} bytes where {NAMES[code]} has 8")
    value = struct.unpack(_FORMS[code], data)[0]
    return bool(value) if code == "b" else value
