"""Functions that take doubles apart or round them. All are exact. Their integers are C's `int`, 32 bits wide."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    bits,
    export,
    f64,
    from_bits,
    i32,
    i64,
    inline,
    leading_zeros,
    many,
    nearest,
    signed,
    u64,
    unsigned,
)
from swiftlet.unikernel.metal.words import ceil as up
from swiftlet.unikernel.metal.words import fabs as size_of_double
from swiftlet.unikernel.metal.words import floor as down
from swiftlet.unikernel.metal.words import sqrt as root
from swiftlet.unikernel.metal.words import trunc as cut

SIGN = 1 << 63
FRACTION = (1 << 52) - 1
HIDDEN = 1 << 52
INFINITE = 0x7FF << 52
NOT_A_NUMBER = 0x7FF8 << 48


@inline
def signed_as(size: f64, x: f64) -> f64:
    """A number with the sign of x."""
    return from_bits((bits(size) & ~SIGN) | (bits(x) & SIGN))


@export
def sqrt(x: f64) -> f64:
    return root(x)


@export
def fabs(x: f64) -> f64:
    return size_of_double(x)


@export
def copysign(x: f64, y: f64) -> f64:
    return signed_as(x, y)


@export
def floor(x: f64) -> f64:
    return down(x)


@export
def ceil(x: f64) -> f64:
    return up(x)


@export
def trunc(x: f64) -> f64:
    return cut(x)


@export
def rint(x: f64) -> f64:
    return nearest(x)


@export
def nearbyint(x: f64) -> f64:
    return nearest(x)


@export
def round(x: f64) -> f64:
    """To the nearest, halves away from zero."""
    whole = cut(x)
    if size_of_double(x - whole) >= 0.5:
        whole += signed_as(1.0, x)
    return signed_as(whole, x)


@inline
def exponent_field(x: u64) -> u64:
    """The eleven bits of a double's exponent."""
    return (x >> 52) & 0x7FF


@export
def modf(x: f64, to_whole: u64) -> f64:
    """What is behind the point; `to_whole` gets the rest."""
    wholes = many(f64, to_whole)
    whole = cut(x)
    wholes[0] = whole
    return signed_as(x - whole if x != whole else 0.0, x)


@export
def frexp(x: f64, to_exponent: u64) -> f64:
    """The number x * 2^-n of a size in [1/2, 1), and n; of what is no number, or 0, itself and 0."""
    exponents = many(i32, to_exponent)
    exponents[0] = 0
    if x == 0.0 or exponent_field(bits(x)) == 0x7FF:
        return x
    less = 1022
    if exponent_field(bits(x)) == 0:
        x, less = x * 2.0**54, 1076
    exponents[0] = signed(exponent_field(bits(x)) - less)
    return from_bits((bits(x) & ~INFINITE) | (1022 << 52))


@export
def numba_frexp(x: f64, to_exponent: u64) -> f64:
    return frexp(x, to_exponent)


@inline
def int_of(n: u64) -> i64:
    """A C `int`: whoever calls leaves what they like in the upper half."""
    return signed(n << 32) >> 32


@inline
def power_of_two(k: i64) -> f64:
    """2^k, for -1022 <= k <= 1023."""
    return from_bits(unsigned(k + 1023) << 52)


@export
def ldexp(x: f64, n: u64) -> f64:
    """The number x * 2^n, rounded once: every step but the last is exact, or overflows."""
    k = int_of(n)
    for _ in range(2):
        if k > 1023:
            x, k = x * 2.0**1023, k - 1023
        elif k < -969:
            x, k = x * 2.0**-969, k + 969  # 53 bits above the least normal one, so that the last step rounds
    k = k if k < 1023 else 1023
    k = k if k > -1022 else -1022
    return x * power_of_two(k)


@export
def numba_ldexp(x: f64, n: u64) -> f64:
    return ldexp(x, n)


@export
def nextafter(x: f64, y: f64) -> f64:
    """The double behind x on the way to y."""
    if x != x or y != y:
        return x + y
    if x == y:
        return y
    if x == 0.0:
        return signed_as(from_bits(1), y)
    is_away = (x < y) == (x > 0.0)
    return from_bits(bits(x) + 1 if is_away else bits(x) - 1)


@export
def numba_nextafter(x: f64, y: f64) -> f64:
    return nextafter(x, y)


@inline
def significand(x: u64) -> u64:
    """Of a double's bits without a sign: a number of 53 bits, by which only a subnormal one's exponent must be less."""
    if exponent_field(x) != 0:
        return (x & FRACTION) | HIDDEN
    return x << (leading_zeros(x) - 11)


@inline
def exponent(x: u64) -> i64:
    """The exponent that belongs to `significand`: one more than 0 is the least that is normal."""
    if exponent_field(x) != 0:
        return signed(exponent_field(x))
    return 12 - signed(leading_zeros(x))


def remainder(a: u64, b: u64, apart: u64) -> u64:
    """The remainder a * 2^apart % b, of numbers below 2^53: 11 bits at a time, which is what fits into 64."""
    left = a % b
    while apart > 0:
        step = apart if apart < 11 else 11
        left = (left << step) % b
        apart -= step
    return left


def assembled(left: u64, scale: i64) -> u64:
    """The bits of the double that is `left`, below 2^53, in units of the exponent `scale`."""
    if left == 0:
        return 0
    shift = signed(leading_zeros(left)) - 11
    if shift < scale:
        return (left << unsigned(shift)) + (unsigned(scale - shift - 1) << 52)
    return left << unsigned(scale - 1) if scale > 0 else left >> unsigned(1 - scale)  # subnormal: no bit is lost


@export
def fmod(x: f64, y: f64) -> f64:
    """What x leaves by y, with the sign of x, exactly: long division of the significands."""
    a, b = bits(x) & ~SIGN, bits(y) & ~SIGN
    if a >= INFINITE or b > INFINITE or b == 0:
        return x + y if x != x or y != y else from_bits(NOT_A_NUMBER)
    if a < b:
        return x
    left = remainder(significand(a), significand(b), unsigned(exponent(a) - exponent(b)))
    return from_bits(assembled(left, exponent(b)) | (bits(x) & SIGN))
