"""Arithmetic as CPython has it, where Numba's own is another: Numba has to be told before it compiles a task.

Integers wrap around at 64 bits, where Numba's are undefined when they overflow, and so does the least one by -1, which
was 0. Divisions by zero say what CPython says. An integer beyond 2^53 is compared with a double exactly. A shift by 64
or more leaves nothing of 64 bits, and one by less than nothing raises. `int` of what is no number raises, and `float`
takes a bool. Imports numba.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.cpython import numbers
from numba.extending import intrinsic, overload

_BIT, _WORD, _DOUBLE = ir.IntType(1), ir.IntType(64), ir.DoubleType()
_WIDTH = 64
_EXACT = 1 << 53
"""Integers up to here are doubles as well."""


def _said(wrong: Callable[[], object]) -> str:
    """What the Python that builds says of it: the words are not those of every version."""
    try:
        wrong()
    except (ArithmeticError, ValueError) as error:
        return str(error)
    raise AssertionError("nothing was wrong")


_NOT_A_NUMBER = _said(lambda: int(float("nan")))
_INFINITE = _said(lambda: int(float("inf")))
_NEGATIVE_SHIFT = _said(lambda: 1 << operator.neg(1))


def _refuse(context: Any, build: Any, condition: Any, error: type[Exception], words: str, place: Any) -> None:
    with cgutils.if_unlikely(build, condition):
        context.call_conv.return_user_exc(build, error, (words,), place)


# What wraps around


def _wrapping(instruction: str) -> Callable[..., Any]:
    """Numba tells LLVM that nothing overflows; then what does is no number at all, and may pass an array's bounds."""

    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return getattr(build, instruction)(*values)

    return make


for _name in ("add", "sub", "mul"):
    for _operator in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        lower_builtin(_operator, types.int64, types.int64)(_wrapping(_name))


# Division


