"""A YAML file as plain dicts, lists and strings, with the line of every value; what it means is left to others.

Scalars stay the strings that were written, so `version: 3.10` is 3.10. What no template needs and an enemy
might use is refused: aliases (they grow exponentially), tags, several documents, keys that are not plain
text or come twice, deep nesting, large files. Reading goes event by event, never recursively.
"""

from __future__ import annotations

from typing import Any

import yaml

from swiftlet.model.error import InputError
from swiftlet.resolve.written import MAX_BYTES, read_written

MAX_DEPTH = 12
MAX_VALUES = 50_000

_NOTHING: dict[str, Lines] = {}
"""What is in a text: one for all."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Lines:
    """The line of a value and, by the step that leads there (`.libs`, `[2]`), of those in it.

    A tree, because a whole path for each value would take the keys above it once more for each.
    """

    __slots__ = ("inner", "line")

    def __init__(self, line: int, inner: dict[str, Lines]) -> None:
        self.line = line
        self.inner = inner

    def at(self, path: str) -> int:
        """The line of `$.libs[2]`, 0 where it is unknown. A key may look like several steps: all that fit are tried."""
        fitting = [(self, len("$"))]
        while fitting:
            found, start = fitting.pop()
            if start == len(path):
                return found.line
            fitting += [(each, start + len(step)) for step, each in found.inner.items() if path.startswith(step, start)]
        return 0


class Document:
    """What a YAML file says. root: dicts, lists, strings. Paths into it are spelled `$.libs[2]`."""

    def __init__(self, name: str, root: Any, lines: Lines) -> None:
        self.name = name
        self.root = root
        self.lines = lines

    def error(self, path: str, problem: str, hint: str = "") -> InputError:
        """An error that names the file, the line where it is known, and the path."""
        line = self.lines.at(path)
        where = f"{self.name}:{line}" if line else self.name
        return InputError(f"{where}: {path}: {problem}", hint)


def read_document(path: str) -> Document:
    """Read a YAML file. Raises NotFoundError or InputError, both naming it."""
    return parse_document(read_written(path), path)


def parse_document(data: bytes, name: str) -> Document:
    """The document in `data`; `name` is what errors call it. Raises InputError."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is longer than {MAX_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {error.start}") from None
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{name}{line}: {error.problem or error.context or 'not YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name}: not YAML: {str(error).splitlines()[0] if str(error) else 'cannot be read'}"
        ) from None
    return builder.document()


class _Builder:
    """Puts values together from events; keeps a stack of open containers instead of recursing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = Lines(0, {})
        self.open: list[_Open] = []
        self.root: Any = None
        self.documents = 0
        self.values = 0

    def document(self) -> Document:
        if self.documents == 0:
            raise InputError(f"{self.name}: empty", "a template has at least name and version")
        return Document(self.name, self.root, self.lines)

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self.error(event, "a second document")
        elif isinstance(event, yaml.AliasEvent):
            raise self.error(event, "an alias (*name); write the value out")
        elif isinstance(event, yaml.ScalarEvent):
            self.scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self.begin(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self.begin(event, [])
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self.open.pop()

    def scalar(self, event: Any) -> None:
        self.check(event)
        parent = self.open[-1] if self.open else None
        if parent is not None and parent.wants_key:
            if event.value in parent.value:
                raise self.error(event, f"{self.path}: key {event.value!r} comes twice")
            if "\0" in event.value or len(event.value) > 4096:
                raise self.error(event, f"{self.path}: not a key")
            parent.key = event.value
        else:
            if "\0" in event.value:
                raise self.error(event, "a NUL byte")
            self.place(event, event.value, _NOTHING)

    def begin(self, event: Any, value: Any) -> None:
        self.check(event)
        if self.open and self.open[-1].wants_key:
            raise self.error(event, f"{self.path}: a key that is not text")
        inner: dict[str, Lines] = {}
        step = self.place(event, value, inner)
        self.open.append(_Open(step, value, inner))
        if len(self.open) > MAX_DEPTH:
            raise self.error(event, f"nested deeper than {MAX_DEPTH} levels")

    def check(self, event: Any) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise self.error(event, f"more than {MAX_VALUES} values")
        if event.anchor is not None or event.tag not in (None, "!"):
            raise self.error(event, "an anchor or tag; plain text, lists and maps are enough")

    def place(self, event: Any, value: Any, inner: dict[str, Lines]) -> str:
        lines = Lines(event.start_mark.line + 1, inner)
        if self.open:
            return self.open[-1].add(value, lines)
        self.root, self.lines = value, lines
        return "$"

    @property
    def path(self) -> str:
        """Of the innermost open container."""
        return "".join(each.step for each in self.open)

    def error(self, event: Any, problem: str) -> InputError:
        return InputError(f"{self.name}:{event.start_mark.line + 1}: {problem}")


class _Open:
    """A list or map that is being filled."""

    def __init__(self, step: str, value: Any, inner: dict[str, Lines]) -> None:
        self.step = step
        self.value = value
        self.inner = inner
        self.key: str | None = None

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None

    def add(self, value: Any, lines: Lines) -> str:
        if self.key is not None:
            self.value[self.key] = value
            step, self.key = f".{self.key}", None
        else:
            self.value.append(value)
            step = f"[{len(self.value) - 1}]"
        self.inner[step] = lines
        return step
