"""The mathematics of tasks, on this processor, against the host's 80-bit functions, whose own error is 1/1000 unit."""

from __future__ import annotations

import ctypes
import io
import math
import struct
from fractions import Fraction

import llvmlite.binding as llvm
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from swiftlet.model.error import InputError
from swiftlet.unikernel import elf, link, runtime_for
from swiftlet.unikernel.metal.assemble import BASELINE, compiled, optimised, target_machine
from swiftlet.unikernel.metal.emit import emitted
from swiftlet.unikernel.metal.program import Program

EXACT = np.longdouble
INF, NAN = math.inf, math.nan
MATHEMATICS = {name: module for name, module in runtime_for.supplied().items() if module.startswith("runtime.math")}
MODULES = sorted(set(MATHEMATICS.values()))


LIMIT = 1.1
"""Units in the last place. In 2 million arguments expm1 was 1.02 off at worst, cosh 0.88, all others less than that."""


@pytest.fixture(scope="module")
def program():
    return Program(MODULES)


@pytest.fixture(scope="module")
def find(program):
    """A function of the runtime by its name, as one of this process. It has but its own: no C library's is called."""
    module = optimised(emitted(program), target_machine())
    engine = llvm.create_mcjit_compiler(
        module, llvm.Target.from_default_triple().create_target_machine(cpu=BASELINE, codemodel="jitdefault")
    )
    engine.finalize_object()

    def made(name, arguments=(ctypes.c_double,), result=ctypes.c_double):
        return ctypes.CFUNCTYPE(result, *arguments)(engine.get_function_address(name))

    return made


@pytest.fixture
def draw():
    return np.random.default_rng(5)


class Points:
    """Arguments, `count` of each kind."""

    def __init__(self, draw, count=400):
        self.draw, self.count = draw, count

    def between(self, low, high):
        return self.draw.uniform(low, high, self.count)

    def sized(self, low, high):
        """Of sizes 2^low to 2^high, above 0."""
        return 2.0 ** self.draw.uniform(low, high, self.count)

    def both(self, low, high):
        return self.sized(low, high) * self.draw.choice([-1.0, 1.0], self.count)

    def any(self):
        """Of any bits."""
        found = self.draw.integers(0, 1 << 64, self.count, dtype=np.uint64).view(np.float64)
        return found[np.isfinite(found)]

    def near(self, step, low):
        """What comes nearest to multiples of a number, which is a pair."""
        times = np.concatenate([np.arange(1, self.count), self.draw.integers(1, 1 << 40, self.count)])
        found = (EXACT(times) * (EXACT(step) + EXACT(low))).astype(np.float64)
        return np.concatenate([found, np.nextafter(found, 0)])


def units_off(got, exact):
    """How far results are from exact ones, in units of the last place of the latter."""
    got, exact = np.asarray(got), np.asarray(exact, EXACT)
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float64)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(np.float64).max)).astype(EXACT)
        finite = np.isfinite(got) & np.isfinite(rounded)
        off = np.where(finite, np.abs(got.astype(EXACT) - np.where(finite, exact, 0)) / unit, INF)
    return np.where(same & ~finite, 0, off).astype(np.float64)


def worst(function, reference, *arguments):
    """The greatest distance, and for what."""
    got = [function(*each) for each in zip(*(each.tolist() for each in arguments), strict=True)]
    with np.errstate(all="ignore"):
        off = units_off(got, reference(*(each.astype(EXACT) for each in arguments)))
    place = int(np.argmax(off))
    return float(off[place]), [float(each[place]) for each in arguments]


def assert_within(function, reference, *arguments, limit=LIMIT):
    off, where = worst(function, reference, *arguments)
    assert off < limit, where


def test_the_measure_of_errors_measures():
    assert np.finfo(EXACT).nmant == 63
    above = math.nextafter(math.nextafter(1.5, 2), 2)
    assert units_off([1.5, above, INF, NAN, 1.0], [EXACT(1.5), EXACT(1.5), INF, NAN, INF]).tolist() == [0, 2, 0, 0, INF]
    assert worst(math.sin, np.cos, np.array([1.0]))[0] > 1e15
    assert 0.3 < float(units_off([0.1], [EXACT(1) / EXACT(10)])[0]) < 0.5


