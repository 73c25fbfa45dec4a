"""Where in the program something goes wrong. Numba tells it of `raise` only; here it is told of every instruction.

What goes wrong inside of functions of Numba or of ours is told without a line: theirs would say nothing to anybody, and
a function that is compiled once may be called from many lines. Imports numba.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
from numba.core.callconv import CPUCallConv
from numba.core.lowering import Lower

_INTERNAL = tuple(f"{os.path.dirname(each)}{os.sep}" for each in (numba.__file__, __file__))


_MADE = "__numba_array_expr"
"""What the functions are called that Numba makes of expressions; behind it stands an address of this process."""


class _Here(NamedTuple):
    """The instruction that is being compiled. function: the name of what it is in."""

    place: Any
    function: str


@contextmanager
def lines() -> Iterator[None]:
    """Whatever is compiled meanwhile tells lines."""
    lower, raising = Lower.lower_inst, CPUCallConv.set_static_user_exc
    here: list[_Here] = []

    def lower_here(self: Any, instruction: Any) -> Any:
        name = self.func_ir.func_id.func_name
        is_made = name.startswith(_MADE) and here  # of an expression of arrays, for this line alone
        here.append(here[-1] if is_made else _Here(instruction.loc, name))
        try:
            return lower(self, instruction)
        finally:
            here.pop()

    def raise_here(
        self: Any, builder: Any, exc: Any, exc_args: Any = None, loc: Any = None, func_name: Any = None
    ) -> None:
        if loc is None and here:
            loc, func_name = here[-1].place, here[-1].function
        if loc is not None and loc.filename.startswith(_INTERNAL):
            loc = None
        raising(self, builder, exc, exc_args, loc, func_name)

    Lower.lower_inst, CPUCallConv.set_static_user_exc = lower_here, raise_here
    try:
        yield
    finally:
        Lower.lower_inst, CPUCallConv.set_static_user_exc = lower, raising
