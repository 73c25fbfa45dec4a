"""Logarithms. All but that of a power go by way of `logarithm`."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    as_float,
    bits,
    export,
    f64,
    fabs,
    from_bits,
    i64,
    inline,
    signed,
    table,
    unsigned,
)
from swiftlet.unikernel.runtime.mathpair import (
    fast_sum,
    pair_product,
    pair_quotient,
    pair_sum,
    polynomial,
    two_sum,
)

INFINITY = 1e999
NOT_A_NUMBER = 0x7FF8000000000000

LN2_HIGH = 0.6931471805598903
LN2_LOW = 5.497923018708371e-14
"""ln 2: its first 42 bits, whose product with a number of 11 bits is exact, and the rest to 2^-97."""

LOG2_E, LOG2_E_LOW = 1.4426950408889634, 2.0355273740931033e-17
"""1 / ln 2 as a pair."""

LOG10_E, LOG10_E_LOW = 0.4342944819032518, 1.098319650216765e-17
"""1 / ln 10 as a pair."""

ROOT_OF_HALF = 0x3FE6A09E667F3BCD
"""The bits of the square root of 1/2."""

# (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2, for (1 + s) / (1 - s) from the root of 1/2 to that of 2, by Chebyshev's
# interpolation (tests/coefficients.py); error in the logarithm: 2^-60 of it.
log_terms = table(
    f64,
    0.13086767009948175,
    0.13268759668560612,
    0.15386240205813478,
    0.18181795630884753,
    0.2222222239180047,
    0.2857142857080323,
    0.4000000000000088,
    0.6666666666666666,
)

# (log((1 + s) / (1 - s)) - 2 s - 2/3 s^3 - 2/5 s^5) / s^7 likewise; error in the logarithm: 2^-72 of it.
precise_terms = table(
    f64,
    0.10617144341172342,
    0.10472895414354771,
    0.11766050284922107,
    0.13333314672574045,
    0.15384615524948372,
    0.18181818181300669,
    0.22222222222222948,
    0.2857142857142857,
)

THIRD, THIRD_LOW = 0.6666666666666666, 3.700743415417188e-17
FIFTH, FIFTH_LOW = 0.4, -2.2204460492503132e-17
"""2/3 and 2/5 as pairs."""


@inline
def exponent_of(x: f64) -> i64:
    """The k for which x * 2^-k lies between the roots of 1/2 and of 2. x: above 0 and normal."""
    return signed(bits(x) - ROOT_OF_HALF) >> 52


@inline
def halved(x: f64, k: i64) -> f64:
    """The product of x and 2^-k, where that is near 1."""
    return from_bits(bits(x) - (unsigned(k) << 52))


def ratio(high: f64, low: f64, k: i64) -> tuple[f64, f64]:
    """(m - 1) / (m + 1) as a pair, of m = (high + low) * 2^-k. low: 0 where high is above 2^1000."""
    f = halved(high, k) - 1.0
    rest = low * from_bits(unsigned(1023 - k) << 52) if low != 0.0 else 0.0
    f, rest = two_sum(f, rest)
    whole, part = fast_sum(2.0, f)
    f, rest = pair_quotient(f, rest, whole, part + rest)
    return f, rest


def of_fraction(high: f64, low: f64, k: i64) -> tuple[f64, f64]:
    """The logarithm of m, as in `ratio`, as a pair: twice s and its powers. The relative error is below 2^-58."""
    s, rest = ratio(high, low, k)
    square = s * s
    high, low = fast_sum(s + s, (rest + rest) + s * square * polynomial(log_terms, 8, square))
    return high, low


def with_exponent(high: f64, low: f64, k: i64) -> tuple[f64, f64]:
    """The sum high + low + k * ln 2."""
    times = as_float(k)
    whole, part = two_sum(times * LN2_HIGH, high)
    whole, part = fast_sum(whole, part + (low + times * LN2_LOW))
    return whole, part


def logarithm(high: f64, low: f64) -> tuple[f64, f64]:
    """The logarithm of a pair that is above 0 and normal; the relative error is below 2^-57."""
    k = exponent_of(high)
    high, low = of_fraction(high, low, k)
    high, low = with_exponent(high, low, k)
    return high, low


def precise_logarithm(x: f64, k: i64) -> tuple[f64, f64]:
    """The logarithm of x * 2^k, x above 0 and normal; the relative error is below 2^-68, as powers need it."""
    own = exponent_of(x)
    s, s_low = ratio(x, 0.0, own)
    z, z_low = pair_product(s, s_low, s, s_low)
    high, low = fast_sum(FIFTH, z * polynomial(precise_terms, 8, z) + FIFTH_LOW)
    high, low = pair_product(high, low, z, z_low)
    high, low = pair_sum(THIRD, THIRD_LOW, high, low)
    high, low = pair_product(high, low, z, z_low)
    high, low = pair_product(high, low, s, s_low)
    high, low = pair_sum(s + s, s_low + s_low, high, low)
    high, low = with_exponent(high, low, own + k)
    return high, low


@inline
def normal(x: f64) -> tuple[f64, i64]:
    """A double above 0 as one that is not subnormal, and k: of 2^k, which that is to be multiplied with."""
    if x < 2.0**-1022:
        return x * 2.0**54, -54
    return x, 0


def of_others(x: f64) -> f64:
    """The logarithm of what is no number above 0: of zeros, infinities, and what is below."""
    if x == 0.0:
        return -INFINITY
    if x < 0.0:
        return from_bits(NOT_A_NUMBER)
    return x  # infinity, or no number


@export
def log(x: f64) -> f64:
    if not x > 0.0 or x == INFINITY:
        return of_others(x)
    x, k = normal(x)
    own = exponent_of(x)
    high, low = of_fraction(x, 0.0, own)
    high, low = with_exponent(high, low, own + k)
    return high + low


@export
def log2(x: f64) -> f64:
    if not x > 0.0 or x == INFINITY:
        return of_others(x)
    x, k = normal(x)
    own = exponent_of(x)
    high, low = of_fraction(x, 0.0, own)
    high, low = pair_product(high, low, LOG2_E, LOG2_E_LOW)
    whole, part = two_sum(as_float(own + k), high)
    return whole + (part + low)


@export
def log10(x: f64) -> f64:
    if not x > 0.0 or x == INFINITY:
        return of_others(x)
    x, k = normal(x)
    own = exponent_of(x)
    high, low = of_fraction(x, 0.0, own)
    high, low = with_exponent(high, low, own + k)
    high, low = pair_product(high, low, LOG10_E, LOG10_E_LOW)
    return high + low


@export
def log1p(x: f64) -> f64:
    if not x > -1.0 or x == INFINITY:
        return of_others(1.0 + x)
    if fabs(x) < 1e-17:  # x^2 / 2 is less than half a unit in x's last place, and -0.0 stays
        return x
    if x > 2.0**60:
        return log(x)
    high, low = two_sum(1.0, x)
    high, low = logarithm(high, low)
    return high + low
