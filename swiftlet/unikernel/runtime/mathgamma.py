"""The gamma function and its logarithm, by Stirling's series from 10 on. What is less is moved up, by a product."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    as_int,
    bits,
    export,
    f64,
    fabs,
    floor,
    from_bits,
    i64,
    nearest,
    signed,
    table,
    unsigned,
)
from swiftlet.unikernel.runtime.mathexp import exponential, scaled
from swiftlet.unikernel.runtime.mathlog import log, precise_logarithm
from swiftlet.unikernel.runtime.mathpair import (
    fast_sum,
    pair_product,
    pair_quotient,
    pair_sum,
    polynomial,
    two_sum,
)
from swiftlet.unikernel.runtime.mathtrig import cosine, sine

INFINITY = 1e999
NOT_A_NUMBER = 0x7FF8000000000000

PI, PI_LOW = 3.141592653589793, 1.2246467991473532e-16
EULER, EULER_LOW = 0.5772156649015329, -4.942915152430645e-18
LN_ROOT_2_PI, LN_ROOT_2_PI_LOW = 0.9189385332046728, -3.8782941580672414e-17
REST, REST_LOW = 0.42278433509846713, 4.942915152430645e-18
"""Pi, Euler's constant, 1 less it, and ln(sqrt(2 pi)) as pairs."""

# Stirling's series in 1 / x^2, times x: Bernoulli's numbers; from 10 on its error is below 2^-65.
stirling_terms = table(
    f64,
    -1.3924322169059011,  # B20 / 380
    0.17964437236883057,  # B18 / 306
    -0.029550653594771242,  # B16 / 240
    0.00641025641025641,  # B14 / 182
    -0.0019175269175269176,  # B12 / 132
    0.0008417508417508417,  # B10 / 90
    -0.0005952380952380953,  # B8 / 56
    0.0007936507936507937,  # B6 / 30
    -0.002777777777777778,  # B4 / 12
    0.08333333333333333,  # B2 / 2
)

# (log(gamma(1 + e)) + EULER e) / e^2 and (log(gamma(2 + e)) - (1 - EULER) e) / e^2 for |e| <= 1/16, by Chebyshev's
# interpolation (tests/coefficients.py); error in the logarithm: 2^-65 of it.
near_one = table(
    f64,
    -0.07771886600274286,
    0.08419633816504075,
    -0.09095055427479368,
    0.10009574744574636,
    -0.11133427289035538,
    0.12550967704664928,
    -0.14404989676241509,
    0.16955717699051817,
    -0.20738555102867615,
    0.27058080842778687,
    -0.40068563438653143,
    0.8224670334241132,
)

near_two = table(
    f64,
    -9.46342394499874e-06,
    2.0558562833863045e-05,
    -4.4926131497167637e-05,
    9.945728700561622e-05,
    -0.0002231547586667932,
    0.0005096695252004546,
    -0.0011927539117030656,
    0.0028905103307411044,
    -0.007385551028673986,
    0.020580808427784546,
    -0.0673523010531981,
    0.3224670334241132,
)


def moved(x: f64) -> tuple[f64, f64, f64, f64]:
    """For 0 < x < 10: x (x + 1) ... (x + n - 1) and x + n, which is at least 10; both as pairs."""
    product, low = x, 0.0
    y, y_low = two_sum(x, 1.0)
    step = 1.0
    while y < 10.0:
        product, low = pair_product(product, low, y, y_low)
        step += 1.0
        y, y_low = two_sum(x, step)
    return product, low, y, y_low


def stirling(x: f64, x_low: f64) -> tuple[f64, f64]:
    """log(gamma(x)) for 10 <= x < 1e17, as a pair: (x - 1/2) log x - x + ln(sqrt(2 pi)) + the series.

    What x_low adds is that times the derivative. The error is 2^-67 of the result, or 2^-59.
    """
    high, low = precise_logarithm(x, 0)
    slope = high - 0.5 / x
    half, half_low = two_sum(x, -0.5)
    high, low = pair_product(high, low, half, half_low)
    high, low = pair_sum(high, low, -x, 0.0)
    high, low = pair_sum(high, low, LN_ROOT_2_PI, LN_ROOT_2_PI_LOW)
    inverse = 1.0 / x
    high, low = pair_sum(high, low, inverse * polynomial(stirling_terms, 10, inverse * inverse), x_low * slope)
    return high, low


def sine_of_turns(x: f64) -> tuple[f64, f64]:
    """The sine of pi x as a pair, for 0 < x < 2^52 that is not whole."""
    whole = nearest(x)
    part = x - whole
    size = fabs(part)
    if size <= 0.25:
        high, low = pair_product(size, 0.0, PI, PI_LOW)
        high, low = sine(high, low)
    else:
        high, low = pair_product(0.5 - size, 0.0, PI, PI_LOW)
        high, low = cosine(high, low)
    if (part < 0.0) != (as_int(whole) & 1 == 1):
        return -high, -low
    return high, low


