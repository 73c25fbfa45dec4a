"""What a kernel tree's Kconfig files say of an option: where it stands, what it needs, selects and is by default.

Only what an explanation takes is read. Decisions are the kernel's own tools' (`build`), which know the whole
language (Documentation/kbuild/kconfig-language.rst of the tree); what a condition means is `expression`'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from swiftlet.image.kernel.expression import failing_parts, split_condition
from swiftlet.model.error import InputError

_BEGIN = re.compile(r"(config|menuconfig|choice|menu|if|endif|endmenu|endchoice|source|comment|mainmenu)\b\s*(.*)")
_DEPENDS = re.compile(r"(?:depends on|visible if)\s+(.*)")
_TITLE = re.compile(r"(?:bool|tristate|string|hex|int|prompt)\b\s*(.*)")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")
_DEFAULT = re.compile(r"(?:default|def_bool|def_tristate)\s+(.*)")
_PULL = re.compile(r"(select|imply)\s+(\w+)(.*)")


class Clause(NamedTuple):
    """`what if condition`: what is selected (CONFIG_X), or the value of a default. condition: "" always holds."""

    what: str
    condition: str


class Option(NamedTuple):
    """One definition of an option; there may be several. conditions: all must hold, from the outermost on.

    title: what menus show, "" for an option that nobody can set, only other options and defaults. shown: where menus
    show it, beyond its conditions. choice: the title of the choice of which it is one answer.
    """

    symbol: str
    title: str
    conditions: tuple[str, ...]
    file: str
    line: int
    shown: str = ""
    selects: tuple[Clause, ...] = ()
    implies: tuple[Clause, ...] = ()
    defaults: tuple[Clause, ...] = ()
    help: str = ""
    choice: str = ""


def read_tree(tree: str, arch: str = "x86") -> dict[str, list[Option]]:
    """Every option of a kernel tree, by symbol (CONFIG_X). Raises InputError for a folder that is no kernel tree."""
    if not os.path.exists(f"{tree}/Kconfig"):
        raise InputError(f"{tree} is no kernel tree: it has no Kconfig file")
    found: dict[str, list[Option]] = {}
    reader = _Reader(tree, arch)
    reader.read("Kconfig", _Block())
    for option in reader.options:
        found.setdefault(option.symbol, []).append(option)
    return found


def failing(option: Option, values: Mapping[str, str]) -> list[str]:
    """The parts of an option's conditions that do not hold in a configuration, each joined by && with the rest."""
    return [part for condition in option.conditions for part in failing_parts(condition, values)]


@dataclass
class _Block:
    """A menu, choice or `if` and those around it."""

    conditions: tuple[str, ...] = ()
    choice: str = ""
    is_choice: bool = False


@dataclass
class _Draft:
    """An option that is being read."""

    symbol: str
    line: int
    conditions: list[str]
    choice: str
    title: str = ""
    shown: str = ""
    help: str = ""
    selects: list[Clause] = field(default_factory=list)
    implies: list[Clause] = field(default_factory=list)
    defaults: list[Clause] = field(default_factory=list)

    def option(self, file: str) -> Option:
        return Option(
            self.symbol, self.title, tuple(self.conditions), file, self.line, self.shown, tuple(self.selects),
            tuple(self.implies), tuple(self.defaults), self.help, self.choice,
        )  # fmt: skip


