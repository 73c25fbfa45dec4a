"""LLVM's part: intermediate code, or assembly, to an ELF object. Nothing but llvmlite is needed."""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from swiftlet.model.error import KernelError
from swiftlet.unikernel.metal.emit import emitted
from swiftlet.unikernel.metal.program import Program

TRIPLE = "x86_64-unknown-linux-gnu"
BASELINE = "x86-64-v2"

INTEGERS_ONLY = "-mmx,-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,-x87,+soft-float"
"""Features of code that runs in interrupts, which save no vector registers."""


@cache
def target_machine(processor: str = BASELINE, features: str = "", level: int = 2) -> Any:
    """LLVM's code generator: static, below 2 GiB."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu=processor, features=features, opt=level, reloc="static", codemodel="small"
    )


def assembled(source: str) -> bytes:
    """The object of a text in assembly. Raises KernelError with LLVM's own words."""
    lines = (line.replace("\\", "\\5C").replace('"', "\\22") for line in source.splitlines())
    text = f'target triple = "{TRIPLE}"\n' + "\n".join(f'module asm "{line}"' for line in lines)
    try:
        return bytes(target_machine().emit_object(llvm.parse_assembly(text)))
    except RuntimeError as error:
        raise KernelError(f"the assembly is refused: {error}") from None


def optimised(code: str, machine: Any, level: int = 2) -> Any:
    """A module of LLVM's, from its text, after the usual passes. Raises KernelError."""
    try:
        module = llvm.parse_assembly(code)
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise KernelError(f"LLVM refuses the code: {error}") from None
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = level > 2
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compiled(
    names: Iterable[str], features: str = "", processor: str = BASELINE, kept: Set[str] | None = None
) -> bytes:
    """The object of modules of the dialect, named as `Program` has them. Raises KernelError.

    kept: what others need of what it exports, and all that is in it then; None: everything.
    """
    machine = target_machine(processor, features)
    return bytes(machine.emit_object(optimised(emitted(Program(names), kept), machine)))