ANGLES = ("sin", "cos", "tan", "atan")
POWERS = ("exp", "exp2", "expm1", "sinh", "cosh", "tanh", "asinh")
LOGARITHMS = ("log", "log2", "log10", "log1p")
NAMES = {
    "atan": "arctan",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "asin": "arcsin",
    "acos": "arccos",
}


@pytest.mark.parametrize("name", [*ANGLES, *POWERS, *LOGARITHMS, "acosh", "atanh", "asin", "acos", "cbrt"])
def test_a_function_is_within_a_unit_in_the_last_place(find, draw, name):
    of = Points(draw)
    if name in ANGLES:
        near = of.near(math.pi / 2, 6.123233995736766e-17)
        points = [near, of.between(-1, 1), of.both(-30, 20), of.both(0, 1023), of.any(), of.both(-1074, -1000)]
    elif name in POWERS:
        points = [of.between(-746, 711), of.between(-1080, 1025), of.between(-1, 1), of.both(-60, 9), of.any()]
        points += [of.between(-746, -700), of.between(-2, 2), of.both(-1074, -1000)]
    elif name in LOGARITHMS or name == "acosh":
        points = [of.sized(0, 1024), 1 + of.sized(-52, 0), of.between(1, 10)]
        if name != "acosh":
            points += [of.sized(-1074, 0), 1 - of.sized(-53, -1), of.sized(-2, 2), of.any()]
    elif name == "cbrt":
        points = [of.both(-1074, 1024), of.between(-10, 10), of.any()]
    else:
        points = [of.between(-1, 1), of.both(-60, 0), 1 - of.sized(-53, 0), of.sized(-53, 0) - 1, of.both(-1074, -900)]
    assert_within(find(name), getattr(np, NAMES.get(name, name)), np.concatenate(points))


def test_powers_lengths_and_angles_of_points(find, draw):
    two = (ctypes.c_double, ctypes.c_double)
    of = Points(draw, 700)
    bases = [of.sized(-20, 20), of.sized(-1074, 1024), 1 + of.both(-52, -1), of.between(0, 3), of.sized(-2, 2)]
    exponents = [of.between(-40, 40), of.between(-1.2, 1.2), of.both(0, 63), of.between(-300, 300), of.both(-20, 12)]
    assert_within(find("pow", two), np.power, np.concatenate(bases), np.concatenate(exponents))
    whole = -np.floor(of.sized(0, 8)), np.floor(of.between(-60, 60))
    assert_within(find("pow", two), np.power, *whole)
    x = np.concatenate([of.both(-40, 40), of.both(-1074, 1023), of.between(-2, 2), of.any()[:600]])
    y = np.concatenate([of.both(-40, 40), of.both(-1074, 1023), of.between(-2, 2), of.any()[:600]])
    assert_within(find("atan2", two), np.arctan2, y, x)
    assert_within(find("hypot", two), np.hypot, y, x)


def test_the_worst_angle_for_a_reduction(find):
    """Of all doubles it is the nearest to a multiple of pi / 2: Kahan and McDonald's."""
    x = math.ldexp(6381956970095103, 797)
    assert find("cos")(x) == -4.68716592425462761112e-19
    assert find("sin")(x) == 1.0
    assert find("sin")(1e22) == -0.8522008497671888
    assert find("tan")(1.7976931348623157e308) == pytest.approx(-0.004962015874444895, rel=1e-15)


def test_the_bits_of_two_over_pi(program):
    """Of pi by Machin's formula: 16 atan(1/5) - 4 atan(1/239)."""

    def arc(n):
        total, term, k = 0, (1 << 1400) // n, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (n * n), k + 2
        return total

    pi = 16 * arc(5) - 4 * arc(239)
    bits = (2 << 1400 << 1280) // pi
    words = next(each.values for each in program.variables if each.symbol == "mathtrig.two_over_pi")
    assert words == tuple(bits >> 64 * (20 - place) & (1 << 64) - 1 for place in range(21))


