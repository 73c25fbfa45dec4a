"""Kernel configurations as values: fragments read and merged, a result compared with what was asked for.

Symbols carry their prefix (CONFIG_SMP). An option that is off has the value "n", whether the file says so, says
nothing, or has it behind a condition that does not hold: the kernel's tools write all three alike. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from swiftlet.model.error import InputError

_SET = re.compile(r"(CONFIG_\w+)=(y|m|n|-?\d+|0x[0-9a-fA-F]+|\"(?:[^\"\\]|\\.)*\")")
_UNSET = re.compile(r"# (CONFIG_\w+) is not set")


class Wanted(NamedTuple):
    """What a fragment asks for. line: in that fragment, from 1."""

    symbol: str
    value: str
    fragment: str
    line: int


class Unmet(NamedTuple):
    """A request that the kernel's tools did not follow: what it has become instead."""

    wanted: Wanted
    value: str


class Change(NamedTuple):
    """An option in which two configurations differ."""

    symbol: str
    before: str
    after: str


def read_fragment(text: str, name: str) -> list[Wanted]:
    """The requests of a fragment, in its order. Raises InputError with the line that is none."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _UNSET.fullmatch(line.strip()):
            found.append(Wanted(match[1], "n", name, number))
        elif match := _SET.fullmatch(line.strip()):
            found.append(Wanted(match[1], match[2], name, number))
        elif line.strip() and not line.lstrip().startswith("#"):
            hint = 'write CONFIG_X=y, CONFIG_X=7, CONFIG_X="text" or # CONFIG_X is not set'
            raise InputError(f"{name}, line {number}: {line.strip()[:80]!r} is no option", hint)
    return found


def merged(fragments: Iterable[tuple[str, str]]) -> dict[str, Wanted]:
    """The requests of several fragments, (name, text) each; a later one wins. Raises InputError."""
    found: dict[str, Wanted] = {}
    for name, text in fragments:
        for wanted in read_fragment(text, name):
            found.pop(wanted.symbol, None)  # so that the order is that of the last word on each
            found[wanted.symbol] = wanted
    return found


def render(requests: Iterable[Wanted]) -> str:
    """One fragment that asks for all of this, as the kernel's tools read it."""
    lines = [
        f"# {wanted.symbol} is not set" if wanted.value == "n" else f"{wanted.symbol}={wanted.value}"
        for wanted in requests
    ]
    return "".join(f"{line}\n" for line in lines)


def read(text: str) -> dict[str, str]:
    """A whole configuration (.config): what is not in it is off. Lines that are no option are passed over."""
    return {match[1]: match[2] for line in text.splitlines() if (match := _SET.fullmatch(line)) and match[2] != "n"}


def unmet(requests: Iterable[Wanted], result: Mapping[str, str]) -> list[Unmet]:
    """The requests that a configuration does not follow. Numbers are compared as such (0x10 is 16)."""
    found = []
    for wanted in requests:
        value = result.get(wanted.symbol, "n")
        if _comparable(value) != _comparable(wanted.value):
            found.append(Unmet(wanted, value))
    return found


def _comparable(value: str) -> str | int:
    try:
        return int(value, 0)
    except ValueError:
        return value


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """In what two configurations differ, by symbol."""
    changes = (Change(symbol, before.get(symbol, "n"), after.get(symbol, "n")) for symbol in {*before, *after})
    return sorted(change for change in changes if change.before != change.after)
