"""Signatures and values: what is written is what is read, and what does not fit is refused with its name."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from swiftlet.model.error import InputError
from swiftlet.unikernel.executor import declared
from swiftlet.unikernel.signature import Signature, described, elements_of, from_description, name_of, size_of
from swiftlet.unikernel.value import packed, parsed, unpacked

INT = some.integers(-(1 << 63), (1 << 63) - 1)
FLOAT = some.floats(allow_nan=False)
SIMPLE = {
    "i": INT,
    "f": FLOAT,
    "b": some.booleans(),
    "s": some.binary(max_size=40),
    "I1": some.lists(INT, max_size=9),
    "F1": some.lists(FLOAT, max_size=9),
    "I2": some.integers(1, 4).flatmap(
        lambda n: some.lists(some.lists(INT, min_size=n, max_size=n), min_size=1, max_size=4)
    ),
}


@some.composite
def typed(draw, depth=2):
    code = draw(some.sampled_from([*SIMPLE, "("] if depth else list(SIMPLE)))
    if code != "(":
        return code, draw(SIMPLE[code])
    inside = [draw(typed(depth - 1)) for _ in range(draw(some.integers(1, 3)))]
    return f"({''.join(each for each, _ in inside)})", tuple(value for _, value in inside)


def plain(value):
    """Lists where arrays came as numpy's, which they do once somebody has imported it."""
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    return value.tolist() if hasattr(value, "tolist") else value


@settings(max_examples=300, deadline=None)
@given(typed())
def test_what_is_packed_is_unpacked(pair):
    code, value = pair
    data = packed(Signature("f", (("a", code),), "i"), [value])
    assert len(data) % 8 == 0 and plain(unpacked(code, data)) == value
    if size_of(code):
        assert len(data) == size_of(code)


@settings(max_examples=300, deadline=None)
@given(typed(), some.binary(max_size=64), some.integers(0, 64))
def test_a_result_of_another_length_is_refused(pair, noise, cut):
    code, value = pair
    data = packed(Signature("f", (("a", code),), "i"), [value])
    for wrong in (data[:cut] if cut < len(data) else data + b"x", data + b"12345678"):
        with pytest.raises(InputError):
            unpacked(code, wrong)
    try:
        unpacked(code, noise)
    except InputError:
        pass


def test_codes_say_what_a_program_says():
    assert elements_of("(i(fF2)sI1)") == ["i", "(fF2)", "s", "I1"]
    assert name_of("(i(fF2)sI1)") == "tuple[int, tuple[float, float64[:, :]], bytes, int64[:]]"
    assert (size_of("(i(fb))"), size_of("(is)"), size_of("F1")) == (24, 0, 0)
    signature = Signature("f", (("a", "i"), ("b", "(ff)")), "F1", 7)
    assert str(signature) == "f(a: int, b: tuple[float, float]) -> float64[:]"
    assert from_description(described([signature])) == (signature,)


@pytest.mark.parametrize(
    ("code", "value", "complaint"),
    [
        ("i", 1 << 63, "a: 9223372036854775808 does not fit 64 bits"),
        ("i", 1.5, "a: 1.5 is no int"),
        ("f", "x", "a: x is no float"),
        ("s", "text", "a: text is no bytes"),
        ("s", 5, "a: 5 is no bytes"),
        ("(ii)", (1,), "tuple[int, int] has 2 elements, not 1"),
        ("(ii)", 7, "a: 7 is no tuple[int, int]"),
        ("F2", [[1.0], [1.0, 2.0]], "is no float64[:, :]"),
        ("I1", [1.5], "is no int64[:]"),
        ("I1", 3, "a: 3 is no int64[:]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(code, value, complaint):
    with pytest.raises(InputError) as told:
        packed(Signature("f", (("a", code),), "i"), [value])
    assert complaint in str(told.value)


def test_words_of_a_command_line_are_values():
    signature = Signature("f", tuple(zip("abcdef", ["i", "f", "b", "s", "F2", "(is)"], strict=True)), "i")
    words = ["0x10", "2.5", "true", "héllo", "[[1, 2], [3, 4]]", '[7, "x"]']
    assert parsed(signature, words) == [16, 2.5, True, "héllo".encode(), [[1, 2], [3, 4]], (7, b"x")]
    for place, wrong in enumerate(["x", "y", "maybe", None, "[1", "[1]"]):
        if wrong is not None:
            with pytest.raises(InputError, match=f"^{'abcdef'[place]}: "):
                parsed(signature, [*words[:place], wrong, *words[place + 1 :]])
    with pytest.raises(InputError, match="takes 6 arguments, not 1"):
        parsed(signature, ["1"])


def test_arrays_of_numpy_are_sent_as_they_lie():
    import numpy as np

    signature = Signature("f", (("a", "F2"),), "i")
    values = np.arange(6.0).reshape(2, 3)
    expected = struct.pack("<2q6d", 2, 3, *range(6))
    assert packed(signature, [values]) == packed(signature, [values.tolist()]) == expected
    assert packed(signature, [np.asfortranarray(values)]) == expected
    again = unpacked("F2", expected)
    assert isinstance(again, np.ndarray) and (again == values).all()


@pytest.mark.parametrize("shape", [(1 << 40, 0), (0, 1 << 40)])
def test_a_result_of_countless_empty_rows_is_refused(shape):
    with pytest.raises(InputError):
        unpacked("I2", struct.pack("<2q", *shape))
    assert len(unpacked("I2", struct.pack("<2q", 3, 0))) == 3


class Inner(NamedTuple):
    low: int
    high: float


class Outer(NamedTuple):
    inner: Inner
    pair: tuple[int, Inner]


def test_a_pools_results_are_the_named_tuples_that_their_task_declares():
    made = declared(Outer, ((1, 2.0), (3, (4, 5.0))))
    assert made == Outer(Inner(1, 2.0), (3, Inner(4, 5.0))) and made.pair[1].high == 5.0
    assert isinstance(declared(tuple[int, Inner], (1, (2, 3.0)))[1], Inner)
    assert declared(None, (1, 2)) == (1, 2) and declared(int, 5) == 5 and declared(tuple[int], (1, 2)) == (1, 2)