FROM_LIBC = {"erf": "erfl", "erfc": "erfcl", "tgamma": "tgammal", "lgamma": "lgammal"}


@pytest.mark.parametrize("name", FROM_LIBC)
def test_error_and_gamma_functions(find, draw, name):
    """Against the C library's, rounded to a double: so two units apart is one and a half, and what it is off itself."""
    exact = getattr(ctypes.CDLL("libm.so.6"), FROM_LIBC[name])
    exact.argtypes, exact.restype = [ctypes.c_longdouble], ctypes.c_longdouble
    of = Points(draw, 500)
    points = {
        "erf": [of.between(-6.5, 6.5), of.between(-0.6, 0.6), of.both(-1074, 0)],
        "erfc": [of.between(-7, 28), of.between(0.4, 1), of.both(-60, 0)],
        "tgamma": [of.between(0, 172), of.between(-184, 0), of.between(-3, 12), of.both(-1000, 2), np.arange(1.0, 171)],
        "lgamma": [of.between(0, 20), of.sized(-300, 1010), 1 + of.both(-52, -2), 2 + of.both(-51, -2)],
    }
    numbers = np.concatenate(points[name])

    def reference(each):
        return np.array([exact(float(number)) for number in each])

    assert_within(find(name), reference, numbers, limit=1.01)
    if name == "lgamma":
        below = [x for x in of.between(-50, 0).tolist() if x != int(x)]
        assert all(abs(find(name)(x) - exact(x)) <= 2**-52 * max(1, abs(exact(x)), math.lgamma(-x)) for x in below)
    if name == "tgamma":
        assert [find(name)(float(n + 1)) for n in range(23)] == [math.factorial(n) for n in range(23)]


SPECIAL = {
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (5e-324, 5e-324)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (-5e-324, -5e-324)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 2), (-1.0, -math.pi / 2), (1.5, NAN), (-INF, NAN)],
    "acos": [(0.0, math.pi / 2), (1.0, 0.0), (-1.0, math.pi), (-1.5, NAN), (INF, NAN)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (INF, math.pi / 2), (-INF, -math.pi / 2), (1.0, math.pi / 4)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (711.0, INF), (-1e9, -INF)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (-711.0, INF)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (50.0, 1.0)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "acosh": [(1.0, 0.0), (INF, INF), (0.5, NAN), (-INF, NAN)],
    "atanh": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (INF, NAN)],
    "exp": [
        (0.0, 1.0),
        (-0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (709.7827128933841, INF),
        (1e300, INF),
        (-746.0, 0.0),
        (-745.0, 5e-324),
    ],
    "exp2": [
        (0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (1024.0, INF),
        (-1074.0, 5e-324),
        (-1076.0, 0.0),
        (10.0, 1024.0),
        (-1022.0, 2**-1022),
    ],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (710.0, INF), (-5e-324, -5e-324)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN), (5e-324, -744.4400719213812)],
    "log2": [(0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (5e-324, -1074.0), (8.0, 3.0), (2**1023, 1023.0)],
    "log10": [(0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), *[(10.0**n, float(n)) for n in range(23)]],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN), (5e-324, 5e-324)],
    "cbrt": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (INF, INF),
        (-INF, -INF),
        *[(float(n**3), float(n)) for n in range(-30, 31) if n],
    ],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)],
    "erfc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (28.5, 0.0)],
    "tgamma": [
        (0.0, INF),
        (-0.0, -INF),
        (INF, INF),
        (-INF, NAN),
        (-1.0, NAN),
        (171.7, INF),
        (-184.5, -0.0),
        (-185.5, 0.0),
        (5e-324, INF),
    ],
    "lgamma": [(0.0, INF), (-0.0, INF), (1.0, 0.0), (2.0, 0.0), (-3.0, INF), (INF, INF), (-INF, INF), (3e305, INF)],
    "sqrt": [(0.0, 0.0), (-0.0, -0.0), (2.25, 1.5), (-1.0, NAN), (INF, INF)],
    "fabs": [(-0.0, 0.0), (-2.5, 2.5), (-INF, INF)],
    "floor": [(-0.5, -1.0), (2.5, 2.0), (-0.0, -0.0), (INF, INF), (2.0**60, 2.0**60)],
    "ceil": [(-0.5, -0.0), (2.5, 3.0), (-INF, -INF)],
    "trunc": [(-0.5, -0.0), (-2.5, -2.0), (2.5, 2.0)],
    "rint": [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0), (-0.5, -0.0)],
    "nearbyint": [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0)],
    "round": [
        (0.5, 1.0),
        (1.5, 2.0),
        (-2.5, -3.0),
        (0.49999999999999994, 0.0),
        (-0.0, -0.0),
        (4503599627370497.0, 4503599627370497.0),
    ],
}


