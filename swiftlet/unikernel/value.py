"""Values as the wire has them: little-endian words of eight bytes; lengths and dimensions before what they are of.

Arrays may be given as nested sequences or as anything with a buffer, and come back as numpy's in a program that has
imported numpy, else as nested lists.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from typing import Any

from swiftlet.model.error import InputError
from swiftlet.unikernel.signature import WORD, Signature, elements_of, name_of

_LEAST, _BEYOND = -(1 << 63), 1 << 63
_ITEM = {"I": "q", "F": "d"}


def packed(signature: Signature, values: Sequence[Any]) -> bytes:
    """Arguments as they are sent. Raises InputError."""
    if len(values) != len(signature.arguments):
        raise InputError(f"{signature} takes {_count(len(signature.arguments))}, not {len(values)}")
    return b"".join(_packed(name, code, value) for (name, code), value in zip(signature.arguments, values, strict=True))


def _packed(name: str, code: str, value: Any) -> bytes:
    try:
        if code.startswith("("):
            inside = elements_of(code)
            if len(value) != len(inside):
                raise InputError(f"{name}: {name_of(code)} has {len(inside)} elements, not {len(value)}")
            return b"".join(_packed(f"{name}[{place}]", each, value[place]) for place, each in enumerate(inside))
        if code == "s":
            data = bytes(value) if not isinstance(value, int | str) else None
            if data is None:
                raise TypeError
            return struct.pack("<q", len(data)) + data + bytes(-len(data) % WORD)
        if code[0] in _ITEM:
            return _packed_array(name, code, value)
        return _packed_number(name, code, value)
    except (AttributeError, TypeError, ValueError, OverflowError, struct.error):
        raise InputError(f"{name}: {str(value)[:60]} is no {name_of(code)}") from None


def _packed_number(name: str, code: str, value: Any) -> bytes:
    if code == "f":
        return struct.pack("<d", float(value))
    number = int(bool(value)) if code == "b" else value.__index__()
    if not _LEAST <= number < _BEYOND:
        raise InputError(f"{name}: {value} does not fit 64 bits")
    return struct.pack("<q", number)


def _packed_array(name: str, code: str, value: Any) -> bytes:
    form, dimensions = _ITEM[code[0]], int(code[1])
    shape: Sequence[int]
    view = _view(value)
    if view is not None and view.ndim == dimensions and view.format in (form, "l" if form == "q" else form):
        shape, data = view.shape or (), view.tobytes()
    else:
        shape, items = _flat(value, dimensions)
        data = struct.pack(f"<{len(items)}{form}", *items)
    return struct.pack(f"<{dimensions}q", *shape) + data


def _view(value: Any) -> memoryview | None:
    """Its buffer, if it has one."""
    try:
        return memoryview(value)
    except TypeError:
        return None


def _flat(value: Any, dimensions: int) -> tuple[tuple[int, ...], list[Any]]:
    """A nested sequence's shape and its items, row after row. Raises ValueError where rows differ."""
    if dimensions == 1:
        items = list(value)
        return (len(items),), items
    rows = [list(row) for row in value]
    width = len(rows[0]) if rows else 0
    if any(len(row) != width for row in rows):
        raise ValueError("rows of different lengths")
    return (len(rows), width), [item for row in rows for item in row]


def parsed(signature: Signature, words: Sequence[str]) -> list[Any]:
    """Arguments from a command line; tuples and arrays as JSON has them. Raises InputError."""
    if len(words) != len(signature.arguments):
        raise InputError(f"{signature} takes {_count(len(signature.arguments))}, not {len(words)}")
    return [_word(name, code, word) for (name, code), word in zip(signature.arguments, words, strict=True)]


def _word(name: str, code: str, word: str) -> Any:
    try:
        if code == "b":
            return {"true": True, "false": False, "1": True, "0": False}[word.lower()]
        if code == "s":
            return word.encode()
        if code in ("i", "f"):
            return float(word) if code == "f" else int(word, 0)
        return _from_json(code, json.loads(word))
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{name}: {word!r} is no {name_of(code)}") from None


def _from_json(code: str, value: Any) -> Any:
    """What JSON says, with the texts that stand for bytes."""
    if code.startswith("("):
        return tuple(_from_json(each, item) for each, item in zip(elements_of(code), value, strict=True))
    return value.encode() if code == "s" else value


def unpacked(code: str, data: bytes) -> Any:
    """A result. Raises InputError for data of another length."""
    try:
        value, place = _unpacked(code, data, 0)
    except struct.error:
        place = -1
    if place != len(data):
        raise InputError(f"a result of {len(data)} bytes is no {name_of(code)}")
    return value


def _unpacked(code: str, data: bytes, place: int) -> tuple[Any, int]:
    if code.startswith("("):
        found = []
        for each in elements_of(code):
            value, place = _unpacked(each, data, place)
            found.append(value)
        return tuple(found), place
    if code == "s":
        (length,) = struct.unpack_from("<q", data, place)
        place += WORD
        return data[place : place + length], place + length + -length % WORD
    if code[0] in _ITEM:
        return _unpacked_array(code, data, place)
    (number,) = struct.unpack_from("<d" if code == "f" else "<q", data, place)
    return (bool(number) if code == "b" else number), place + WORD


_MOST_EMPTY = 1 << 20
"""Rows without anything in them that a result may have: a list would have so many."""


def _unpacked_array(code: str, data: bytes, place: int) -> tuple[Any, int]:
    dimensions = int(code[1])
    shape = struct.unpack_from(f"<{dimensions}q", data, place)
    place += WORD * dimensions
    count = 1
    for each in shape:
        count *= each
    end = place + count * WORD
    if count < 0 or end > len(data) or (count == 0 and max(shape) > _MOST_EMPTY):
        raise struct.error
    return _array(data[place:end], _ITEM[code[0]], shape), end


def _array(data: bytes, form: str, shape: tuple[int, ...]) -> Any:
    if "numpy" in sys.modules:
        import numpy

        return numpy.frombuffer(data, numpy.float64 if form == "d" else numpy.int64).reshape(shape)
    if not data:
        return [] if len(shape) == 1 else [[] for _ in range(shape[0])]
    return memoryview(data).cast("d", shape).tolist() if form == "d" else memoryview(data).cast("q", shape).tolist()


def _count(arguments: int) -> str:
    return "1 argument" if arguments == 1 else f"{arguments} arguments"
