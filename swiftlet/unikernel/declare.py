"""What a program of tasks imports: `task` marks a function, `service` says which functions are served.

Nothing but the standard library comes with it, and under plain CPython the functions stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__swiftlet_task__"

_compile: Callable[[Callable[..., Any]], Any] | None = None
"""What a builder makes of every function that is marked; None under plain CPython."""


class ArrayKind:
    """An array's kind, for annotations: `float64[:]` has one dimension, `float64[:, :]` two."""

    def __init__(self, item: str, dimensions: int) -> None:
        self._key = (item, dimensions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayKind) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{self._key[0]}[{', '.join(':' * self._key[1])}]"

    def __call__(self) -> None:
        """Nothing: `typing` takes for an annotation only what can be called."""


class Item:
    """What an array is of."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def number(self) -> str:
        """One of them, as a program writes it."""
        return self._name.removesuffix("64")

    def __getitem__(self, place: Any) -> Any:
        dimensions = place if isinstance(place, tuple) else (place,)
        if any(each != slice(None) for each in dimensions) or not 1 <= len(dimensions) <= 2:
            raise TypeError(f"{self._name}[:] or {self._name}[:, :]")
        return ArrayKind(self._name, len(dimensions))


float64, int64 = Item("float64"), Item("int64")


_share: Callable[[str, tuple[int, ...]], Any] | None = None
"""What a builder makes of memory that tasks share; None under plain CPython."""


def shared(kind: ArrayKind, *shape: int) -> Any:
    """Memory that all tasks of a program share, zero at first: `counts = shared(int64[:], 1024)`, at the top level.

    Tasks run at the same time: what several may write goes by `atomic_add` and `atomic_swap`. Under plain CPython it is
    a numpy array. Raises TypeError for a shape of other dimensions.
    """
    item, dimensions = kind._key
    if len(shape) != dimensions or not all(isinstance(each, int) and each > 0 for each in shape):
        raise TypeError(f"{kind} has {dimensions} dimensions above zero, not {shape}")
    if _share is not None:
        return _share(item, shape)
    import numpy

    return numpy.zeros(shape, item)


def atomic_add(array: Any, index: int, value: int) -> int:
    """Add to an element of an `int64[:]` in one step that nobody else sees half of; returns what it was."""
    before = int(array[index])
    array[index] += value
    return before


def atomic_swap(array: Any, index: int, expected: int, value: int) -> bool:
    """Write `value` where `expected` is, in one step; whether it was there."""
    if array[index] != expected:
        return False
    array[index] = value
    return True


class Service:
    """The functions that a program serves, in the order in which it names them."""

    def __init__(self, functions: tuple[Callable[..., Any], ...]) -> None:
        self.functions = functions


def task(function: Function) -> Function:
    """Mark a function as one that is compiled: it may call others that are marked."""
    setattr(function, _MARK, True)
    return _compile(function) if _compile is not None else function


def service(*functions: Callable[..., Any]) -> Service:
    """A service of tasks. Raises TypeError for a function that is not marked."""
    for each in functions:
        if not getattr(getattr(each, "py_func", each), _MARK, False):
            raise TypeError(f"{getattr(each, '__name__', each)} is not marked with @task")
    return Service(functions)
