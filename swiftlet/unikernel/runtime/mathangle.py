"""Arc tangent, sine and cosine: all are the angle of a point, whose coordinates are pairs."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import as_int, bits, export, f64, fabs, from_bits, inline, nearest, signed, table
from swiftlet.unikernel.runtime.mathpair import (
    fast_sum,
    pair_product,
    pair_quotient,
    pair_root,
    pair_sum,
    polynomial,
    two_product,
    two_sum,
)

INFINITY = 1e999
NOT_A_NUMBER = 0x7FF8000000000000
SIGN = 1 << 63

PI, PI_LOW = 3.141592653589793, 1.2246467991473532e-16
HALF_PI, HALF_PI_LOW = 1.5707963267948966, 6.123233995736766e-17
"""As pairs."""

TINY = 7e-9
"""Below it, x^2 is less than a unit in the last place of 1: what such functions add to x is x^3 / 6 or x^3 / 3."""

# The angles whose tangents are 0/8, 1/8 ... 8/8, as pairs.
eighths = table(
    f64,
    0.0,
    0.0,
    0.12435499454676144,
    -3.1253241424539383e-18,
    0.24497866312686414,
    1.0698755618734451e-17,
    0.35877067027057225,
    -2.4623815582638635e-17,
    0.4636476090008061,
    2.2698777452961687e-17,
    0.5585993153435624,
    -5.4556305485916264e-18,
    0.6435011087932844,
    1.5834785051444286e-17,
    0.7188299996216245,
    -2.1478388444456983e-17,
    0.7853981633974483,
    3.061616997868383e-17,
)

# (atan(t) / t - 1) / t^2 in t^2 for |t| <= 1/16, by Chebyshev's interpolation
# (tests/coefficients.py); error in the angle: 2^-70 of it.
atan_terms = table(
    f64,
    0.07614677212408984,
    -0.09090568619519952,
    0.1111111042210501,
    -0.14285714285083742,
    0.1999999999999979,
    -0.3333333333333333,
)


def first_octant(y: f64, y_low: f64, x: f64, x_low: f64) -> tuple[f64, f64]:
    """The angle of a point with 0 <= y <= x, x > 0, as a pair; its relative error is below 2^-60.

    From the nearest eighth c on: atan(q) is atan(c) + atan(t), where t is (y - c x) / (x + c y).
    """
    times = nearest(y / x * 8.0)
    c = times * 0.125
    high, low = two_product(c, x)
    above, above_low = pair_sum(y, y_low, -high, -(low + c * x_low))
    high, low = two_product(c, y)
    below, below_low = pair_sum(x, x_low, high, low + c * y_low)
    t, t_low = pair_quotient(above, above_low, below, below_low)
    square = t * t
    t_low += t * square * polynomial(atan_terms, 6, square)
    place = as_int(times) * 2
    high, low = two_sum(eighths[place], t)
    high, low = fast_sum(high, low + (eighths[place + 1] + t_low))
    return high, low


def first_quadrant(y: f64, y_low: f64, x: f64, x_low: f64) -> tuple[f64, f64]:
    """The angle of a point with x and y not below 0 and not both 0, as a pair."""
    if y <= x:
        high, low = first_octant(y, y_low, x, x_low)
        return high, low
    high, low = first_octant(x, x_low, y, y_low)
    high, low = pair_sum(HALF_PI, HALF_PI_LOW, -high, -low)
    return high, low


@inline
def signed_as(size: f64, x: f64) -> f64:
    """A size, which is not negative, with the sign of x."""
    return from_bits(bits(size) | (bits(x) & SIGN))


@export
def atan(x: f64) -> f64:
    size = fabs(x)
    if size < TINY or x != x:
        return x
    if size > 1e17:  # 1 / x is less than half a unit in the last place of pi / 2
        return signed_as(HALF_PI, x)
    high, low = first_quadrant(size, 0.0, 1.0, 0.0)
    return signed_as(high + low, x)


def other_leg(x: f64) -> tuple[f64, f64]:
    """sqrt(1 - x^2) as a pair, for |x| < 1."""
    above, above_low = two_sum(1.0, x)
    below, below_low = two_sum(1.0, -x)
    high, low = pair_product(above, above_low, below, below_low)
    high, low = pair_root(high, low)
    return high, low


@export
def asin(x: f64) -> f64:
    size = fabs(x)
    if size < TINY or x != x:
        return x
    if size >= 1.0:
        return signed_as(HALF_PI, x) if size == 1.0 else from_bits(NOT_A_NUMBER)
    leg, leg_low = other_leg(size)
    high, low = first_quadrant(size, 0.0, leg, leg_low)
    return signed_as(high + low, x)


@export
def acos(x: f64) -> f64:
    size = fabs(x)
    if not size < 1.0:
        if x == 1.0:
            return 0.0
        return PI if x == -1.0 else from_bits(NOT_A_NUMBER)
    if size < 1e-17:
        return HALF_PI
    leg, leg_low = other_leg(size)
    high, low = first_quadrant(leg, leg_low, size, 0.0)
    if x < 0.0:
        high, low = pair_sum(PI, PI_LOW, -high, -low)
    return high + low


def of_sizes(y: f64, x: f64, is_left: bool) -> f64:
    """The angle, without its sign, of a point with finite coordinates of these sizes, both above 0."""
    apart = signed(bits(y) >> 52) - signed(bits(x) >> 52)
    if apart > 60:
        return HALF_PI
    if apart < -60:
        return PI if is_left else y / x
    scale = 2.0**-512 if x > 1.0 or y > 1.0 else 2.0**512
    y, x = y * scale, x * scale
    high, low = first_quadrant(y, 0.0, x, 0.0)
    if is_left:
        high, low = pair_sum(PI, PI_LOW, -high, -low)
    return high + low


@export
def atan2(y: f64, x: f64) -> f64:
    if x != x or y != y:
        return x + y
    is_left = signed(bits(x)) < 0
    across, up = fabs(x), fabs(y)
    if up == 0.0:
        return signed_as(PI if is_left else 0.0, y)
    if across == INFINITY and up == INFINITY:
        return signed_as(HALF_PI * 1.5 if is_left else HALF_PI * 0.5, y)
    if across == INFINITY:
        return signed_as(PI if is_left else 0.0, y)
    if across == 0.0 or up == INFINITY:
        return signed_as(HALF_PI, y)
    return signed_as(of_sizes(up, across, is_left), y)
