"""What a kernel tree's Kconfig files say of an option: where it stands, what it depends on, and which of that fails.

Only what an explanation takes is read. Decisions are the kernel's own tools' (`build`), which know the whole language;
here an expression that cannot be told (a compiler's answer, `$(...)`) counts as met. Format:
Documentation/kbuild/kconfig-language.rst of the tree.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from swiftlet.model.error import InputError

_TOKEN = re.compile(
    r'\s*(?:(&&|\|\||!=|<=|>=|[()!=<>])|("[^"]*"|\'[^\']*\')|(\$\([^()]*(?:\([^()]*\)[^()]*)*\))|([\w./-]+))'
)
_BEGIN = re.compile(r"(config|menuconfig|choice|menu|if|endif|endmenu|endchoice|source|comment|mainmenu)\b\s*(.*)")
_DEPENDS = re.compile(r"(?:depends on|visible if)\s+(.*)")
_TITLE = re.compile(r'(?:bool|tristate|string|hex|int|def_bool|def_tristate|prompt)\b\s*(?:"((?:[^"\\]|\\.)*)")?')


class Option(NamedTuple):
    """One definition of an option; there may be several. conditions: all must hold, from the outermost on.

    title: what menus show, "" for an option that nobody can set, only other options and defaults.
    """

    symbol: str
    title: str
    conditions: tuple[str, ...]
    file: str
    line: int


def read_tree(tree: str, arch: str = "x86") -> dict[str, list[Option]]:
    """Every option of a kernel tree, by symbol (CONFIG_X). Raises InputError for a folder that is no kernel tree."""
    if not os.path.exists(f"{tree}/Kconfig"):
        raise InputError(f"{tree} is no kernel tree: it has no Kconfig file")
    found: dict[str, list[Option]] = {}
    reader = _Reader(tree, arch)
    reader.read("Kconfig", ())
    for option in reader.options:
        found.setdefault(option.symbol, []).append(option)
    return found


class _Reader:
    """Reads one file after the other. A block's conditions are those around it and its own."""

    def __init__(self, tree: str, arch: str) -> None:
        self.tree = tree
        self.arch = arch
        self.options: list[Option] = []

    def read(self, path: str, outer: tuple[str, ...]) -> None:
        """Read a file and what it sources, whose conditions are `outer`."""
        try:
            with open(f"{self.tree}/{path}", errors="replace") as file:
                lines = list(_logical(file.read()))
        except FileNotFoundError:
            return  # Kconfig files of other architectures and of tools may be left out of a package
        around: list[tuple[str, ...]] = [outer]
        current: dict[str, object] | None = None
        for number, line in lines:
            if match := _BEGIN.match(line):
                self._finish(current, path)
                current = self._begin(match[1], match[2], number, around)
            elif current is not None:
                self._attribute(line, current, around)
        self._finish(current, path)

    def _begin(self, word: str, rest: str, number: int, around: list[tuple[str, ...]]) -> dict[str, object] | None:
        if word in ("config", "menuconfig"):
            return {"symbol": rest.strip(), "title": "", "line": number, "conditions": list(around[-1])}
        if word == "if":
            around.append((*around[-1], rest))
        elif word in ("menu", "choice"):
            around.append(around[-1])
            return {"block": True}
        elif word in ("endif", "endmenu", "endchoice") and len(around) > 1:
            around.pop()
        elif word == "source":
            self.read(
                rest.strip().strip('"').replace("$(SRCARCH)", self.arch).replace("$SRCARCH", self.arch), around[-1]
            )
        return None

    def _attribute(self, line: str, current: dict[str, object], around: list[tuple[str, ...]]) -> None:
        if match := _DEPENDS.match(line):
            if "block" in current:
                around[-1] = (*around[-1], match[1])
            else:
                conditions = current["conditions"]
                assert isinstance(conditions, list)
                conditions.append(match[1])
        elif (match := _TITLE.match(line)) and match[1]:
            current["title"] = match[1]

    def _finish(self, current: dict[str, object] | None, path: str) -> None:
        if current is None or "block" in current:
            return
        conditions, line = current["conditions"], current["line"]
        assert isinstance(conditions, list) and isinstance(line, int)
        symbol = f"CONFIG_{current['symbol']}"
        self.options.append(Option(symbol, str(current["title"]), tuple(conditions), path, line))


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines with what continues them, without comments and help texts, and their numbers."""
    help_indent = -1
    waiting: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.expandtabs(8)
        indent = len(line) - len(line.lstrip())
        if help_indent >= 0:
            if not line.strip() or (help_indent == 0 and indent) or (help_indent and indent >= help_indent):
                help_indent = help_indent or (indent if line.strip() else 0)
                continue
            help_indent = -1
        stripped = line.strip()
        if stripped in ("help", "---help---") and not waiting:
            help_indent = 0
            continue
        waiting.append(stripped.removesuffix("\\"))
        if not stripped.endswith("\\"):
            whole = " ".join(waiting).strip()
            waiting = []
            if whole and not whole.startswith("#"):
                yield number, re.sub(r'\s#[^"]*$', "", whole)


def failing(option: Option, values: Mapping[str, str]) -> list[str]:
    """The parts of an option's conditions that do not hold in a configuration, each joined by && with the rest."""
    found = []
    for condition in option.conditions:
        for part in _conjuncts(_tokens(condition)):
            if not _Parser(part, values).value():
                found.append(" ".join(part).replace("( ", "(").replace(" )", ")").replace("! ", "!"))
    return found


