"""Sine, cosine and tangent. An angle is reduced by integers: exactly, however great it is.

A double is M * 2^e with M below 2^53. Of 2 / pi times it only the remainder by 4 matters, so of the bits of 2 / pi
those that give multiples of 4 are left out (Payne and Hanek, "Radian reduction for trigonometric functions", 1983), and
192 bits behind them are multiplied with M. No double comes nearer to a multiple of pi / 2 than 2^-61; what is left has
at least 137 bits behind the point, 76 of them that are not zeros.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    as_float,
    bits,
    export,
    f64,
    fabs,
    from_bits,
    high_product,
    inline,
    leading_zeros,
    many,
    signed,
    table,
    u64,
)
from swiftlet.unikernel.runtime.mathpair import fast_sum, pair_product, pair_quotient, polynomial, two_product

INFINITY = 1e999

QUARTER = 0.7853981633974483
"""pi / 4, below which nothing is reduced."""

TINY = 1e-8
"""Below it, x^3 / 6 and x^3 / 3 are less than half a unit in the last place of x, and -0.0 stays what it is."""

HALF_PI, HALF_PI_LOW = 1.5707963267948966, 6.123233995736766e-17
"""pi / 2 as a pair."""

# 2 / pi: 64 zeros before the point, and 1280 bits behind it. Of pi's digits, which the tests compare it with.
two_over_pi = table(
    u64,
    0,
    0xA2F9836E4E441529,
    0xFC2757D1F534DDC0,
    0xDB6295993C439041,
    0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0,
    0x06492EEA09D1921C,
    0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484,
    0xE99C7026B45F7E41,
    0x3991D639835339F4,
    0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F,
    0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08,
    0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)

# (sin(x) / x - 1) / x^2 in x^2 for |x| <= pi / 4, by Chebyshev's interpolation
# (tests/coefficients.py); error in the sine: 2^-57 of it, which is the last coefficient's rounding.
sin_terms = table(
    f64,
    2.791242229090309e-15,
    -7.646961311710078e-13,
    1.605904278076985e-10,
    -2.5052108382388815e-08,
    2.75573192239811e-06,
    -0.00019841269841269839,
    0.008333333333333333,
    -0.16666666666666666,
)

# (cos(x) - 1 + x^2 / 2) / x^4 likewise; error in the cosine: 2^-60.
cos_terms = table(
    f64,
    -1.1382623647474604e-11,
    2.087614614655861e-09,
    -2.7557317271145144e-07,
    2.480158729876456e-05,
    -0.0013888888888887398,
    0.041666666666666664,
)


def window(first: u64) -> u64:
    """64 bits of the table, from a bit on."""
    word = first >> 6
    shift = first & 63
    if shift == 0:
        return two_over_pi[word]
    return (two_over_pi[word] << shift) | (two_over_pi[word + 1] >> (64 - shift))


def as_pair(high: u64, low: u64) -> tuple[f64, f64]:
    """The number high * 2^64 + low, not 0, over 2^128, times pi / 2, as a pair; high is below 2^63."""
    shift = leading_zeros(high)
    scale = 2.0**-64
    if shift == 64:
        high, low, shift = low, 0, leading_zeros(low)
        scale = scale * 2.0**-64
    high = (high << shift) | ((low >> 1) >> (63 - shift))
    low <<= shift
    scale = scale * from_bits((1023 - shift) << 52)
    upper = as_float(high >> 11) * 2048.0
    lower = as_float(high & 2047) + as_float(low >> 11) * 2.0**-53
    return of_quarters(upper * scale, lower * scale)


@inline
def of_quarters(upper: f64, lower: f64) -> tuple[f64, f64]:
    """A pair times pi / 2."""
    upper, lower = pair_product(upper, lower, HALF_PI, HALF_PI_LOW)
    return upper, lower


def reduced(x: f64) -> tuple[f64, f64, u64]:
    """An angle above pi / 4 less n * pi / 2: a pair of at most pi / 4, and n, of which the last two bits are right."""
    exponent = (bits(x) >> 52) - 1075
    m = (bits(x) & 0x000FFFFFFFFFFFFF) | 0x0010000000000000
    first = exponent + 62  # its weight, times M's unit, is 2: of the table's bits, the 65th is 1 / 2
    next_ = window(first + 64)
    last = window(first + 128)
    bottom = m * last
    middle = m * next_ + high_product(m, last)
    carry = unsigned_less(middle, m * next_)
    top = m * window(first) + high_product(m, next_) + carry
    n = (top + (1 << 61)) >> 62
    high = (top << 2) | (middle >> 62)
    low = (middle << 2) | (bottom >> 62)
    if signed(high) >= 0:
        upper, lower = as_pair(high, low)
        return upper, lower, n
    upper, lower = as_pair(~high + (1 if low == 0 else 0), -low)
    return -upper, -lower, n


@inline
def unsigned_less(a: u64, b: u64) -> u64:
    """1 if a is below b, else 0: the carry of a sum a of which b was one part."""
    return 1 if a < b else 0


@inline
def sine(x: f64, low: f64) -> tuple[f64, f64]:
    """The sine of a pair of at most pi / 4, as a pair; its relative error is below 2^-55."""
    square = x * x
    high, rest = fast_sum(x, x * square * polynomial(sin_terms, 8, square) + (low - low * square * 0.5))
    return high, rest


@inline
def cosine(x: f64, low: f64) -> tuple[f64, f64]:
    """The cosine of a pair of at most pi / 4, as a pair; its relative error is below 2^-55."""
    square, rest = two_product(x, x)
    high, part = fast_sum(1.0, square * -0.5)
    high, part = fast_sum(high, part + (square * square * polynomial(cos_terms, 6, square) - (rest * 0.5 + x * low)))
    return high, part


def of_quadrant(x: f64, low: f64, n: u64) -> f64:
    """The sine of x + low + n * pi / 2."""
    if n & 1:
        high, rest = cosine(x, low)
    else:
        high, rest = sine(x, low)
    return -(high + rest) if n & 2 else high + rest


def angle(x: f64) -> tuple[f64, f64, u64]:
    """Any angle less n * pi / 2, as `reduced` has it; of what has no sine, no number."""
    size = fabs(x)
    if size <= QUARTER:
        return x, 0.0, 0
    if not size < INFINITY:
        return x - x, 0.0, 0
    high, low, n = reduced(size)
    if x < 0.0:
        high, low, n = -high, -low, -n
    return high, low, n


@export
def sin(x: f64) -> f64:
    if fabs(x) < TINY:
        return x
    high, low, n = angle(x)
    return of_quadrant(high, low, n)


@export
def cos(x: f64) -> f64:
    high, low, n = angle(x)
    return of_quadrant(high, low, n + 1)


@export
def sincos(x: f64, to_sine: u64, to_cosine: u64) -> None:
    """Both: what LLVM makes of a sine and a cosine of one angle. So those are not called by their names here."""
    sines = many(f64, to_sine)
    cosines = many(f64, to_cosine)
    high, low, n = angle(x)
    sines[0] = x if fabs(x) < TINY else of_quadrant(high, low, n)
    cosines[0] = of_quadrant(high, low, n + 1)


@export
def tan(x: f64) -> f64:
    if fabs(x) < TINY:
        return x
    high, low, n = angle(x)
    sine_high, sine_low = sine(high, low)
    cosine_high, cosine_low = cosine(high, low)
    if n & 1:
        high, low = pair_quotient(-cosine_high, -cosine_low, sine_high, sine_low)
    else:
        high, low = pair_quotient(sine_high, sine_low, cosine_high, cosine_low)
    return high + low