def same(got, expected):
    return struct.pack("<d", got) == struct.pack("<d", expected) or (math.isnan(got) and math.isnan(expected))


@pytest.mark.parametrize("name", SPECIAL)
def test_zeros_infinities_and_what_is_no_number(find, name):
    function = find(name)
    for x, expected in [*SPECIAL[name], (NAN, NAN), (-NAN, NAN)]:
        assert same(function(x), float(expected)), (name, x, function(x))


def test_powers_of_special_numbers(find):
    two = (ctypes.c_double, ctypes.c_double)
    power = find("pow", two)
    standard = ctypes.CFUNCTYPE(ctypes.c_double, *two)(("pow", ctypes.CDLL("libm.so.6")))
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e300, 2.0**53 - 1, 2.0**53, 2.0**53 + 2, INF, 5e-324, NAN]
    numbers += [-each for each in numbers]
    for x in numbers:
        for y in numbers:
            expected = standard(x, y)
            rounded = expected == pytest.approx(power(x, y), rel=2**-52) and 0 < abs(expected) < INF
            assert rounded or same(power(x, y), expected), (x, y, power(x, y), expected)
    for x in range(2, 40):
        for y in range(1, 10):
            assert power(float(x), float(y)) == x**y, (x, y)


def test_angles_and_lengths_of_special_points(find):
    two = (ctypes.c_double, ctypes.c_double)
    angle, length = find("atan2", two), find("hypot", two)
    numbers = [0.0, 1.0, 5e-324, 1.7e308, 2.0**-600, INF, NAN]
    numbers += [-each for each in numbers]
    for x in numbers:
        for y in numbers:
            assert same(angle(y, x), math.atan2(y, x)), (y, x)
            assert same(length(x, y), math.hypot(x, y)), (x, y)
    assert length(3e300, 4e300) == 5e300 and length(3e-320, 4e-320) == math.hypot(3e-320, 4e-320)


def test_remainders_are_exact(find, draw):
    remainder = find("fmod", (ctypes.c_double, ctypes.c_double))
    of = Points(draw, 500)
    x = np.concatenate([of.any(), of.both(-20, 60), of.both(-1074, -1000), of.both(0, 1023)])
    y = np.concatenate([of.any()[: len(x) - 1500], of.both(-20, 20), of.both(-1074, -1010), of.both(-1074, 10)])
    for a, b in zip(x.tolist(), y.tolist(), strict=False):
        expected = math.copysign(float(abs(Fraction(a)) % abs(Fraction(b))), a)
        assert same(remainder(a, b), expected), (a, b)
    for a, b, expected in [(1.0, 0.0, NAN), (INF, 2.0, NAN), (5.0, INF, 5.0), (-4.0, 2.0, -0.0), (-0.0, 3.0, -0.0)]:
        assert same(remainder(a, b), expected), (a, b)
    assert math.isnan(remainder(NAN, 1.0)) and math.isnan(remainder(1.0, NAN))


