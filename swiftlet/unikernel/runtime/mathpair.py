"""Numbers of two doubles, high and low, whose sum is the value: about 106 bits. What the mathematics is built of.

The sums and products are those of Dekker ("A floating-point technique for extending the available precision", 1971)
and Knuth (The Art of Computer Programming, 4.2.2): exact, as long as nothing overflows and no low part underflows.
The processor that the code is for has no multiplication that adds, so a product is put together from halves.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Array, bits, f64, from_bits, inline, sqrt, u64

UPPER_HALF = 0xFFFFFFFFF8000000
"""Of a double's bits: its sign, its exponent and 26 bits of its significand. What remains has 27."""


@inline
def fast_sum(a: f64, b: f64) -> tuple[f64, f64]:
    """The sum a + b, exactly, where |a| >= |b| or a is 0."""
    total = a + b
    return total, b - (total - a)


@inline
def two_sum(a: f64, b: f64) -> tuple[f64, f64]:
    """The sum a + b, exactly."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@inline
def two_product(a: f64, b: f64) -> tuple[f64, f64]:
    """The product a * b; its relative error is below 2^-105, that of the product of the two lower halves."""
    product = a * b
    a_high = from_bits(bits(a) & UPPER_HALF)
    b_high = from_bits(bits(b) & UPPER_HALF)
    a_low = a - a_high
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@inline
def pair_sum(a: f64, a_low: f64, b: f64, b_low: f64) -> tuple[f64, f64]:
    """The sum of two pairs; its error is 2^-104 of the greater one."""
    high, low = two_sum(a, b)
    high, low = fast_sum(high, low + (a_low + b_low))
    return high, low


@inline
def pair_product(a: f64, a_low: f64, b: f64, b_low: f64) -> tuple[f64, f64]:
    """The product of two pairs; its relative error is below 2^-102."""
    high, low = two_product(a, b)
    high, low = fast_sum(high, low + (a * b_low + a_low * b))
    return high, low


@inline
def pair_quotient(a: f64, a_low: f64, b: f64, b_low: f64) -> tuple[f64, f64]:
    """The quotient of two pairs: that of their high parts, and what it leaves divided once more.

    The relative error is below 2^-102.
    """
    quotient = a / b
    high, low = two_product(quotient, b)
    left = ((a - high) - low) + (a_low - quotient * b_low)
    quotient, low = fast_sum(quotient, left / b)
    return quotient, low


@inline
def pair_root(a: f64, a_low: f64) -> tuple[f64, f64]:
    """The square root of a pair above 0: one step of Newton's; relative error below 2^-102."""
    root = sqrt(a)
    high, low = two_product(root, root)
    left = ((a - high) - low) + a_low
    root, low = fast_sum(root, left / (root + root))
    return root, low


def polynomial(coefficients: Array[f64], count: u64, x: f64) -> f64:
    """A polynomial's value by Horner's rule, highest coefficient first, `count` (even) of them.

    Those of even and of odd powers go side by side, since each step waits for the one before.
    """
    square = x * x
    odd = coefficients[0]
    even = coefficients[1]
    for each in range(2, count, 2):
        odd = odd * square + coefficients[each]
        even = even * square + coefficients[each + 1]
    return odd * x + even
