"""A program of tasks becomes a static program of Linux: the same tasks' object, linked with another service.

Needs no compiler, assembler, linker or C library of the host's, as `build`. The result runs on any Linux for x86-64,
on processors of the level that its tasks were compiled for.
"""

from __future__ import annotations

from swiftlet.unikernel import elf, link
from swiftlet.unikernel import level as levels
from swiftlet.unikernel.build import HERE, Built, Progress, check_host, whole, with_runtime

BASE = 0x400000
"""Where Linux's own linkers place a static program: far above what vm.mmap_min_addr forbids."""

ENTRY = "_start"

_SERVICE = ("linux.main",)


def build(path: str, progress: Progress = lambda text, done, total: None, level: str = levels.DEFAULT) -> Built:
    """Build a program's executable, as `build.build` an image. Raises InputError, KernelError, HostError."""
    check_host()
    levels.choose(level)
    progress("tasks", 0, 3)
    from swiftlet.unikernel import compile as tasks  # which sets what numba reads when it is imported
    from swiftlet.unikernel.metal.assemble import assembled, compiled

    program = tasks.compiled(path)
    progress("service", 1, 3)
    with open(f"{HERE}/linux/start.S") as file:
        start = assembled(file.read())
    objects = with_runtime(path, [elf.parse(start, "start"), elf.parse(compiled(_SERVICE), "service")], program)
    progress("link", 2, 3)
    return whole(objects, program.signatures, lambda each: link.linked(each, ENTRY, BASE, (elf.PLAIN_STACK,)))
