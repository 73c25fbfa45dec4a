"""The dialect: what is written in it does on this processor what Python says it does, and the rest is refused."""

from __future__ import annotations

import ctypes
import random

import llvmlite.binding as llvm
import pytest

from swiftlet.model.error import KernelError
from swiftlet.unikernel.metal import program, words
from swiftlet.unikernel.metal.assemble import optimised, target_machine
from swiftlet.unikernel.metal.emit import emitted

WORDS = sorted(name for name in vars(words) if not name.startswith("_"))
MASK = (1 << 64) - 1


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Compiles a text of the dialect for this process: its exported functions, by name."""
    engines = []

    def make(text, **others):
        monkeypatch.setattr(program, "_FOLDER", str(tmp_path))
        for name, body in {"sample": text, **others}.items():
            every = f"from swiftlet.unikernel.metal.words import {', '.join(WORDS)}\n"
            (tmp_path / f"{name}.py").write_text(every + body)
        machine = target_machine()
        module = optimised(emitted(program.Program(["sample", *others])), machine)
        engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
        engine.finalize_object()
        engines.append(engine)
        return engine.get_function_address

    yield make
    engines.clear()


def function(place, *arguments, result=ctypes.c_uint64):
    return ctypes.CFUNCTYPE(result, *(arguments or (ctypes.c_uint64,)))(place)


def test_integers_are_the_processors(compiled):
    find = compiled(
        "@export\ndef mixed(a: u64, b: u64) -> u64:\n"
        "    c = a * 3 + (b ^ 0xff) - (a >> 7) | b << 5\n"
        "    return c // (b % 97 + 1)\n"
    )
    call = function(find("mixed"), ctypes.c_uint64, ctypes.c_uint64)
    moments = random.Random(3)
    for _ in range(500):
        a, b = moments.getrandbits(64), moments.getrandbits(64)
        c = ((a * 3 + (b ^ 0xFF) - (a >> 7)) & MASK) | (b << 5 & MASK)
        assert call(a, b) == c // (b % 97 + 1)


def test_control_goes_where_it_says(compiled):
    find = compiled(
        "@export\ndef walk(n: u64) -> u64:\n"
        "    total = 0\n"
        "    for i in range(n):\n"
        "        if i % 3 == 0 or (i > 20 and not i & 1):\n"
        "            continue\n"
        "        if i == 41:\n"
        "            break\n"
        "        total += i if i < 30 else 2 * i\n"
        "    while total > 1000:\n"
        "        total -= 7\n"
        "    for j in range(10, 0, -3):\n"
        "        total += j\n"
        "    return total\n"
    )

    def expected(n):
        total = 0
        for i in range(n):
            if i % 3 == 0 or (i > 20 and not i & 1):
                continue
            if i == 41:
                break
            total += i if i < 30 else 2 * i
        while total > 1000:
            total -= 7
        for j in range(10, 0, -3):
            total += j
        return total

    call = function(find("walk"))
    assert [call(n) for n in range(100)] == [expected(n) for n in range(100)]


def test_of_an_expression_with_if_only_what_is_chosen_is_computed(compiled):
    find = compiled(
        "calls = array(u64, 2)\n"
        "def called(i: u64) -> u64:\n    calls[i] += 1\n    return calls[i]\n"
        "@export\ndef choose(n: u64) -> u64:\n    return called(0) if n > 9 else (called(1) if n > 4 else 77)\n"
        "@export\ndef count(i: u64) -> u64:\n    return calls[i]\n"
        "@export\ndef half(x: f64) -> f64:\n    return x / 2.0 if x > 0.0 else -1.0\n"
    )
    choose, count = function(find("choose")), function(find("count"))
    assert [choose(n) for n in (10, 11, 5, 1, 12)] == [1, 2, 1, 77, 3]
    assert [count(0), count(1)] == [3, 1]
    half = function(find("half"), ctypes.c_double, result=ctypes.c_double)
    assert [half(3.0), half(-3.0)] == [1.5, -1.0]


def test_signed_numbers_and_doubles(compiled):
    find = compiled(
        "@export\ndef halve(a: i64) -> i64:\n    return a >> 1 if a < 0 else -a\n"
        "@export\ndef curve(x: f64, n: i64) -> f64:\n"
        "    y = floor(x) * 0.5 + sqrt(x) / as_float(n)\n    return -y if n < 0 else y\n"
        "@export\ndef cut(x: f64) -> i64:\n    return as_int(x)\n"
    )
    halve = function(find("halve"), ctypes.c_int64, result=ctypes.c_int64)
    assert [halve(n) for n in (-7, -1, 0, 9)] == [-4, -1, 0, -9]
    curve = function(find("curve"), ctypes.c_double, ctypes.c_int64, result=ctypes.c_double)
    assert curve(6.25, -4) == -(3.0 + 2.5 / -4)
    assert function(find("cut"), ctypes.c_double, result=ctypes.c_int64)(-3.99) == -3


def test_a_function_returns_several_values(compiled):
    find = compiled(
        "def apart(x: f64, n: u64) -> tuple[f64, f64, i64]:\n"
        "    return floor(x), x - floor(x), signed(n) - 7\n"
        "def again(x: f64, n: u64) -> tuple[f64, f64, i64]:\n    return apart(x + 1, n)\n"
        "@export\ndef sum(x: f64, n: u64) -> f64:\n"
        "    whole, part, less = again(x, n)\n    return whole * 100 + part + as_float(less) * 1000\n"
    )
    assert function(find("sum"), ctypes.c_double, ctypes.c_uint64, result=ctypes.c_double)(3.25, 4) == 400.25 - 3000


def test_structures_lie_as_they_are_declared(compiled):
    find = compiled(
        "class Inner(Packed):\n    a: u8\n    b: u32\n    c = array(u16, 3)\n"
        "class Outer(Struct):\n    first: u8\n    inner = place(Inner)\n    last: i32\n"
        "@export\ndef size(which: u64) -> u64:\n    return size_of(Outer) if which else size_of(Inner)\n"
        "@export\ndef write(where: u64) -> i64:\n"
        "    outer = at(Outer, where)\n    outer.first = 0x1ff\n    outer.inner.b = 0x1_0000_0002\n"
        "    outer.inner.c[2] = 7\n    outer.last = -5\n    outer.inner.c[2] += 1\n    return outer.last\n"
    )
    size = function(find("size"))
    assert (size(0), size(1)) == (11, 16)
    buffer = (ctypes.c_uint8 * 16)()
    assert function(find("write"), ctypes.c_void_p, result=ctypes.c_int64)(ctypes.addressof(buffer)) == -5
    assert bytes(buffer) == bytes([0xFF, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 0]) + (-5).to_bytes(4, "little", signed=True)


def test_arrays_tables_and_what_is_one_instruction(compiled):
    find = compiled(
        "TWO = 2\ncounts = array(u64, 4)\nprimes = table(u32, 2, 3, 5, 7)\n"
        "@export\ndef take(n: u64) -> u64:\n    return atomic_add(counts, 1, n) * 1000 + counts[1]\n"
        "@export\ndef swap(n: u64) -> u64:\n    return 1 if atomic_swap(counts, 2, 0, n) else 0\n"
        "@export\ndef sum(n: u64) -> u64:\n    total = 0\n"
        "    for i in range(4):\n        total += primes[i]\n    return total * TWO\n"
        "@export\ndef other(n: u64) -> u64:\n    return swap16(n) << 32 | swap32(n) ^ leading_zeros(n)\n"
    )
    take = function(find("take"))
    assert [take(5), take(6)] == [5, 5011]
    assert [function(find("swap"))(1), function(find("swap"))(1)] == [1, 0]
    assert function(find("sum"))(0) == 34
    assert function(find("other"))(0x11223344) == 0x4433 << 32 | 0x44332211 ^ 35


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def f(a: u64) -> u64:\n    return [a]\n", "sample.py:3: the dialect has no List"),
        ("def f(a: u64) -> u64:\n    return b\n", "sample.py:3: nothing has the name b"),
        ("def f(a: u64) -> u64:\n    return g(a)\n", "sample.py:3: no function g"),
        ("def f(a: u64, b: i64) -> u64:\n    return a + b\n", "sample.py:3: i64 where u64 is meant"),
        ("def f(a: f64) -> u64:\n    return a\n", "sample.py:3: f64 where u64 is meant"),
        ("def f(a: int) -> u64:\n    return a\n", "sample.py:2: no kind: int"),
        ("def f(a: i64) -> i64:\n    return a // 2\n", "for numbers without a sign"),
        ("def f(a: u64) -> None:\n    try:\n        pass\n    finally:\n        pass\n", "has no Try"),
        ("class A:\n    x: u64\n", "A is none of Struct"),
        ("import os\n", "a module has imports, constants"),
        ("def f(a: u64) -> u64:\n    return a, a\n", "no results are meant, not 2"),
        ("def f(a: u64) -> u64:\n    b, c = a\n    return b\n", "no results, not 2"),
        ("class A(Struct):\n    x: u64\ndef f(a: A) -> u64:\n    return a.y\n", "a has no field y"),
    ],
)
def test_what_the_dialect_has_not_is_refused_with_its_line(compiled, text, complaint):
    with pytest.raises(KernelError) as told:
        compiled(text)
    assert complaint in str(told.value)


def test_fs_is_where_a_threads_own_begins(compiled):
    """The ABI's own use of it: the first quadword there is its address, which pthread_self(3) returns."""
    find = compiled("@export\ndef own() -> u64:\n    return fs(0)\n")
    mine = ctypes.CDLL(None).pthread_self
    mine.restype = ctypes.c_uint64
    assert ctypes.CFUNCTYPE(ctypes.c_uint64)(find("own"))() == mine()


def test_of_a_conditional_expression_one_side_is_evaluated(compiled):
    find = compiled("@export\ndef first(place: u64) -> u64:\n    return many(u8, place)[0] if place else 7\n")
    call = function(find("first"), ctypes.c_uint64)
    there = ctypes.create_string_buffer(b"\x05")
    assert (call(0), call(ctypes.addressof(there))) == (7, 5)


DECLARED = "@external\ndef twice(n: u64) -> u64:\n    raise NotImplementedError\n"
FOUR = DECLARED + "@export\ndef four(n: u64) -> u64:\n    return twice(twice(n))\n"


def test_what_one_module_declares_another_may_define(compiled):
    find = compiled(FOUR, other="@export\ndef twice(n: u64) -> u64:\n    return n + n\n")
    assert function(find("four"))(3) == 12


def test_what_is_defined_otherwise_than_declared_is_refused(compiled):
    with pytest.raises(KernelError, match="twice is defined elsewhere with other arguments"):
        compiled(FOUR, other="@export\ndef twice(n: u64, m: u64) -> u64:\n    return n + m\n")
