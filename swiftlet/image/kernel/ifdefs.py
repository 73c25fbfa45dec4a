"""Which options a line of C or assembly stands under: `#ifdef CONFIG_X`, `#if IS_ENABLED(...)`, `if (IS_ENABLED(...))`.

What is asked is always the same: this line has run under these values, so which options had to be on? Conditions that
are no options' are passed over. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_DIRECTIVE = re.compile(r"\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)")
_TOKEN = re.compile(
    r"\s*(\|\||&&|!=|[!()]|(?:IS_ENABLED|IS_BUILTIN|IS_REACHABLE|defined)\s*\(\s*\w+\s*\)|defined\s+\w+|\w+|[^\s\w()!&|]+|.)"
)
_ASKS = re.compile(r"(?:(?:IS_ENABLED|IS_BUILTIN|IS_REACHABLE|defined)\b\s*\(?\s*)?(CONFIG_\w+)\s*\)?")
_IF = re.compile(r"(?:^|[\s}])if\s*\((.*)")
_ENABLED = re.compile(r"(!?)\s*\bIS_(?:ENABLED|BUILTIN|REACHABLE)\(\s*(CONFIG_\w+)\s*\)")
_LITERALS = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)+'|//.*|/\*.*?\*/")


class Range(NamedTuple):
    """Lines `first` to `last` stand under a condition, in the preprocessor's words."""

    first: int
    last: int
    condition: str


_OPENING = {"ifdef": "defined({})", "ifndef": "!defined({})", "if": "{}"}


class _Branch(NamedTuple):
    """A branch of a conditional that is being read. own: its condition; others: those of the branches before it."""

    first: int
    own: str
    others: tuple[str, ...]

    @property
    def condition(self) -> str:
        own = [f"({self.own})"] if self.own else []
        return " && ".join([*own, *(f"!({other})" for other in self.others)])


def ranges_of(text: str) -> list[Range]:
    """The conditional ranges of a file that name an option, the inner after the outer."""
    lines = text.splitlines()
    found = [each for each in _directives(lines) if "CONFIG_" in each.condition]
    return sorted([*found, *_blocks(lines)], key=lambda each: (each.first, -each.last))


def needs_of(line: int, ranges: Iterable[Range], values: Mapping[str, str]) -> list[str]:
    """The options that had to be on for a line to be there."""
    found: dict[str, None] = {}
    for each in ranges:
        if each.first <= line <= each.last:
            found.update(dict.fromkeys(needed(each.condition, values)))
    return list(found)


def _directives(lines: list[str]) -> Iterable[Range]:
    around: list[_Branch] = []
    for number, whole in _logical(lines):
        match = _DIRECTIVE.match(whole)
        if match is None:
            continue
        word, rest = match[1], _LITERALS.sub("", match[2]).strip()
        if word in _OPENING:
            around.append(_Branch(number + 1, _OPENING[word].format(rest), ()))
        elif around:
            branch = around.pop()
            yield Range(branch.first, number - 1, branch.condition)
            if word != "endif":
                around.append(_Branch(number + 1, rest if word == "elif" else "", (*branch.others, branch.own)))


def _logical(lines: list[str]) -> Iterable[tuple[int, str]]:
    """Lines with what a backslash continues, each with the number of its last one."""
    waiting = ""
    for number, line in enumerate(lines, 1):
        if line.endswith("\\"):
            waiting += line[:-1] + " "
            continue
        yield number, waiting + line
        waiting = ""


def _blocks(lines: list[str]) -> Iterable[Range]:
    """The bodies of `if (IS_ENABLED(CONFIG_X))`, where nothing in the condition is negated or joined by ||."""
    for number, line in enumerate(lines, 1):
        if "IS_" not in line or (match := _IF.search(line)) is None:
            continue
        asked = _ENABLED.findall(match[1])
        if asked and "||" not in match[1] and not any(negated for negated, _ in asked):
            last = _end_of_block(lines, number)
            if last > number:
                yield Range(number + 1, last, " && ".join(f"IS_ENABLED({symbol})" for _, symbol in asked))


def _end_of_block(lines: list[str], number: int) -> int:
    """The last line of what follows an `if` in line `number`: of its braces, else of one statement."""
    depth = 0
    parentheses = 0
    opened = False
    for place in range(number - 1, min(len(lines), number + 400)):
        code = _LITERALS.sub("", lines[place])
        for character in code:
            depth += {"{": 1, "}": -1}.get(character, 0)
            parentheses += {"(": 1, ")": -1}.get(character, 0)
            opened = opened or (character == "{" and parentheses == 0)
            if opened and depth <= 0:
                return place if place > number - 1 else number
        if not opened and place >= number and code.rstrip().endswith(";") and not parentheses:
            return place + 1
    return number


def needed(condition: str, values: Mapping[str, str]) -> list[str]:
    """The options that had to be on for a condition to hold under values."""
    parser = _Parser(_tokens(condition), values)
    return list(dict.fromkeys(parser.disjunction()[1]))


def _tokens(text: str) -> list[str]:
    return [match[1] for match in _TOKEN.finditer(_LITERALS.sub("", text)) if match[1].strip()]


_Held = tuple[bool | None, list[str]]
"""Whether an expression holds, None where that is no option's matter; and the options that had to be on for it."""


class _Parser:
    """Recursive descent, in three values."""

    def __init__(self, tokens: list[str], values: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._values = values
        self._place = 0

    def disjunction(self) -> _Held:
        """Alternatives: of those that hold the one that needs least; what cannot be told is no proof beside them."""
        alternatives = [self._conjunction()]
        while self._next() == "||":
            self._place += 1
            alternatives.append(self._conjunction())
        for wanted in (True, None):
            if needs := [needs for holds, needs in alternatives if holds is wanted]:
                return wanted, min(needs, key=len)
        return False, []

    def _conjunction(self) -> _Held:
        parts = [self._negation()]
        while self._next() == "&&":
            self._place += 1
            parts.append(self._negation())
        said = [holds for holds, _ in parts]
        holds = False if False in said else None if None in said else True
        return holds, [need for _, needs in parts for need in needs]

    def _negation(self) -> _Held:
        if self._next() == "!":
            self._place += 1
            holds, _ = self._negation()
            return (None if holds is None else not holds), []
        return self._atom()

    def _atom(self) -> _Held:
        token = self._next()
        self._place += 1
        found: _Held
        if token == "(":
            found = self.disjunction()
            self._place += 1
        elif match := _ASKS.fullmatch(token):
            on = self._values.get(match[1], "n") not in ("n", "0")
            found = (on, [match[1]])
        else:
            found = (None, [])
        if self._next() not in ("", "&&", "||", ")", "!", "("):
            return self._rest_of_comparison()
        return found

    def _rest_of_comparison(self) -> _Held:
        """`CONFIG_X > 3`, `PAGE_SIZE == 4096`: numbers are never switched off, so nothing had to be on."""
        depth = 0
        while (token := self._next()) and not (depth == 0 and token in ("&&", "||", ")")):
            depth += {"(": 1, ")": -1}.get(token, 0)
            self._place += 1
        return None, []

    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""