def test_doubles_taken_apart_and_put_together(find, draw):
    numbers = [*Points(draw, 300).any().tolist(), 0.0, -0.0, 5e-324, -(2.0**-1022), 1.5, INF, -INF, NAN]
    parts = find("numba_frexp", (ctypes.c_double, ctypes.c_void_p))
    whole = find("modf", (ctypes.c_double, ctypes.c_void_p))
    make = find("numba_ldexp", (ctypes.c_double, ctypes.c_uint64))
    after = find("numba_nextafter", (ctypes.c_double, ctypes.c_double))
    sign = find("copysign", (ctypes.c_double, ctypes.c_double))
    exponent, rest = (ctypes.c_int32 * 2)(7, 7), ctypes.c_double()
    for x in numbers:
        fraction, power = math.frexp(x)
        assert same(parts(x, ctypes.addressof(exponent)), fraction)
        assert list(exponent) == [power if math.isfinite(x) else 0, 7]
        fraction, integer = math.modf(x)
        assert same(whole(x, ctypes.addressof(rest)), fraction) and same(rest.value, integer)
        for n in (0, 1, -1, 60, -60, 1100, -1100, 2100, -2150, 99999, -99999):
            with np.errstate(all="ignore"):
                expected = float(np.ldexp(x, n))
            assert same(make(x, 0xABCD << 32 | n & 0xFFFFFFFF), expected), (x, n)
        for y in (0.0, INF, -INF, x, NAN):
            assert same(after(x, y), math.nextafter(x, y)), (x, y)
        assert same(sign(3.0, x), math.copysign(3.0, x)) or math.isnan(x)


def test_sine_and_cosine_at_once(find):
    both = find("sincos", (ctypes.c_double, ctypes.c_void_p, ctypes.c_void_p), None)
    sine, cosine = ctypes.c_double(), ctypes.c_double()
    both(0.7, ctypes.addressof(sine), ctypes.addressof(cosine))
    assert (sine.value, cosine.value) == (find("sin")(0.7), find("cos")(0.7))


