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
