"""Checked reading of a Document's values: what is expected, where it is, and a clear error when it is not so.

Templates and workloads are read with these few functions; each takes the path of what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from swiftlet.model.closure import canonical_path
from swiftlet.model.error import InputError
from swiftlet.resolve.document import Document

T = TypeVar("T")
Reader = Callable[[Document, str, Any], T]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def members(document: Document, path: str, value: Any, known: Collection[str]) -> dict[str, Any]:
    """A map whose keys are all `known`."""
    found = mapping(document, path, value)
    for key in found:
        if key not in known:
            raise document.error(f"{path}.{key}", f"unknown key {key!r}", _near(key, known))
    return found


def _near(key: str, known: Collection[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key, known, 1)
    return f"did you mean {close[0]}?" if close else "known keys: " + ", ".join(sorted(known))


def mapping(document: Document, path: str, value: Any) -> dict[str, Any]:
    """A map; nothing at all (`files:`) is an empty one."""
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise document.error(path, f"expected a map, found {_kind(value)}")
    return value


def items(document: Document, path: str, value: Any) -> list[Any]:
    """A list; nothing at all (`libs:`) is an empty one."""
    if value == "":
        return []
    if not isinstance(value, list):
        raise document.error(path, f"expected a list, found {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    return f"the text {value[:40]!r}" if value else "nothing"


def text(document: Document, path: str, value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise document.error(path, f"expected text, found {_kind(value)}")
    return value


def some_text(document: Document, path: str, value: Any) -> str:
    """Text that is not empty."""
    if text(document, path, value) == "":
        raise document.error(path, "expected text, found nothing")
    return str(value)


def list_of(reader: Reader[T]) -> Reader[tuple[T, ...]]:
    """A reader of lists of what `reader` reads."""

    def read(document: Document, path: str, value: Any) -> tuple[T, ...]:
        found = items(document, path, value)
        return tuple(reader(document, f"{path}[{index}]", item) for index, item in enumerate(found))

    return read


def map_of(reader: Reader[T], key: Reader[str] | None = None) -> Reader[dict[str, T]]:
    """A reader of maps of what `reader` reads; `key` checks and spells the keys."""

    def read(document: Document, path: str, value: Any) -> dict[str, T]:
        result: dict[str, T] = {}
        for name, item in mapping(document, path, value).items():
            where = f"{path}.{name}"
            spelled = key(document, where, name) if key else name
            if spelled in result:
                raise document.error(where, f"{spelled!r} comes twice, in two spellings")
            result[spelled] = reader(document, where, item)
        return result

    return read


def parsed(parse: Callable[[str], T]) -> Reader[T]:
    """A reader that gives text to a parser of `model.spelling` and puts the place in front of its error."""

    def read(document: Document, path: str, value: Any) -> T:
        try:
            return parse(some_text(document, path, value))
        except InputError as error:
            raise document.error(path, str(error), error.hint) from None

    return read


def checked(parse: Callable[[str], object]) -> Reader[str]:
    """Like `parsed`, but the text itself is kept once the parser accepts it."""
    reader = parsed(parse)

    def read(document: Document, path: str, value: Any) -> str:
        reader(document, path, value)
        return str(value)

    return read


def guest_path(document: Document, path: str, value: Any) -> str:
    """An absolute guest path in its canonical spelling (merged /usr)."""
    written = some_text(document, path, value)
    try:
        found = canonical_path(written)
    except ValueError as error:
        raise document.error(path, str(error), "write an absolute path in the guest, without ..") from None
    if found == "/" or len(found) > 4000 or any(len(part.encode()) > 255 for part in found.split("/")):
        raise document.error(path, f"not a usable path: {found[:80]!r}")
    return found


def whole_number(lowest: int, highest: int) -> Reader[int]:
    """A reader of decimal numbers within bounds."""

    def read(document: Document, path: str, value: Any) -> int:
        written = text(document, path, value)
        if not re.fullmatch(r"-?[0-9]{1,18}", written) or not lowest <= int(written) <= highest:
            raise document.error(path, f"expected a number from {lowest} to {highest}, found {written[:40]!r}")
        return int(written)

    return read


def flag(document: Document, path: str, value: Any) -> bool:
    """Either `true` or `false`."""
    written = text(document, path, value)
    if written not in ("true", "false"):
        raise document.error(path, f"expected true or false, found {written[:40]!r}")
    return written == "true"


def one_of(*choices: str) -> Reader[str]:
    """A reader of one of a few words."""

    def read(document: Document, path: str, value: Any) -> str:
        written = text(document, path, value)
        if written not in choices:
            raise document.error(path, f"expected one of {', '.join(choices)}; found {written[:40]!r}")
        return written

    return read


def variable(document: Document, path: str, value: Any) -> str:
    """The name of an environment variable."""
    written = text(document, path, value)
    if not _VARIABLE.fullmatch(written):
        raise document.error(path, f"not a variable's name: {written[:40]!r}")
    return written