class _Reader:
    """Reads one file after the other. What stands before the first option of a block is the block's."""

    def __init__(self, tree: str, arch: str) -> None:
        self.tree = tree
        self.arch = arch
        self.options: list[Option] = []

    def read(self, path: str, outer: _Block) -> None:
        """Read a file and what it sources, around which `outer` stands."""
        try:
            with open(f"{self.tree}/{path}", errors="replace") as file:
                lines = list(_logical(file.read()))
        except FileNotFoundError:
            return  # Kconfig files of other architectures and of tools may be left out of a package
        around = [outer]
        current: _Draft | _Block | None = None
        for line in lines:
            if not line.is_help and (match := _BEGIN.match(line.text)):
                self._finish(current, path)
                current = self._begin(match[1], match[2], line.number, around)
            elif isinstance(current, _Draft):
                _attribute(line, current)
            elif current is not None:
                _attribute_of_block(line, current)
        self._finish(current, path)

    def _begin(self, word: str, rest: str, number: int, around: list[_Block]) -> _Draft | _Block | None:
        block = around[-1]
        if word in ("config", "menuconfig"):
            return _Draft(f"CONFIG_{rest.strip()}", number, list(block.conditions), block.choice)
        if word == "if":
            around.append(_Block((*block.conditions, rest), block.choice))
        elif word in ("menu", "choice"):
            around.append(_Block(block.conditions, block.choice, word == "choice"))
            return around[-1]
        elif word in ("endif", "endmenu", "endchoice") and len(around) > 1:
            around.pop()
        elif word == "source":
            path = rest.strip().strip('"').replace("$(SRCARCH)", self.arch).replace("$SRCARCH", self.arch)
            self.read(path, block)
        return None

    def _finish(self, current: _Draft | _Block | None, path: str) -> None:
        if isinstance(current, _Draft):
            self.options.append(current.option(path))


def _attribute_of_block(line: _Line, block: _Block) -> None:
    if match := _DEPENDS.match(line.text):
        block.conditions = (*block.conditions, match[1])
    elif block.is_choice and (match := _TITLE.match(line.text)):
        block.choice = _quoted(match[1])[0] or block.choice


def _attribute(line: _Line, draft: _Draft) -> None:
    if line.is_help:
        draft.help = line.text
    elif match := _DEPENDS.match(line.text):
        draft.conditions.append(match[1])
    elif match := _DEFAULT.match(line.text):
        draft.defaults.append(Clause(*split_condition(match[1])))
    elif match := _PULL.match(line.text):
        clauses = draft.selects if match[1] == "select" else draft.implies
        clauses.append(Clause(f"CONFIG_{match[2]}", split_condition(match[3])[1]))
    elif (match := _TITLE.match(line.text)) and match[1]:
        title, rest = _quoted(match[1])
        if title:
            draft.title, draft.shown = title, split_condition(f" {rest}")[1]


def _quoted(text: str) -> tuple[str, str]:
    """A text in quotes, and what comes after it."""
    match = _QUOTED.match(text)
    return (match[1] or match[2] or "", text[match.end() :]) if match else ("", text)


class _Line(NamedTuple):
    number: int
    text: str
    is_help: bool = False


def _logical(text: str) -> Iterator[_Line]:
    """Lines with what continues them, without comments, and each help text as one line of its own kind."""
    waiting: list[str] = []
    lines = [line.expandtabs(8) for line in text.splitlines()]
    number = 0
    while number < len(lines):
        stripped = lines[number].strip()
        number += 1
        if stripped in ("help", "---help---") and not waiting:
            begin, number = number, _end_of_help(lines, number)
            yield _Line(begin, _dedented(lines[begin:number]), is_help=True)
            continue
        waiting.append(stripped.removesuffix("\\"))
        if not stripped.endswith("\\"):
            whole = " ".join(waiting).strip()
            waiting = []
            if whole and not whole.startswith("#"):
                yield _Line(number, re.sub(r'\s#[^"]*$', "", whole))


def _end_of_help(lines: list[str], begin: int) -> int:
    """Where a help text ends: at the first line that is indented less than its first one."""
    indent = 0
    for place in range(begin, len(lines)):
        if not lines[place].strip():
            continue
        own = len(lines[place]) - len(lines[place].lstrip())
        indent = indent or own
        if own < indent or not own:
            return place
    return len(lines)


def _dedented(lines: list[str]) -> str:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:].rstrip() for line in lines).strip()
