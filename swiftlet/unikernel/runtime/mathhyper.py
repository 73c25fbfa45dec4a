"""The hyperbolic functions and their inverses, by exponentials and logarithms of pairs."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import bits, export, f64, fabs, from_bits, inline, table
from swiftlet.unikernel.runtime.mathexp import exponential, less_one, power_of_two, scaled
from swiftlet.unikernel.runtime.mathlog import INFINITY, LN2_HIGH, LN2_LOW, NOT_A_NUMBER, logarithm
from swiftlet.unikernel.runtime.mathpair import (
    fast_sum,
    pair_quotient,
    pair_root,
    pair_sum,
    polynomial,
    two_product,
    two_sum,
)

SIGN = 1 << 63

TINY = 7e-9
"""Below it, x^2 is less than a unit in the last place of 1: what such functions add to x is x^3 / 6 or x^3 / 3."""

HUGE = 1e150
"""Its square is finite; of what is above, sqrt(x^2 +- 1) is x."""

# (sinh(x) - x) / x^3 in x^2 for |x| <= 1, by Chebyshev's interpolation
# (tests/coefficients.py); error in sinh: 2^-71.
sinh_terms = table(
    f64,
    2.8445297426378895e-15,
    7.646625253572627e-13,
    1.6059048397722392e-10,
    2.5052108364049466e-08,
    2.7557319224040365e-06,
    0.00019841269841269773,
    0.008333333333333333,
    0.16666666666666666,
)


@inline
def signed_as(size: f64, x: f64) -> f64:
    """A size, which is not negative, with the sign of x."""
    return from_bits(bits(size) | (bits(x) & SIGN))


def half_of_power(size: f64, way: f64) -> f64:
    """(e^size + way * e^-size) / 2, for size in [0, 711]; sinh from 1 on, or its difference loses bits."""
    r, c, k = exponential(size, 0.0)
    high, low = fast_sum(1.0, r)
    high, low = fast_sum(high, low + c)
    if k > 40:  # the other one is less than 2^-80 of it
        return scaled(high + low, k - 1)
    scale = power_of_two(k)
    high *= scale
    return (high + (low * scale + way / high)) * 0.5


@export
def sinh(x: f64) -> f64:
    size = fabs(x)
    if size < 1.0:
        square = x * x
        return x + x * square * polynomial(sinh_terms, 8, square)
    if not size < 711.0:  # sinh(710.48) is the greatest that is finite
        return x * INFINITY
    return signed_as(half_of_power(size, -1.0), x)


@export
def cosh(x: f64) -> f64:
    size = fabs(x)
    if not size < 711.0:
        return size * INFINITY
    return half_of_power(size, 1.0)


@export
def tanh(x: f64) -> f64:
    size = fabs(x)
    if size < TINY or x != x:
        return x
    if size > 22.0:  # 1 - tanh(22) is 2 e^-44, less than half a unit in the last place
        return signed_as(1.0, x)
    high, low = less_one(size + size, 0.0)
    whole, part = two_sum(high, 2.0)
    high, low = pair_quotient(high, low, whole, part + low)
    return signed_as(high + low, x)


def log_with_root(size: f64, way: f64) -> f64:
    """log(size + sqrt(size^2 + way)), way 1 or -1, for size + way above 1."""
    if size > HUGE:
        high, low = logarithm(size, 0.0)
        high, low = pair_sum(high, low, LN2_HIGH, LN2_LOW)
        return high + low
    high, low = two_product(size, size)
    whole, part = two_sum(high, way)
    whole, part = fast_sum(whole, part + low)
    whole, part = pair_root(whole, part)
    high, low = two_sum(whole, size)
    high, low = fast_sum(high, low + part)
    high, low = logarithm(high, low)
    return high + low


@export
def asinh(x: f64) -> f64:
    size = fabs(x)
    if size < TINY or not size < INFINITY:
        return x
    return signed_as(log_with_root(size, 1.0), x)


@export
def acosh(x: f64) -> f64:
    if not x > 1.0:
        return 0.0 if x == 1.0 else from_bits(NOT_A_NUMBER)
    if x == INFINITY:
        return x
    return log_with_root(x, -1.0)


@export
def atanh(x: f64) -> f64:
    size = fabs(x)
    if size < TINY or x != x:
        return x
    if size >= 1.0:
        return x * INFINITY if size == 1.0 else from_bits(NOT_A_NUMBER)
    above, above_low = two_sum(1.0, size)
    below, below_low = two_sum(1.0, -size)
    high, low = pair_quotient(above, above_low, below, below_low)
    high, low = logarithm(high, low)
    return signed_as(0.5 * (high + low), x)
