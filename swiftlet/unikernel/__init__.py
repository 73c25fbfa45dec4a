"""Layer 3: typed Python tasks -> object code -> an ELF image that boots by itself, or runs on Linux.

`task` and `service` are what a program imports; nothing heavy comes with them, so that the same file runs under plain
CPython. Everything else here is for building: `metal` the kernel's own dialect, `kernel` and `runtime` what is
written in it, `link` the linker.
"""

from __future__ import annotations

from swiftlet.unikernel.declare import Service, float64, int64, service, task

__all__ = ["Service", "float64", "int64", "service", "task"]
