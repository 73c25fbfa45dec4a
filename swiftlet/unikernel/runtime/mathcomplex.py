"""Powers of complex numbers, by length and angle as CPython has them: the error grows with the exponent."""

from __future__ import annotations

from swiftlet.unikernel.metal.words import Array, export, f64, from_bits, many, u64
from swiftlet.unikernel.runtime.mathangle import atan2
from swiftlet.unikernel.runtime.mathexp import exp
from swiftlet.unikernel.runtime.mathlog import log
from swiftlet.unikernel.runtime.mathpow import pow
from swiftlet.unikernel.runtime.mathroot import hypot
from swiftlet.unikernel.runtime.mathtrig import angle as reduced
from swiftlet.unikernel.runtime.mathtrig import of_quadrant

NOT_A_NUMBER = 0x7FF8000000000000


def put(place: Array[f64], real: f64, imaginary: f64) -> None:
    """Write a complex number."""
    place[0] = real
    place[1] = imaginary


@export
def numba_cpow(of_base: u64, of_exponent: u64, to_result: u64) -> None:
    """Each is the address of two doubles. Of 0 to what is no exponent for it: no number."""
    base = many(f64, of_base)
    exponent = many(f64, of_exponent)
    result = many(f64, to_result)
    real, imaginary = exponent[0], exponent[1]
    if real == 0.0 and imaginary == 0.0:
        put(result, 1.0, 0.0)
        return
    size = hypot(base[0], base[1])
    if size == 0.0:
        if imaginary != 0.0 or real < 0.0:
            put(result, from_bits(NOT_A_NUMBER), from_bits(NOT_A_NUMBER))
        else:
            put(result, 0.0, 0.0)
        return
    angle = atan2(base[1], base[0])
    length = pow(size, real)
    turn = angle * real
    if imaginary != 0.0:
        length *= exp(-angle * imaginary)
        turn += imaginary * log(size)
    high, low, n = reduced(turn)
    put(result, length * of_quadrant(high, low, n + 1), length * of_quadrant(high, low, n))
