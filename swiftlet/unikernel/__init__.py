"""Layer 3: typed Python tasks -> object code -> an ELF image that boots by itself, or runs on Linux.

`task` and `service` are what a program imports; nothing heavy comes with them, so that the same file runs under plain
CPython. Everything else here is for building: `metal` the kernel's own dialect, `kernel` and `runtime` what is
written in it, `link` the linker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swiftlet.unikernel.declare import Service, atomic_add, atomic_swap, float64, int64, service, shared, task

if TYPE_CHECKING:
    from swiftlet.unikernel.executor import Executor

__all__ = [
    "Executor",
    "Service",
    "atomic_add",
    "atomic_swap",
    "float64",
    "int64",
    "service",
    "shared",
    "task",
]


def __getattr__(name: str) -> Any:
    """The executor comes when it is asked for: a program of tasks alone needs no sockets and threads."""
    if name == "Executor":
        from swiftlet.unikernel.executor import Executor

        return Executor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
