"""Powers of e and of 2. Every one goes by way of `exponential`."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    as_int,
    export,
    f64,
    fabs,
    from_bits,
    i64,
    inline,
    nearest,
    table,
    unsigned,
)
from swiftlet.unikernel.runtime.mathpair import fast_sum, polynomial, two_product, two_sum

INFINITY = 1e999

LOG2_E = 1.4426950408889634
"""1 / ln 2."""

LN2_HIGH = 0.6931471805598903
LN2_LOW = 5.497923018708371e-14
"""ln 2: its first 42 bits, whose product with a number of 11 bits is exact, and the rest to 2^-97."""

LN2, LN2_REST = 0.6931471805599453, 2.3190468138462996e-17
"""ln 2 as a pair."""

HIGHEST = 710.0
LOWEST = -746.0
"""Above and below, e^x is infinite and 0: ln(2^1024) is 709.78, ln(2^-1075) is -745.13."""

# (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, by Chebyshev's interpolation
# (tests/coefficients.py); error in e^r: 2^-61.
exp_terms = table(
    f64,
    1.608662795678037e-10,
    2.0918137737642736e-09,
    2.505207109429355e-08,
    2.75572632790885e-07,
    2.755731924721873e-06,
    2.4801587336442236e-05,
    0.00019841269841263298,
    0.0013888888888879073,
    0.008333333333333333,
    0.04166666666666668,
    0.16666666666666666,
    0.5,
)


def exponential(high: f64, low: f64) -> tuple[f64, f64, i64]:
    """e^(high + low) as r, c and k: 2^k * (1 + r + c), where |r| <= ln(2) / 2. For |high| < 2000.

    The relative error is below 2^-55: the rounding of r^2 times the polynomial, which is below 0.07.
    """
    times = nearest(high * LOG2_E)
    r, rest = two_sum(high - times * LN2_HIGH, low - times * LN2_LOW)
    return r, rest + (rest * r + r * r * polynomial(exp_terms, 12, r)), as_int(times)


@inline
def power_of_two(k: i64) -> f64:
    """2^k, for -1022 <= k <= 1023."""
    return from_bits(unsigned(k + 1023) << 52)


def scaled(value: f64, k: i64) -> f64:
    """The product of a value of a size in [2^-10, 2^10] and 2^k, rounded once, for k in [-1500, 1100]."""
    if k > 1000:
        return value * power_of_two(1000) * power_of_two(k - 1000)
    if k < -1000:
        return value * power_of_two(k + 500) * power_of_two(-500)
    return value * power_of_two(k)


def raised(high: f64, low: f64) -> f64:
    """e^(high + low)."""
    if high > HIGHEST:
        return INFINITY
    if high < LOWEST:
        return 0.0
    r, c, k = exponential(high, low)
    one, rest = fast_sum(1.0, r)
    return scaled(one + (rest + c), k)


def less_one(high: f64, low: f64) -> tuple[f64, f64]:
    """e^(high + low) - 1 as a pair, for high in (-60, 700). The relative error is below 2^-53."""
    r, c, k = exponential(high, low)
    if k == 0:
        r, c = fast_sum(r, c)
        return r, c
    one, rest = fast_sum(1.0, r)
    scale = power_of_two(k)
    whole, part = two_sum(one * scale, -1.0)
    whole, part = fast_sum(whole, part + (rest + c) * scale)
    return whole, part


@export
def exp(x: f64) -> f64:
    if x != x:
        return x
    return raised(x, 0.0)


@export
def exp2(x: f64) -> f64:
    if x != x:
        return x
    if fabs(x) > 1100.0:
        return INFINITY if x > 0 else 0.0
    high, low = two_product(x, LN2)
    return raised(high, low + x * LN2_REST)


@export
def expm1(x: f64) -> f64:
    if x != x or fabs(x) < 1e-17:  # x^2 / 2 is less than half a unit in x's last place, and -0.0 stays
        return x
    if x > 60.0:
        return raised(x, 0.0)
    if x < -60.0:
        return -1.0
    high, low = less_one(x, 0.0)
    return high + low
