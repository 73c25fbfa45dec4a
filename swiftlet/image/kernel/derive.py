"""From lines that have run to requests: which options made those lines, and what these options need.

::

    line that ran -> its object's Kbuild rules  \
                  -> #ifdefs around it           > options that were on -> those that can be asked for
    hidden options that ran -> whoever selects them                     -> and what they depend on

What comes out is a request like any fragment's, but its fragment and line are those of the code that ran. The kernel's
own tools have the last word: what they do not follow is left out, what they switch off of the code that ran is asked
for by another way (`settle`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from swiftlet.image.kernel import configuration, ifdefs
from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.expression import holds
from swiftlet.image.kernel.kbuild import Tree
from swiftlet.image.kernel.kconfig import Option, failing
from swiftlet.image.kernel.trace import Phase, Place, Ran

_ON = ("y", "m")

_NAME = re.compile(r"\b[A-Z0-9]*[A-Z]\w*\b")
_UNKNOWN = re.compile(r"\$\([^()]*(?:\([^()]*\)[^()]*)*\)|\"[^\"]*\"")
_IS_OFF = re.compile(r"(\w+)\s*(?:=\s*n|!=\s*[ym])\b")
_IS_ON = re.compile(r"(\w+)\s*(?:!=\s*n|=\s*[ym])\b")

SETTLINGS = 5
"""Rounds with the kernel's tools; measured: the third changes nothing."""

Options = Mapping[str, list[Option]]
Values = Mapping[str, str]
Configure = Callable[[list[Wanted]], dict[str, str]]
"""What the kernel's tools make of requests: all values that are on, whether or not they followed every one."""


class Evidence(NamedTuple):
    """Why an option is thought to be needed. place: the line that ran, of those that prove most."""

    symbol: str
    place: Place
    phase: Phase


def evidence_of(ran: Iterable[Ran], values: Values, tree: Tree, read: Callable[[str], str]) -> dict[str, Evidence]:
    """The options for which lines that ran were compiled. read: gives a file of the tree. Raises OSError."""
    found: dict[str, Evidence] = {}
    by_file: dict[str, list[Ran]] = {}
    for each in sorted(ran):
        by_file.setdefault(each.place.file, []).append(each)
    for file, lines in by_file.items():
        ranges = ifdefs.ranges_of(read(file))
        for symbol in _of_object(file, tree, values):
            _note(found, symbol, max(lines, key=lambda each: each.phase))
        for each in lines:
            for symbol in ifdefs.needs_of(each.place.line, ranges, values):
                _note(found, symbol, each)
    return {symbol: each for symbol, each in sorted(found.items()) if values.get(symbol, "n") in _ON}


def _note(found: dict[str, Evidence], symbol: str, ran: Ran) -> None:
    known = found.get(symbol)
    if known is None or ran.phase > known.phase:
        found[symbol] = Evidence(symbol, ran.place, ran.phase)


def _of_object(file: str, tree: Tree, values: Values) -> list[str]:
    """What the object of a source file was built for; of several options that are each enough the first that is on."""
    stem, _, ending = file.rpartition(".")
    if ending not in ("c", "S"):
        return []
    groups = tree.needs([f"{stem}.o"])[f"{stem}.o"]
    return [option for group in groups for option in [each for each in group if values.get(each, "n") in _ON][:1]]


def can_be_off(definitions: Iterable[Option], values: Values) -> bool:
    """Whether an option is asked about in a configuration, and not as one answer of several."""
    definitions = list(definitions)
    return not any(each.choice for each in definitions) and any(
        each.title and not failing(each, values) and holds(each.shown, values) for each in definitions
    )