def _floored(build: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Quotient and remainder, rounded down. The processor has no quotient for the least integer by -1."""
    minus = build.icmp_signed("==", b, b.type(-1))
    by = build.select(minus, b.type(1), b)
    quotient, rest = build.sdiv(a, by), build.srem(a, by)
    is_other_sign = build.icmp_signed("<", build.xor(rest, b), b.type(0))
    is_above = build.and_(build.icmp_signed("!=", rest, b.type(0)), is_other_sign)
    quotient = build.sub(quotient, build.zext(is_above, a.type))
    return build.select(minus, build.neg(a), quotient), build.select(is_above, build.add(rest, b), rest)


def _of_integers(which: int, words: str) -> Callable[..., Any]:
    def make(context: Any, build: Any, signature: Any, values: Any, loc: Any = None) -> Any:
        _refuse(context, build, cgutils.is_scalar_zero(build, values[1]), ZeroDivisionError, words, loc)
        return _floored(build, *values)[which]

    return make


def _of_doubles(plain: Callable[..., Any], words: str) -> Callable[..., Any]:
    def make(context: Any, build: Any, signature: Any, values: Any, loc: Any = None) -> Any:
        _refuse(context, build, cgutils.is_scalar_zero(build, values[1]), ZeroDivisionError, words, loc)
        return plain(context, build, signature, values)

    return make


_DIVISIONS = (
    ("floordiv", types.int64, _of_integers(0, _said(lambda: operator.floordiv(1, 0)))),
    ("mod", types.int64, _of_integers(1, _said(lambda: operator.mod(1, 0)))),
    ("truediv", types.float64, _of_doubles(numbers.real_div_impl, _said(lambda: operator.truediv(1.0, 0.0)))),
    ("floordiv", types.float64, _of_doubles(numbers.real_floordiv_impl, _said(lambda: operator.floordiv(1.0, 0.0)))),
    ("mod", types.float64, _of_doubles(numbers.real_mod_impl, _said(lambda: operator.mod(1.0, 0.0)))),
)

for _name, _kind, _make in _DIVISIONS:
    for _operator in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        lower_builtin(_operator, _kind, _kind)(_make)


# Shifts


def _shift(is_left: bool) -> Callable[..., Any]:
    def make(context: Any, build: Any, signature: Any, values: Any, loc: Any = None) -> Any:
        value, count = values
        none = count.type(0)
        _refuse(context, build, build.icmp_signed("<", count, none), ValueError, _NEGATIVE_SHIFT, loc)
        is_all = build.icmp_signed(">=", count, count.type(_WIDTH))
        if is_left:
            return build.select(is_all, none, build.shl(value, build.select(is_all, none, count)))
        return build.ashr(value, build.select(is_all, count.type(_WIDTH - 1), count))

    return make


for _name, _is_left in (("lshift", True), ("rshift", False)):
    for _operator in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        lower_builtin(_operator, types.int64, types.int64)(_shift(_is_left))


# Comparisons of an integer with a double

_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
_SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def _compared(build: Any, name: str, number: Any, double: Any) -> Any:
    """Rounding keeps the order, so only where the integer as a double is the double the integers tell.

    2^63 is above every integer, and has none.
    """
    sign, rounded = _SIGNS[name], build.sitofp(number, _DOUBLE)
    apart = (build.fcmp_unordered if name == "ne" else build.fcmp_ordered)(sign, rounded, double)
    is_beyond = build.fcmp_ordered(">=", double, _DOUBLE(2.0**63))
    whole = build.fptosi(build.select(is_beyond, _DOUBLE(0.0), double), _WORD)
    together = build.select(is_beyond, _BIT(name in ("lt", "le", "ne")), build.icmp_signed(sign, number, whole))
    return build.select(build.fcmp_ordered("==", rounded, double), together, apart)


def _integer_first(name: str) -> Callable[..., Any]:
    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return _compared(build, name, values[0], values[1])

    return make


def _double_first(name: str) -> Callable[..., Any]:
    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return _compared(build, _MIRRORED[name], values[1], values[0])

    return make


class _Comparison(AbstractTemplate):  # type: ignore[misc]
    """Takes an integer and a double as they are; Numba would make a double of the integer."""

    metadata = {"target": "cpu"}  # noqa: RUF012  (so Numba asks it before its own)

    def generic(self, arguments: Any, named: Any) -> Any:
        kinds = tuple(types.unliteral(each) for each in arguments)
        if kinds not in ((types.int64, types.float64), (types.float64, types.int64)):
            return None
        is_small = any(
            isinstance(each, types.IntegerLiteral) and abs(each.literal_value) < _EXACT for each in arguments
        )
        return None if is_small else signature(types.boolean, *kinds)


for _name in _SIGNS:
    _operator = getattr(operator, _name)
    infer_global(_operator)(type(f"_Comparison_{_name}", (_Comparison,), {"key": _operator}))
    lower_builtin(_operator, types.int64, types.float64)(_integer_first(_name))
    lower_builtin(_operator, types.float64, types.int64)(_double_first(_name))


# Conversions


@intrinsic  # type: ignore[untyped-decorator]
def _cut(context: Any, value: Any) -> Any:
    def make(context_: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.fptosi(values[0], _WORD)

    return types.int64(types.float64), make


@overload(int, target="cpu")  # type: ignore[untyped-decorator]
def _int(value: Any) -> Any:
    if value != types.float64:
        return None

    def make(value: Any) -> Any:  # Numba wants the annotations of `_int`
        if -9223372036854775808.0 <= value < 9223372036854775808.0:
            return _cut(value)
        if value != value:
            raise ValueError(_NOT_A_NUMBER)
        if value - value != 0.0:
            raise OverflowError(_INFINITE)
        rest = value % 18446744073709551616.0  # what 64 bits hold of it
        return _cut(rest if rest < 9223372036854775808.0 else rest - 18446744073709551616.0)

    return make


@overload(float, target="cpu")  # type: ignore[untyped-decorator]
def _float(value: Any) -> Any:
    if not isinstance(value, types.Boolean):
        return None

    def make(value: Any) -> Any:
        return 1.0 if value else 0.0

    return make
