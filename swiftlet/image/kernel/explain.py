"""Why an option of a kernel is as it is: asked for, selected, a default, or what keeps it off. Pure.

From the option on, one reason after the other up to what somebody asked for: `ext4 selects crc16` and `server.config,
line 2, asks for ext4`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from swiftlet.image.kernel.configuration import Wanted
from swiftlet.image.kernel.expression import failing_parts, holds, only_symbol
from swiftlet.image.kernel.kconfig import Option, failing

DEEPEST = 8
"""Steps of a chain; longer ones are of selections among architecture options and help nobody."""

_FEW = 4


class Step(NamedTuple):
    """One option and why it has its value. source: the file and line that say so, "" where none does."""

    symbol: str
    value: str
    why: str
    source: str


class Configuration:
    """A kernel's configuration with what was asked for and what the tree says of its options.

    basis: what the tree's own tinyconfig asks for, on which requests were laid.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        requests: Mapping[str, Wanted],
        options: Mapping[str, list[Option]],
        basis: Mapping[str, Wanted],
    ) -> None:
        self.values = values
        self.options = options
        self._requests = requests
        self._basis = basis
        self._selectors: dict[str, list[tuple[Option, str]]] | None = None

    def value(self, symbol: str) -> str:
        """An option's value, "n" when it is off."""
        return self.values.get(symbol, "n")

    def chain(self, symbol: str) -> list[Step]:
        """Why an option has its value, and why that is so, as far as it can be followed."""
        found: list[Step] = []
        following = symbol
        while following and len(found) < DEEPEST and following not in {step.symbol for step in found}:
            step, following = self._step(following)
            found.append(step)
        return found

    def selectors(self, symbol: str) -> list[tuple[Option, str]]:
        """Every option that can select another, with the condition under which it does."""
        if self._selectors is None:
            self._selectors = {}
            for definitions in self.options.values():
                for option in definitions:
                    for what, condition in option.selects:
                        self._selectors.setdefault(what, []).append((option, condition))
        return self._selectors.get(symbol, [])

    def selecting(self, symbol: str) -> list[Option]:
        """The options that select this one here and now, those that somebody asked for first."""
        active = [option for option, condition in self.selectors(symbol) if self._is_active(option, condition)]
        return sorted(active, key=lambda option: option.symbol not in self._requests)

    def _is_active(self, option: Option, condition: str) -> bool:
        return self.value(option.symbol) in ("y", "m") and holds(condition, self.values)

    def _step(self, symbol: str) -> tuple[Step, str]:
        """The reason of one option's value, and the option whose own reason comes next."""
        value = self.value(symbol)
        asked = self._requests.get(symbol)
        if asked is not None and asked.value == value:
            return Step(symbol, value, "asked to be off" if value == "n" else "asked for", _place(asked)), ""
        if not self.options.get(symbol) and value == "n":
            return Step(symbol, value, "this kernel has no such option", ""), ""
        return self._off(symbol) if value == "n" else self._on(symbol, value)

    def _on(self, symbol: str, value: str) -> tuple[Step, str]:
        selecting = self.selecting(symbol)
        if selecting:
            first = selecting[0]
            more = f" (and {len(selecting) - 1} more)" if len(selecting) > 1 else ""
            return Step(symbol, value, f"selected by {first.symbol}{more}", f"{first.file}:{first.line}"), first.symbol
        if (basis := self._basis.get(symbol)) is not None and basis.value == value:
            return Step(symbol, value, "asked for by the kernel's own tinyconfig", _place(basis)), ""
        for option in self._defined(symbol):
            if option.choice and value == "y":
                return Step(symbol, value, f"the answer to the choice {option.choice!r}", _at(option)), ""
            for default, condition in option.defaults:
                if holds(condition, self.values):
                    why = f"by default ({default}{' if ' + condition if condition else ''})"
                    return Step(symbol, value, why, _at(option)), self._met_by(default, condition)
        return Step(symbol, value, "as the kernel's own tools left it", ""), ""

    def _met_by(self, *conditions: str) -> str:
        """The one option that a default follows."""
        symbols = [symbol for each in conditions if (symbol := only_symbol(each)) and symbol in self.options]
        return symbols[0] if len(symbols) == 1 else ""

    def _off(self, symbol: str) -> tuple[Step, str]:
        definitions = self.options[symbol]
        defined = self._defined(symbol)
        if not defined:
            parts = list(dict.fromkeys(part for option in definitions[:1] for part in failing(option, self.values)))
            following = next(filter(None, map(only_symbol, parts)), "")
            return Step(symbol, "n", f"needs {' and '.join(parts)}", _at(definitions[0])), following
        option = defined[0]
        if not any(each.title for each in defined):
            return Step(symbol, "n", self._unselected(symbol, defined), _at(option)), ""
        hidden = failing_parts(option.shown, self.values) if option.shown else []
        if hidden:
            return Step(symbol, "n", f"can be asked for only with {' and '.join(hidden)}", _at(option)), ""
        if option.choice:
            return Step(symbol, "n", f"the choice {option.choice!r} has another answer", _at(option)), ""
        return Step(symbol, "n", "nothing asks for it; all that it needs is there", _at(option)), ""

    def _unselected(self, symbol: str, defined: list[Option]) -> str:
        """Of an option that nobody can ask for."""
        names = list(dict.fromkeys(option.symbol for option, _ in self.selectors(symbol)))
        if names:
            shown = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
            return f"nothing that is on selects it; these would: {shown}"
        defaults = [f"{what} if {condition}" for option in defined for what, condition in option.defaults if condition]
        return f"cannot be asked for; it is {' or '.join(defaults)}" if defaults else "nothing selects it"

    def _defined(self, symbol: str) -> list[Option]:
        """The definitions of an option whose conditions hold."""
        return [option for option in self.options.get(symbol, []) if not failing(option, self.values)]


def _place(wanted: Wanted) -> str:
    return f"{wanted.fragment}:{wanted.line}" if wanted.line else wanted.fragment  # derived: no fragment has it


def _at(option: Option) -> str:
    return f"{option.file}:{option.line}"
