"""Conditions as Kconfig files write them, and which parts of one do not hold in a configuration.

Decisions are the kernel's own tools'; this explains them. An expression that cannot be told (a compiler's answer,
`$(...)`) counts as met. Format: Documentation/kbuild/kconfig-language.rst of the tree. Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

_TOKEN = re.compile(
    r'\s*(?:(&&|\|\||!=|<=|>=|[()!=<>])|("[^"]*"|\'[^\']*\')|(\$\([^()]*(?:\([^()]*\)[^()]*)*\))|([\w./-]+))'
)
_SYMBOL = re.compile(r"!?\s*([A-Z0-9]\w*)")


def holds(condition: str, values: Mapping[str, str]) -> bool:
    """Whether a condition holds in a configuration; "" always does."""
    return not condition or _Parser(_tokens(condition), values).value()


def failing_parts(condition: str, values: Mapping[str, str]) -> list[str]:
    """The parts of a condition, joined by && with one another, that do not hold."""
    return [_text(part) for part in _conjuncts(_tokens(condition)) if not _Parser(part, values).value()]


def only_symbol(part: str) -> str:
    """The option (CONFIG_X) that a part of a condition consists of, "" when it is more than one without a `!`."""
    match = _SYMBOL.fullmatch(part)
    return f"CONFIG_{match[1]}" if match and part[0] != "!" else ""


def split_condition(text: str) -> tuple[str, str]:
    """What stands before and after an ` if ` that is in no quotes and no parentheses."""
    depth, quote = 0, ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif not depth and re.match(r"\bif\b", text[place:]) and text[place - 1 : place].isspace():
            return text[:place].strip(), text[place + 2 :].strip()
    return text.strip(), ""


def _text(tokens: list[str]) -> str:
    return " ".join(tokens).replace("( ", "(").replace(" )", ")").replace("! ", "!")


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
