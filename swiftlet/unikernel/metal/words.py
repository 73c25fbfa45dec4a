"""The words of the dialect, for readers and type checkers. None of them does anything under CPython.

Locals and arguments are 64 bits wide (`u64`, `i64`), doubles, truth values, or references to structures. The narrower
kinds say how fields and elements are stored: reading one widens it, writing cuts it off. A function may return a tuple
of them, which its caller takes apart at once: `high, low = split(x)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

u8: TypeAlias = int
u16: TypeAlias = int
u32: TypeAlias = int
u64: TypeAlias = int
i32: TypeAlias = int
i64: TypeAlias = int
f64: TypeAlias = float

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Struct:
    """A structure: its annotated fields, each aligned by its size."""


class Shared(Struct):
    """A structure that several processors use: a field is read with acquire and written with release order."""


class Device(Struct):
    """Registers of a device: each access happens, in order, exactly as written."""


class Packed(Struct):
    """A structure without padding: what hardware and packets have."""


class Array(Generic[T]):
    """Elements one behind the other. Of structures `a[i]` is a reference, of numbers a value."""

    def __getitem__(self, index: int) -> T:
        raise NotImplementedError

    def __setitem__(self, index: int, value: T) -> None:
        raise NotImplementedError


def array(kind: type[T], count: int) -> Array[T]:
    """A module's own array, zero at first."""
    return Array()


def table(kind: type[T], *values: T) -> Array[T]:
    """A module's own array that is never written to."""
    return Array()


def place(kind: type[T]) -> T:
    """A module's own structure, zero at first. (A page of it may be more than what a module says it needs.)"""
    raise NotImplementedError


def at(kind: type[T], address: int) -> T:
    """A reference to the structure at an address."""
    raise NotImplementedError


def many(kind: type[T], address: int) -> Array[T]:
    """The elements that begin at an address."""
    raise NotImplementedError


def address(thing: Any) -> u64:
    """Where an array, a structure or a function lies."""
    raise NotImplementedError


def size_of(kind: type[Any]) -> u64:
    """Bytes of a structure."""
    raise NotImplementedError


def text(words: str) -> u64:
    """Where a constant text lies, which ends with a zero."""
    raise NotImplementedError


def symbol(name: str) -> u64:
    """The address of something that the assembly or the linker defines."""
    raise NotImplementedError


def export(function: F) -> F:
    """Called by name from assembly or another object."""
    return function


def inline(function: F) -> F:
    """Always put in place of its calls."""
    return function


def bare(function: F) -> F:
    """Not to be recognised as a library's function, which it is itself."""
    return function


def external(function: F) -> F:
    """Defined elsewhere: in assembly, or in another object. Its body is `...`."""
    return function


def call(address: int, *arguments: int) -> u64:
    """Call the function at an address."""
    raise NotImplementedError


def atomic_add(array: Array[int], index: int, value: int) -> u64:
    """`lock xadd`: add to an element of 64 or 32 bits and return what it was."""
    raise NotImplementedError


def atomic_swap(array: Array[int], index: int, expected: int, value: int) -> bool:
    """`lock cmpxchg`: write `value` where `expected` is; whether it was."""
    raise NotImplementedError


def unsigned(value: Any) -> u64:
    """The same 64 bits."""
    raise NotImplementedError


def signed(value: Any) -> i64:
    """The same 64 bits."""
    raise NotImplementedError


def as_float(value: int) -> f64:
    """The number as a double, rounded to nearest."""
    raise NotImplementedError


def as_int(value: float) -> i64:
    """The double cut towards zero; without a meaning where it does not fit."""
    raise NotImplementedError


def bits(value: float) -> u64:
    """A double's own bits."""
    raise NotImplementedError


def from_bits(value: int) -> f64:
    """The double that has these bits."""
    raise NotImplementedError


def swap16(value: int) -> u64:
    """The two low bytes exchanged: network order."""
    raise NotImplementedError


def swap32(value: int) -> u64:
    """The four low bytes reversed: network order."""
    raise NotImplementedError


def leading_zeros(value: int) -> u64:
    """Zero bits above the highest that is set; 64 for zero."""
    raise NotImplementedError


def high_product(a: int, b: int) -> u64:
    """The upper 64 bits of the product of two."""
    raise NotImplementedError


def sqrt(value: float) -> f64:
    """`sqrtsd`."""
    raise NotImplementedError


def fabs(value: float) -> f64:
    """Without its sign."""
    raise NotImplementedError


def floor(value: float) -> f64:
    """`roundsd`, down."""
    raise NotImplementedError


def ceil(value: float) -> f64:
    """`roundsd`, up."""
    raise NotImplementedError


def trunc(value: float) -> f64:
    """`roundsd`, towards zero."""
    raise NotImplementedError


def nearest(value: float) -> f64:
    """`roundsd`, to the nearest, halves to the even one."""
    raise NotImplementedError


def in8(port: int) -> u64:
    """`in`."""
    raise NotImplementedError


def in32(port: int) -> u64:
    """`in`."""
    raise NotImplementedError


def out8(port: int, value: int) -> None:
    """`out`."""


def out16(port: int, value: int) -> None:
    """`out`."""


def out32(port: int, value: int) -> None:
    """`out`."""


def counter() -> u64:
    """`rdtsc`."""
    raise NotImplementedError


def read_msr(number: int) -> u64:
    """`rdmsr`."""
    raise NotImplementedError


def write_msr(number: int, value: int) -> None:
    """`wrmsr`."""


def cpuid(leaf: int, sub: int, register: int) -> u64:
    """`cpuid`; register: 0 eax, 1 ebx, 2 ecx, 3 edx."""
    raise NotImplementedError


def extended_state() -> u64:
    """`xgetbv` of XCR0."""
    raise NotImplementedError


def page_fault_address() -> u64:
    """CR2."""
    raise NotImplementedError


def load_page_tables(root: int) -> None:
    """CR3."""


def gs(offset: int) -> u64:
    """A quadword of this processor's own structure."""
    raise NotImplementedError


def fs(offset: int) -> u64:
    """A quadword of this thread's own structure."""
    raise NotImplementedError


def repeat_move(target: int, source: int, count: int) -> None:
    """`rep movsb`."""


def repeat_store(target: int, byte: int, count: int) -> None:
    """`rep stosb`."""


def barrier() -> None:
    """`mfence`."""


def pause() -> None:
    """`pause`."""


def mask_interrupts() -> None:
    """`cli`."""


def allow_interrupts() -> None:
    """`sti`."""


def wait_for_interrupt() -> None:
    """`sti; hlt`: nothing comes in between."""


def monitor(address: int) -> None:
    """`monitor`."""


def mwait() -> None:
    """`sti; mwait`."""


def stop() -> NoReturn:
    """`cli; hlt`, for ever."""
    raise NotImplementedError


def system_call(number: int, *arguments: int) -> i64:
    """`syscall`, of Linux."""
    raise NotImplementedError