@pytest.mark.parametrize(
    ("base", "exponent"), [(1 + 2j, 2 - 1j), (-3j, 0.5 + 0j), (0j, 2 + 0j), (0j, 0j), (0j, 1j), (5 + 0j, -3 + 0j)]
)
def test_powers_of_complex_numbers(find, base, exponent):
    power = find("numba_cpow", (ctypes.c_void_p,) * 3, None)
    places = [(ctypes.c_double * 2)(each.real, each.imag) for each in (base, exponent, 7 + 7j)]
    power(*(ctypes.addressof(each) for each in places))
    if base == 0 and exponent.imag:
        assert all(math.isnan(each) for each in places[2])
    else:
        assert complex(*places[2]) == pytest.approx(base**exponent, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_needs_nothing_that_the_runtime_has_not_in_the_image(module):
    """LLVM may put a library's function where it recognises one, and it would be the very one that is written here."""
    wanted = {name for name, home in MATHEMATICS.items() if home == module}
    object_ = elf.parse(compiled(runtime_for.modules_for(wanted), kept=runtime_for.kept_for(wanted)), module)
    assert object_.undefined == set()
    assert object_.defined == wanted | {"memcpy", "memmove", "memset", "memcmp"}


def size_of(undefined):
    object_ = elf.parse(compiled(runtime_for.modules_for(undefined), kept=runtime_for.kept_for(undefined)), "runtime")
    return sum(each.size for each in object_.sections if each.flags & elf.ALLOC)


def test_an_image_has_of_the_runtime_what_its_program_needs():
    assert runtime_for.modules_for([]) == ("runtime.memory",)
    assert runtime_for.modules_for(["sin", "memcpy", "nobody"]) == ("runtime.mathtrig", "runtime.memory")
    least = size_of([])
    assert least < 1500
    assert size_of(["fmod"]) - least < 1000, "and not what else its module has"
    assert size_of(["exp"]) - least < 1500
    assert size_of(["sin", "cos"]) - least < 4000
    assert size_of(MATHEMATICS) - least < 40_000


def test_what_nobody_has_is_refused_by_name():
    runtime_for.check("/a/program.py", {"sin", "further"}, {"further"})
    with pytest.raises(InputError, match=r"^program.py: a unikernel has no numba_xxdot$"):
        runtime_for.check("/a/program.py", {"sin", "numba_xxdot"}, set())
    with pytest.raises(InputError, match="a unikernel has no sinf") as told:
        runtime_for.check("/a/program.py", {"sinf"}, set())
    assert "float32" in str(told.value.hint)


PROGRAM = """
import math
from swiftlet.unikernel import service, task
@task
def remainder(x: float, y: float) -> float:
    return x % y
@task
def quotient(x: float, y: float) -> float:
    return x // y
@task
def power(x: float, y: float) -> float:
    return x ** y
@task
def whole_power(x: float, y: int) -> float:
    return x ** y
@task
def root_of_sum(x: float, y: float) -> float:
    return math.hypot(math.sin(x), math.cos(x)) + math.log(math.exp(y)) + math.ldexp(x, 3) + math.gamma(5.0)
app = service(remainder, quotient, power, whole_power, root_of_sum)
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The program's tasks, linked with the runtime as an image is, and put where they are linked to be."""
    from swiftlet.unikernel import compile as compiler

    path = tmp_path_factory.mktemp("tasks") / "program.py"
    path.write_text(PROGRAM)
    made = elf.parse(compiler.compiled(str(path)).object, "tasks")
    runtime = compiled(runtime_for.modules_for(made.undefined), kept=runtime_for.kept_for(made.undefined))
    library = ctypes.CDLL(None)
    library.mmap.restype = ctypes.c_void_p
    fixed = 0x100000 | 0x20 | 0x02  # MAP_FIXED_NOREPLACE, MAP_ANONYMOUS, MAP_PRIVATE
    for base in range(0x40000000, 0x70000000, 1 << 24):  # below 2 GiB, where this process has nothing yet
        if library.mmap(ctypes.c_void_p(base), ctypes.c_size_t(1 << 20), 7, fixed, -1, ctypes.c_long(0)) == base:
            break
    image = link.linked([elf.parse(runtime, "runtime"), made], "task_0", base)
    for each in ELFFile(io.BytesIO(image.data)).iter_segments():
        if each["p_type"] == "PT_LOAD":
            ctypes.memmove(each["p_vaddr"], each.data(), each["p_filesz"])
    places = {each.name: each.address for each in image.symbols}

    def call(number, *arguments, form="<dd"):
        adapter = ctypes.CFUNCTYPE(ctypes.c_int32, *(ctypes.c_void_p,) * 2, *(ctypes.c_int64,) * 4)(
            places[f"task_{number}"]
        )
        asked = ctypes.create_string_buffer(struct.pack(form, *arguments), 16)
        answer, count, failed = ctypes.c_double(), ctypes.c_int64(), ctypes.c_void_p()
        where = ctypes.addressof(asked), 16, ctypes.addressof(answer), 8
        status = adapter(ctypes.addressof(count), ctypes.addressof(failed), *where)
        return answer.value if status == 0 and count.value == 8 else None

    yield call
    library.munmap(ctypes.c_void_p(base), ctypes.c_size_t(1 << 20))


def test_operators_of_tasks_are_pythons(tasks, draw):
    of = Points(draw, 200)
    x = np.concatenate([of.both(-10, 10), of.both(0, 300)]).tolist()
    y = np.concatenate([of.both(-10, 10), of.both(-200, 10)]).tolist()
    for a, b in [*zip(x, y, strict=True), (-7.0, 2.0), (7.0, -2.0), (-0.0, 3.0), (6.0, -3.0), (5.0, INF), (-5.0, INF)]:
        assert same(tasks(0, a, b), a % b), (a, b)
        assert tasks(1, a, b) == a // b, (a, b)
        if a > 0 and abs(b) < 3:
            assert tasks(2, a, b) == pytest.approx(a**b, rel=4e-16)
    assert tasks(0, 1.0, 0.0) is None, "an exception"
    assert [tasks(3, -1.5, n, form="<dq") for n in (0, 1, 2, 3, -2)] == [1.0, -1.5, 2.25, -3.375, 1 / 2.25]
    assert tasks(4, 0.3, 2.0) == pytest.approx(1 + 2 + 2.4 + 24, rel=1e-15)
