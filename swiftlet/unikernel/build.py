"""A program of tasks becomes an image that boots: compiled, linked with the kernel, and described.

Needs no compiler, assembler or linker of the host's: numba and llvmlite are all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from swiftlet.model.error import HostError
from swiftlet.unikernel import elf, link, runtime_for
from swiftlet.unikernel import level as levels
from swiftlet.unikernel.signature import Signature, described

if TYPE_CHECKING:
    from swiftlet.unikernel.compile import Compiled

HERE = os.path.dirname(os.path.abspath(__file__))
ENTRY = "pvh_entry"

REQUIRED = ("numba", "llvmlite")
_INSTALL = "in a checkout ./dev unikernel, else pip install 'swiftlet[unikernel]'"
_KERNEL = ("kernel.main",)

Progress = Callable[[str, int, int], None]


class Built(NamedTuple):
    """An image and what is in it. functions: their names by address, for profiles and messages."""

    image: bytes
    signatures: tuple[Signature, ...]
    functions: tuple[elf.Named, ...]


def check_host() -> None:
    """Raise HostError unless what builds is installed."""
    for name in REQUIRED:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise HostError(f"no {name} here to build unikernels with", _INSTALL) from None


def build(path: str, progress: Progress = lambda text, done, total: None, level: str = levels.DEFAULT) -> Built:
    """Build a program's image, its tasks for a level of x86-64: the same whenever this process builds one.

    Raises InputError (file, line, reason), KernelError, HostError.
    """
    check_host()
    levels.choose(level)
    progress("tasks", 0, 3)
    from swiftlet.unikernel import compile as tasks  # which sets what numba reads when it is imported
    from swiftlet.unikernel.metal.assemble import INTEGERS_ONLY, assembled, compiled

    program = tasks.compiled(path)
    progress("kernel", 1, 3)
    with open(f"{HERE}/kernel/boot.S") as file:
        boot = assembled(file.read())
    own = [elf.parse(boot, "boot"), elf.parse(compiled(_KERNEL, INTEGERS_ONLY), "kernel")]
    objects = with_runtime(path, own, program)
    progress("link", 2, 3)
    return whole(objects, program.signatures, lambda objects: link.linked(objects, ENTRY))


def with_runtime(path: str, own: Sequence[elf.Object], program: Compiled) -> list[elf.Object]:
    """What starts tasks, the tasks, the memory that they share, and of the runtime what all of them need.

    Raises InputError for a task that needs what there is not.
    """
    from swiftlet.unikernel.metal.assemble import assembled, compiled

    tasks = elf.parse(program.object, "tasks")
    memory = elf.parse(assembled(shared(program.shared)), "shared")
    runtime_for.check(path, tasks.undefined, set().union(memory.defined, *(each.defined for each in own)))
    needed = tasks.undefined.union(*(each.undefined for each in own))
    runtime = compiled(runtime_for.modules_for(needed), kept=runtime_for.kept_for(needed))
    features = elf.parse(assembled(levels.table(levels.chosen())), "level")
    return [*own, elf.parse(runtime, "runtime"), tasks, memory, features]


def whole(
    objects: Sequence[elf.Object],
    signatures: tuple[Signature, ...],
    linked: Callable[[Sequence[elf.Object]], link.Image],
) -> Built:
    """Objects and the tables of what is in them, linked. Raises KernelError."""
    from swiftlet.unikernel.metal.assemble import assembled

    def described_by(functions: Sequence[elf.Named]) -> link.Image:
        return linked([*objects, elf.parse(assembled(tables(signatures, functions)), "tables")])

    # Code comes first, so the functions lie where they lie, whatever is told of them behind it.
    image = described_by(described_by(()).symbols)
    return Built(image.data, signatures, image.symbols)


def shared(memory: Sequence[tuple[str, int]]) -> str:
    """In assembly: the memory that tasks share, by symbol and bytes."""
    lines = [".section .bss", ".balign 64"]
    for symbol, size in memory:
        lines += [f".globl {symbol}", f"{symbol}: .skip {size}", ".balign 64"]
    return "\n".join(lines) + "\n"


def tables(signatures: Sequence[Signature], functions: Sequence[elf.Named]) -> str:
    """In assembly: the tasks (`service.Task`), their description, and the functions' names (`panic.Directory`)."""
    description = json.dumps(described(signatures), separators=(",", ":"))
    tasks = [
        f".quad task_{number}, {each.room}, {int(each.result == 'i')}, 0" for number, each in enumerate(signatures)
    ]
    places = [f".long {each.address}, name_{number} - function_directory" for number, each in enumerate(functions)]
    names = [f"name_{number}: .asciz {_quoted(each.name)}" for number, each in enumerate(functions)]
    lines = [
        ".section .rodata",
        ".balign 8",
        ".globl task_table, service_description, service_length, function_directory",
        f"task_table: .quad {len(signatures)}",
        *tasks,
        f"service_length: .quad {len(description)}",
        f"service_description: .ascii {_quoted(description)}",
        ".balign 8",
        f"function_directory: .long {len(functions)}, 0",
        *places,
        *names,
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)