def gamma_above(x: f64) -> f64:
    """gamma(x), for 2^-54 < x < 172."""
    product, product_low, y, y_low = 1.0, 0.0, x, 0.0
    if x < 10.0:
        product, product_low, y, y_low = moved(x)
    high, low = stirling(y, y_low)
    r, c, k = exponential(high, low)
    one, rest = fast_sum(1.0, r)
    one, rest = fast_sum(one, rest + c)
    one, rest = pair_quotient(one, rest, product, product_low)
    return times_power(one + rest, k)


def gamma_below(x: f64) -> f64:
    """gamma(-x), for 2^-54 < x < 185 that is not whole: -pi / (x sin(pi x) gamma(x))."""
    product, product_low, y, y_low = 1.0, 0.0, x, 0.0
    if x < 10.0:
        product, product_low, y, y_low = moved(x)
    high, low = stirling(y, y_low)
    r, c, k = exponential(-high, -low)
    one, rest = fast_sum(1.0, r)
    one, rest = fast_sum(one, rest + c)
    one, rest = pair_product(one, rest, product, product_low)
    one, rest = pair_product(one, rest, -PI, -PI_LOW)
    high, low = sine_of_turns(x)
    high, low = pair_product(high, low, x, 0.0)
    one, rest = pair_quotient(one, rest, high, low)
    return times_power(one + rest, k)


def times_power(value: f64, k: i64) -> f64:
    """The product of a value and 2^k, for one of a size between 2^-200 and 2^200: rounded once."""
    own = (signed(bits(fabs(value))) >> 52) - 1023
    return scaled(from_bits(bits(value) - (unsigned(own) << 52)), k + own)


@export
def tgamma(x: f64) -> f64:
    if x != x or x == INFINITY:
        return x
    size = fabs(x)
    if size < 2.0**-54:  # 1 / x - EULER; of 0, infinity with its sign
        return 1.0 / x
    if x > 0.0:
        return gamma_above(x) if x < 172.0 else INFINITY
    if floor(x) == x:
        return from_bits(NOT_A_NUMBER)
    if size > 185.0:
        return -0.0 if as_int(floor(size)) & 1 == 0 else 0.0
    return gamma_below(size)


@export
def numba_gamma(x: f64) -> f64:
    return tgamma(x)


def log_above(x: f64) -> tuple[f64, f64]:
    """log(gamma(x)), for 2^-54 < x < 1e17, as a pair."""
    e = x - 1.0
    if fabs(e) <= 0.0625:
        high, low = pair_product(e, 0.0, -EULER, -EULER_LOW)
        high, low = two_sum(high, low + e * e * polynomial(near_one, 12, e))
        return high, low
    e = x - 2.0
    if fabs(e) <= 0.0625:
        high, low = pair_product(e, 0.0, REST, REST_LOW)
        high, low = two_sum(high, low + e * e * polynomial(near_two, 12, e))
        return high, low
    if x >= 10.0:
        high, low = stirling(x, 0.0)
        return high, low
    product, product_low, y, y_low = moved(x)
    high, low = stirling(y, y_low)
    less, less_low = precise_logarithm(product, 0)
    high, low = pair_sum(high, low, -less, -(less_low + product_low / product))
    return high, low


def log_below(x: f64) -> f64:
    """log(|gamma(-x)|), for 2^-54 < x < 2^52 that is not whole: log(pi / |x sin(pi x)|) - log(gamma(x)).

    Its error is 2^-54 of the greater of the two, so near where it is 0 the last places mean nothing.
    """
    high, low = sine_of_turns(x)
    high, low = pair_product(high, low, x, 0.0)
    high, low = pair_quotient(PI, PI_LOW, high, low)
    if high < 0.0:
        high, low = -high, -low
    whole, part = precise_logarithm(high, 0)
    part += low / high
    high, low = log_above(x)
    high, low = pair_sum(whole, part, -high, -low)
    return high + low


def far_out(x: f64) -> f64:
    """The value of x (log x - 1), which log(gamma(x)) is from 1e17 on.

    It is made of x / 2^40, so that only the result overflows.
    """
    high, low = precise_logarithm(x, 0)
    high, low = pair_sum(high, low, -1.0, 0.0)
    high, low = pair_product(high, low, x * 2.0**-40, 0.0)
    return (high + low) * 2.0**40


@export
def lgamma(x: f64) -> f64:
    size = fabs(x)
    if not size < INFINITY:
        return size
    if size < 2.0**-54:
        return -log(size)
    if x < 0.0:
        return INFINITY if floor(x) == x else log_below(size)
    if x > 1e17:
        return far_out(x)
    high, low = log_above(x)
    return high + low