class Requests:
    """Requests as they grow: each once, with its reason, and with what it depends on.

    values: of the kernel on which the code ran. reasons: symbol -> why, as it is told to people.
    """

    def __init__(self, options: Options, values: Values) -> None:
        self.wanted: dict[str, Wanted] = {}
        self.reasons: dict[str, str] = {}
        self._options = options
        self._values = values
        self._selectors: dict[str, list[str]] = {}
        for symbol, definitions in options.items():
            for option in definitions:
                for what, condition in option.selects:
                    if values.get(symbol, "n") in _ON and holds(condition, values):
                        self._selectors.setdefault(what, []).append(symbol)

    def copy(self) -> Requests:
        """Another that grows on its own."""
        other = copy.copy(self)
        other.wanted, other.reasons = dict(self.wanted), dict(self.reasons)
        return other

    def value(self, symbol: str) -> str:
        """What an option was, "n" when it was off."""
        return self._values.get(symbol, "n")

    def ask(self, symbol: str, reason: str, fragment: str, line: int) -> bool:
        """Ask for what an option was, and for all that it depends on. False where nobody can ask for it."""
        if symbol in self.wanted:
            return True
        option = self._shown(symbol)
        value = self._values.get(symbol, "n")
        if option is None or value == "n":
            return False
        self.wanted[symbol] = Wanted(symbol, value, fragment, line)
        self.reasons[symbol] = reason
        self._ask_for_conditions(option)
        return True

    def ask_indirectly(self, symbol: str, trail: tuple[str, ...] = ()) -> bool:
        """Ask for what brings a hidden option: one that selects it, better one that is asked for already, or else what
        its default depends on.
        """
        if symbol in self.wanted:
            return self._ask_to_be_asked(symbol)
        selectors = self._selectors.get(symbol, [])
        if any(each in self.wanted for each in selectors):
            return True
        for each in selectors:
            option = self._options[each][0]
            if self.ask(each, f"selects {symbol}", option.file, option.line):
                return True
        if any(self.ask_indirectly(each, (*trail, symbol)) for each in selectors if each not in trail):
            return True
        return symbol not in trail and self._ask_for_default(symbol, (*trail, symbol))

    def _ask_to_be_asked(self, symbol: str) -> bool:
        """Ask for what makes a question of an option. Before that it was left to its default, which is often enough."""
        option = self._shown(symbol)
        before = len(self.wanted)
        if option is None:
            return False
        for each in self._met_by(option.shown):
            self.ask(each, f"needed to ask for {symbol}", option.file, option.line)
        return len(self.wanted) > before

    def _ask_for_default(self, symbol: str, trail: tuple[str, ...]) -> bool:
        for option in self._options.get(symbol, []):
            holding = [each.condition for each in option.defaults if holds(each.condition, self._values)]
            if holding and not failing(option, self._values):
                for met in [met for each in (*option.conditions, *holding[:1]) for met in self._met_by(each)]:
                    if not self.ask(met, f"needed by {symbol}", option.file, option.line) and met not in trail:
                        self.ask_indirectly(met, trail)
                return True
        return False

    def _met_by(self, condition: str) -> list[str]:
        return conditions_met_by(condition, self._values) if condition else []

    def on_by_default(self, values: Values) -> set[str]:
        """What is on in a configuration, can be switched off, and was never asked for."""
        return {
            symbol
            for symbol, value in values.items()
            if value in _ON and symbol not in self.wanted and can_be_off(self._options.get(symbol, []), values)
        }

    def can_be_asked(self, symbol: str) -> bool:
        """Whether people can ask for an option that was on."""
        return self._shown(symbol) is not None and self.value(symbol) != "n"

    def _shown(self, symbol: str) -> Option | None:
        """The definition by which people can ask for an option."""
        for option in self._options.get(symbol, []):
            if option.title and not failing(option, self._values) and holds(option.shown, self._values):
                return option
        return None

    def _ask_for_conditions(self, option: Option) -> None:
        reason = f"needed by {option.symbol}"
        for condition in option.conditions:
            for symbol in conditions_met_by(condition, self._values):
                if not self.ask(symbol, reason, option.file, option.line):
                    self.ask_indirectly(symbol)


def conditions_met_by(condition: str, values: Values) -> list[str]:
    """The options by which a condition of Kconfig's holds: it is asked as C is, with the options' names in full."""
    named = _NAME.sub("CONFIG_\\g<0>", _UNKNOWN.sub("1", condition))
    return ifdefs.needed(_IS_ON.sub("\\1", _IS_OFF.sub("!\\1", named)), values)


def requests_for(evidence: Mapping[str, Evidence], values: Values, options: Options) -> Requests:
    """Everything that ran, with what it needs; then what is no question of on and off, as it was."""
    requests = Requests(options, values)
    for symbol, each in evidence.items():
        requests.ask(symbol, f"{each.place.file}:{each.place.line} ran", *each.place)
    for symbol, value in values.items():
        definitions = options.get(symbol, [])
        if value not in _ON and definitions and definitions[0].title:
            _carry(requests, definitions[0], "its value is kept")
        elif definitions and definitions[0].choice:
            _carry(requests, definitions[0], f"the answer to {definitions[0].choice!r}")
    return requests


def _carry(requests: Requests, option: Option, reason: str) -> None:
    """Take over a value where its question is put anyway: for its sake nothing else is asked for."""
    if option.symbol not in requests.wanted and requests.value(option.symbol) != "n":
        requests.wanted[option.symbol] = Wanted(option.symbol, requests.value(option.symbol), option.file, option.line)
        requests.reasons[option.symbol] = reason


class Settled(NamedTuple):
    """Requests that the kernel's tools follow, and what they made of them.

    reasons: of the requests, by symbol. lost: options whose code ran and that are off nevertheless.
    """

    requests: list[Wanted]
    values: dict[str, str]
    reasons: Mapping[str, str]
    lost: list[str]


def settle(requests: Requests, evidence: Iterable[str], kept: Iterable[Wanted], configure: Configure) -> Settled:
    """Let the kernel's tools judge until all code that ran is there and all that nothing asks for is off.

    kept: requests that stand whatever ran; they win over what was derived.
    """
    evidence, kept, requests = list(evidence), list(kept), requests.copy()
    fixed = {each.symbol for each in kept}
    off: dict[str, Wanted] = {}
    asked: list[Wanted] = []
    values: dict[str, str] = {}
    lost: list[str] = []
    for _ in range(SETTLINGS):
        asked = [each for each in ({**off, **requests.wanted}).values() if each.symbol not in fixed] + kept
        values = configure(asked)
        lost = [symbol for symbol in evidence if symbol not in values]
        before = len(requests.wanted) + len(off)
        for symbol in lost:
            requests.ask_indirectly(symbol)
        for symbol in requests.on_by_default(values).difference(evidence, fixed, requests.wanted):
            off[symbol] = Wanted(symbol, "n", "on by default", 0)
        if len(requests.wanted) + len(off) == before:
            break
    return Settled(followed(asked, values), values, requests.reasons, lost)


def followed(asked: Iterable[Wanted], values: Values) -> list[Wanted]:
    """The requests that a configuration follows."""
    asked = list(asked)
    ignored = {each.wanted.symbol for each in configuration.unmet(asked, values)}
    return [each for each in asked if each.symbol not in ignored]