def _tokens(expression: str) -> list[str]:
    found = []
    place = 0
    while match := _TOKEN.match(expression, place):
        found.append(next(group for group in match.groups() if group is not None))
        place = match.end()
    return found


def _conjuncts(tokens: list[str]) -> list[list[str]]:
    """An expression cut at those && that are in no parentheses, if no || is there beside them."""
    depth, cuts = 0, [-1]
    for place, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0 and token == "||":
            return [tokens]
        if depth == 0 and token == "&&":
            cuts.append(place)
    cuts.append(len(tokens))
    return [tokens[start + 1 : end] for start, end in itertools.pairwise(cuts)]


class _Parser:
    """Recursive descent: or, and, not, comparison. Of three states m counts as y: guests have no modules."""

    def __init__(self, tokens: list[str], values: Mapping[str, str]) -> None:
        self.tokens = tokens
        self.values = values
        self.place = 0

    def value(self) -> bool:
        """Whether the whole holds; what is cut short or cannot be told does."""
        return self._or()

    def _take(self) -> str:
        token = self.tokens[self.place] if self.place < len(self.tokens) else "y"
        self.place += 1
        return token

    def _next_is(self, *tokens: str) -> bool:
        return self.place < len(self.tokens) and self.tokens[self.place] in tokens

    def _or(self) -> bool:
        value = self._and()
        while self._next_is("||"):
            self._take()
            value = self._and() or value
        return value

    def _and(self) -> bool:
        value = self._not()
        while self._next_is("&&"):
            self._take()
            value = self._not() and value
        return value

    def _not(self) -> bool:
        if self._next_is("!"):
            self._take()
            return not self._not()
        if self._next_is("("):
            self._take()
            value = self._or()
            self._take()
            return value
        return self._comparison()

    def _comparison(self) -> bool:
        left = self._take()
        if not self._next_is("=", "!=", "<", ">", "<=", ">="):
            return left.startswith("$(") or self._of(left) in ("y", "m")
        operator, right = self._take(), self._take()
        if "$(" in left + right:
            return True
        return _compare(self._of(left), operator, self._of(right))

    def _of(self, token: str) -> str:
        if token in ("y", "m", "n") or token[0] in "\"'" or token.lstrip("-").isdigit():
            return token.strip("\"'")
        return self.values.get(f"CONFIG_{token}", "n").strip('"')


def _compare(left: str, operator: str, right: str) -> bool:
    try:
        order = (int(left, 0) > int(right, 0)) - (int(left, 0) < int(right, 0))
    except ValueError:
        order = (left > right) - (left < right)
    return {"=": order == 0, "!=": order != 0, "<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[
        operator
    ]
