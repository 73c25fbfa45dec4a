"""Where the coefficients in swiftlet/unikernel/runtime/math*.py come from: run it with a Python that has mpmath.

Every table is Chebyshev's interpolation of a function that is given here as it is defined, with 400 bits; what is
printed behind its name is the interpolation's own error, relative to the function that is computed by it, as a power
of two. The coefficients are then rounded to doubles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as m

m.mp.prec = 400

WIDER = m.mpf(1.0001)
"""Intervals are this much longer than what is needed: what is rounded may lie outside."""


def show(
    name: str, function: Callable[..., Any], low: Any, high: Any, count: int, weight: Any, skipped: int = 0
) -> None:
    """A table. weight: what the polynomial is at most multiplied with, over the function that is computed."""
    found, error = m.chebyfit(function, [m.mpf(low), m.mpf(high)], count + skipped, error=True)
    print(f"{name}: 2^{m.nstr(m.log(error * weight, 2), 4)}")
    for each in found[:count]:
        print(f"    {float(each)!r},")
    if skipped:
        pair(f"{name}: constant", found[-1])


def pair(name: str, value: Any) -> None:
    """A number as two doubles."""
    print(f"{name}: {float(value)!r}, {float(value - m.mpf(float(value)))!r}")


def by_square(function: Callable[..., Any], at_zero: Any) -> Callable[..., Any]:
    """A function of x that is even, as one of x^2."""
    return lambda square: function(m.sqrt(square)) if square > m.mpf(10) ** -25 else at_zero


def scaled_erfc(x: Any) -> Any:
    """The function that erfc is without e^(-x^2)."""
    return m.exp(x * x) * m.erfc(x)


def main() -> None:
    """Print all."""
    half = m.log(2) / 2 * WIDER
    show(
        "exp_terms",
        lambda r: (m.expm1(r) - r) / r**2 if abs(r) > m.mpf(10) ** -25 else m.mpf(0.5),
        -half,
        half,
        12,
        half**2,
    )
    s = (m.sqrt(2) - 1) / (m.sqrt(2) + 1)
    log = by_square(lambda x: (2 * m.atanh(x) / x - 2) / x**2, m.mpf(2) / 3)
    show("log_terms", log, 0, s * s * WIDER, 8, s * s / 2)
    precise = by_square(
        lambda x: ((2 * m.atanh(x) / x - 2) / x**2 - m.mpf(2) / 3) / x**4 - m.mpf(2) / 5 / x**2, m.mpf(2) / 7
    )
    show("precise_terms", precise, 0, s * s * WIDER, 8, s**6 / 2)
    quarter = (m.pi / 4) ** 2 * WIDER
    show("sin_terms", by_square(lambda x: (m.sin(x) / x - 1) / x**2, -m.mpf(1) / 6), 0, quarter, 8, quarter)
    cos = by_square(lambda x: (m.cos(x) - 1 + x * x / 2) / x**4, m.mpf(1) / 24)
    show("cos_terms", cos, 0, quarter, 6, quarter**2 * m.sqrt(2))
    sixteenth = m.mpf(1) / 256 * WIDER
    show("atan_terms", by_square(lambda x: (m.atan(x) / x - 1) / x**2, -m.mpf(1) / 3), 0, sixteenth, 6, sixteenth)
    show("sinh_terms", by_square(lambda x: (m.sinh(x) / x - 1) / x**2, m.mpf(1) / 6), 0, WIDER, 8, 1)
    slope = 2 / m.sqrt(m.pi)
    erf = by_square(lambda x: (m.erf(x) / x - slope) / x**2, -slope / 3)
    show("erf_terms", erf, 0, m.mpf(1) / 4 * WIDER, 10, m.mpf(1) / 4)
    three = m.mpf(3) / 2

    def middle(t: Any) -> Any:
        x = three * (1 + t) / (1 - t)
        return scaled_erfc(x) * (x + m.mpf(1) / 2)

    show("middle_terms", middle, -m.mpf(1) / 2, m.mpf(5) / 11, 20, 2, 1)
    far = by_square(lambda x: (scaled_erfc(1 / x) / x - 1 / m.sqrt(m.pi)) / x**2, -1 / m.sqrt(m.pi) / 2)
    show("far_terms", far, m.mpf(1) / 784, m.mpf(1) / 16, 16, m.mpf(1) / 8)
    for name, place, first in (("near_one", 1, -m.euler), ("near_two", 2, 1 - m.euler)):

        def near(e: Any, place: int = place, first: Any = first) -> Any:
            if abs(e) < m.mpf(10) ** -25:
                return m.zeta(2, place) / 2
            return (m.loggamma(place + e) - first * e) / e**2

        show(name, near, -m.mpf(1) / 16, m.mpf(1) / 16, 12, m.mpf(1) / 16 / abs(first))
    for number in range(10, 0, -1):
        print(f"B{2 * number}: {float(m.bernoulli(2 * number) / (2 * number * (2 * number - 1)))!r}")
    for name, value in (("ln 2", m.log(2)), ("1 / ln 2", 1 / m.log(2)), ("1 / ln 10", 1 / m.log(10)), ("pi", m.pi)):
        pair(name, value)
    high = m.floor(m.ldexp(m.log(2), 42)) / m.mpf(2) ** 42
    print(f"ln 2, 42 bits: {float(high)!r}, {float(m.log(2) - high)!r}")
    pair("ln(sqrt(2 pi))", m.log(2 * m.pi) / 2)
    pair("Euler's constant", m.euler)
    pair("1 / sqrt(pi)", 1 / m.sqrt(m.pi))
    for number in range(9):
        pair(f"atan {number}/8", m.atan(m.mpf(number) / 8))


if __name__ == "__main__":
    main()
