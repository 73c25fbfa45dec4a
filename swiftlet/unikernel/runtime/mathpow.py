"""x^y: e^(y log x), where the logarithm has some 68 bits, since its error is multiplied by up to 1100."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import bits, export, f64, fabs, from_bits, signed, trunc, u64
from swiftlet.unikernel.runtime.mathexp import raised
from swiftlet.unikernel.runtime.mathlog import normal, precise_logarithm
from swiftlet.unikernel.runtime.mathpair import pair_product

INFINITY = 1e999
NOT_A_NUMBER = 0x7FF8000000000000

EVEN, ODD, BROKEN = 0, 1, 2

TOO_MUCH = 1e22
"""An exponent that makes infinity or 0 of any double but 1: the logarithm of its neighbour is 2^-53."""


def parity(y: f64) -> u64:
    """Whether y is an even number, an odd one, or none that is whole."""
    if fabs(y) >= 2.0**53:  # its last place is 2 or more
        return EVEN
    if trunc(y) != y:
        return BROKEN
    return EVEN if trunc(y * 0.5) == y * 0.5 else ODD


def of_extreme(size: f64, y: f64) -> f64:
    """size^y of 0 or infinity, y not 0; and of others, where y is infinite."""
    if size == 1.0:
        return 1.0
    return INFINITY if (size > 1.0) == (y > 0.0) else 0.0


def of_size(size: f64, y: f64) -> f64:
    """size^y, for a size above 0 that is finite."""
    size, k = normal(size)
    if fabs(y) > TOO_MUCH:
        y = TOO_MUCH if y > 0.0 else -TOO_MUCH
    high, low = precise_logarithm(size, k)
    high, low = pair_product(high, low, y, 0.0)
    return raised(high, low)


@export
def pow(x: f64, y: f64) -> f64:
    if y == 0.0 or x == 1.0:
        return 1.0
    if x != x or y != y:
        return x + y
    size = fabs(x)
    kind = parity(y)
    if size == 0.0 or size == INFINITY or fabs(y) == INFINITY:
        result = of_extreme(size, y)
    elif x < 0.0 and kind == BROKEN:
        return from_bits(NOT_A_NUMBER)
    else:
        result = of_size(size, y)
    return -result if signed(bits(x)) < 0 and kind == ODD else result
