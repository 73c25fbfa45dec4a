"""The error function and its complement."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import bits, export, f64, fabs, from_bits, table
from swiftlet.unikernel.runtime.mathexp import exponential, scaled
from swiftlet.unikernel.runtime.mathpair import (
    fast_sum,
    pair_product,
    pair_quotient,
    polynomial,
    two_product,
    two_sum,
)

SIGN = 1 << 63

SLOPE, SLOPE_LOW = 1.1283791670955126, 1.533545961316588e-17
"""2 / sqrt(pi) as a pair."""

# (erf(x) / x - 2 / sqrt(pi)) / x^2 in x^2 for |x| <= 1/2, by Chebyshev's interpolation
# (tests/coefficients.py); error in the function: 2^-70 of it.
erf_terms = table(
    f64,
    1.3352213458766059e-08,
    -1.6289942667776362e-07,
    1.645990173665516e-06,
    -1.4925611233919885e-05,
    0.00012055332552806435,
    -0.0008548327020584227,
    0.005223977625431178,
    -0.026866170645131037,
    0.11283791670955126,
    -0.37612638903183754,
)

# e^(x^2) erfc(x) (x + 1/2) in t = (x - 3/2) / (x + 3/2) for 1/2 <= x <= 4, likewise, without its constant, which the
# rest is nothing much beside; error in the function: 2^-61 of it.
middle_terms = table(
    f64,
    6.688472782538225e-07,
    1.3983004469479384e-07,
    -3.039796394389128e-06,
    -5.481456048812624e-06,
    -1.9017849649275706e-06,
    1.1388368735415653e-05,
    2.9426008166593838e-05,
    2.599107762680037e-05,
    -4.153043325840047e-05,
    -0.00016984919430489858,
    -0.00018664465584976542,
    0.0002638728888452225,
    0.0011800760968861627,
    0.0009111453388993635,
    -0.0036940028657204355,
    -0.009014182477810355,
    0.010509591280992813,
    0.05705284850020539,
    -0.11886879922685517,
    -0.016981257032407895,
)

MIDDLE, MIDDLE_LOW = 0.643170832908635, 3.392833879264882e-17
"""That constant as a pair."""

# (e^(x^2) erfc(x) x - 1 / sqrt(pi)) x^2 in 1 / x^2 for 4 <= x <= 28, likewise; error in the function: 2^-62 of it.
far_terms = table(
    f64,
    6130452402.07818,
    -3654433769.007393,
    1042393331.80872,
    -193012201.96889442,
    26880995.33134597,
    -3143020.1410478777,
    341005.18437948334,
    -37503.95993701473,
    4458.850466849743,
    -595.5255824403444,
    91.63563368597046,
    -16.661216255555388,
    3.7024941093062753,
    -1.0578554690641122,
    0.4231421876606924,
    -0.2820947917738781,
)

FAR, FAR_LOW = 0.5641895835477563, 7.66772980658294e-18
"""1 / sqrt(pi) as a pair."""


def near_zero(x: f64) -> tuple[f64, f64]:
    """erf(x) for |x| <= 1/2, as a pair."""
    square = x * x
    high, low = pair_product(x, 0.0, SLOPE, SLOPE_LOW)
    high, low = fast_sum(high, low + x * square * polynomial(erf_terms, 10, square))
    return high, low


def middle(x: f64) -> tuple[f64, f64]:
    """e^(x^2) erfc(x) for 1/2 <= x <= 4, as a pair."""
    t = (x - 1.5) / (x + 1.5)
    high, low = fast_sum(MIDDLE, t * polynomial(middle_terms, 20, t) + MIDDLE_LOW)
    below, below_low = two_sum(x, 0.5)
    high, low = pair_quotient(high, low, below, below_low)
    return high, low


def far(x: f64) -> tuple[f64, f64]:
    """e^(x^2) erfc(x) for 4 <= x <= 28, as a pair."""
    inverse = 1.0 / (x * x)
    high, low = fast_sum(FAR, inverse * polynomial(far_terms, 16, inverse) + FAR_LOW)
    high, low = pair_quotient(high, low, x, 0.0)
    return high, low


def tail(x: f64) -> f64:
    """erfc(x) for 1/2 <= x <= 28."""
    if x < 4.0:
        high, low = middle(x)
    else:
        high, low = far(x)
    square, square_low = two_product(x, x)
    r, c, k = exponential(-square, -square_low)
    one, r = fast_sum(1.0, r)
    one, r = fast_sum(one, r + c)
    high, low = pair_product(high, low, one, r)
    return scaled(high + low, k)


@export
def erf(x: f64) -> f64:
    size = fabs(x)
    if size < 1e-150 or x != x:  # its square would be 0 to those who multiply halves
        return x * SLOPE
    if size <= 0.5:
        high, low = near_zero(x)
        return high + low
    result = 1.0
    if size < 6.0:  # erfc(6) is 2^-55
        result = 1.0 - tail(size)
    return from_bits(bits(result) | (bits(x) & SIGN))


@export
def erfc(x: f64) -> f64:
    if x != x:
        return x
    size = fabs(x)
    if size <= 0.5:
        if size < 1e-17:
            return 1.0
        high, low = near_zero(x)
        high, part = two_sum(1.0, -high)
        return high + (part - low)
    if size > 28.0:
        return 2.0 if x < 0.0 else 0.0
    result = tail(size)
    return 2.0 - result if x < 0.0 else result
