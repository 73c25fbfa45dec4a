"""The cube root, and the length of a vector."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import bits, export, f64, fabs, from_bits
from swiftlet.unikernel.runtime.mathpair import pair_product, pair_root, pair_sum, two_product

INFINITY = 1e999
SIGN = 1 << 63

THIRD_OF_ONE = 0x2A9F761400000000
"""Two thirds of the bits of 1.0, less what makes the error of the first guess as great above as below: 1/31 of it."""


def of_size(x: f64) -> f64:
    """The cube root of a normal double above 0: a third of its bits is a first guess, which is 1/31 of it off.

    Two steps of Halley's (each cubes the error) leave 2^-42; one of Newton's with x - r^3 as a pair leaves 2^-80.
    """
    root = from_bits(bits(x) // 3 + THIRD_OF_ONE)
    for _ in range(2):
        cube = root * root * root
        root = root * ((cube + x + x) / (cube + cube + x))
    high, low = two_product(root, root)
    high, low = pair_product(high, low, root, 0.0)
    return root + ((x - high) - low) / (3.0 * root * root)


@export
def cbrt(x: f64) -> f64:
    size = fabs(x)
    if size == 0.0 or not size < INFINITY:
        return x
    scale = 1.0
    if size > 1e290:
        size, scale = size * 2.0**-201, 2.0**67  # nothing overflows
    if size < 1e-290:
        size, scale = size * 2.0**201, 2.0**-67  # nothing underflows
    return from_bits(bits(of_size(size) * scale) | (bits(x) & SIGN))


@export
def hypot(x: f64, y: f64) -> f64:
    a, b = fabs(x), fabs(y)
    if a == INFINITY or b == INFINITY:
        return INFINITY
    if a < b:
        a, b = b, a
    if not b > a * 2.0**-60:  # b^2 is less than half a unit in the last place of a^2; or one is no number
        return a + b
    scale = 1.0
    if a > 2.0**500:
        a, b, scale = a * 2.0**-600, b * 2.0**-600, 2.0**600
    if b < 2.0**-400:
        a, b, scale = a * 2.0**600, b * 2.0**600, 2.0**-600
    high, low = two_product(a, a)
    other, other_low = two_product(b, b)
    high, low = pair_sum(high, low, other, other_low)
    high, low = pair_root(high, low)
    return (high + low) * scale
