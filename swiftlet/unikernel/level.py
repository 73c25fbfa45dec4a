"""Levels of x86-64: which a program's tasks are compiled for, and what a processor needs then.

The levels are the psABI's (x86-64 psABI 1.0, table 3.1). Whoever runs the image looks first whether the processor has
all of it (`kernel.features`), by the table that is made here.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from swiftlet.model.error import InputError, KernelError

LEVELS = ("v2", "v3", "v4")
DEFAULT = "v2"

_EBX, _ECX = 1, 2
_BASIC, _FURTHER, _EXTENDED = 1, 7, 0x80000001
_AVX_STATE, _AVX512_STATE = 0x6, 0xE6
"""Bits of XCR0 (Intel SDM 1, 13.3): SSE and AVX; those of AVX-512 besides."""

_chosen: list[str] = []


class Feature(NamedTuple):
    """A feature as cpuid tells it. register: 1 for ebx, 2 for ecx. state: bits of XCR0 that it needs."""

    name: str
    level: int
    leaf: int
    register: int
    bit: int
    state: int = 0


FEATURES = (
    Feature("cx16", 2, _BASIC, _ECX, 13),
    Feature("lahf", 2, _EXTENDED, _ECX, 0),
    Feature("popcnt", 2, _BASIC, _ECX, 23),
    Feature("sse3", 2, _BASIC, _ECX, 0),
    Feature("ssse3", 2, _BASIC, _ECX, 9),
    Feature("sse4.1", 2, _BASIC, _ECX, 19),
    Feature("sse4.2", 2, _BASIC, _ECX, 20),
    Feature("avx", 3, _BASIC, _ECX, 28, _AVX_STATE),
    Feature("avx2", 3, _FURTHER, _EBX, 5, _AVX_STATE),
    Feature("bmi1", 3, _FURTHER, _EBX, 3),
    Feature("bmi2", 3, _FURTHER, _EBX, 8),
    Feature("f16c", 3, _BASIC, _ECX, 29, _AVX_STATE),
    Feature("fma", 3, _BASIC, _ECX, 12, _AVX_STATE),
    Feature("lzcnt", 3, _EXTENDED, _ECX, 5),
    Feature("movbe", 3, _BASIC, _ECX, 22),
    Feature("xsave", 3, _BASIC, _ECX, 26),
    Feature("avx512f", 4, _FURTHER, _EBX, 16, _AVX512_STATE),
    Feature("avx512bw", 4, _FURTHER, _EBX, 30, _AVX512_STATE),
    Feature("avx512cd", 4, _FURTHER, _EBX, 28, _AVX512_STATE),
    Feature("avx512dq", 4, _FURTHER, _EBX, 17, _AVX512_STATE),
    Feature("avx512vl", 4, _FURTHER, _EBX, 31, _AVX512_STATE),
)


def check(level: str) -> None:
    """Raise InputError unless there is such a level."""
    if level not in LEVELS:
        raise InputError(f"no level of x86-64: {level!r}", f"there are {', '.join(LEVELS)}; {DEFAULT} runs everywhere")


def choose(level: str) -> None:
    """Let Numba compile for this level, before it is imported. Raises InputError, KernelError for a second level."""
    check(level)
    if not _chosen:
        _chosen.append(level)
        os.environ["NUMBA_CPU_NAME"] = processor_of(level)  # else what is called uses this host's instructions
        os.environ["NUMBA_CPU_FEATURES"] = ""
    elif _chosen != [level]:
        raise KernelError(f"this process compiles for {processor_of(_chosen[0])} already", "build in a new one")


def chosen() -> str:
    """The level that this process compiles for; "" as long as none was chosen."""
    return _chosen[0] if _chosen else ""


def processor() -> str:
    """What LLVM calls the processor of the level that was chosen."""
    return processor_of(_chosen[0])


def processor_of(level: str) -> str:
    """What LLVM calls a processor of a level."""
    return f"x86-64-{level}"


def table(level: str) -> str:
    """In assembly: the level's number, and what it needs (`kernel.features.Feature`)."""
    number = int(level[1:])
    needed = [each for each in FEATURES if each.level <= number]
    lines = [".section .rodata", ".balign 8", ".globl cpu_level, cpu_features"]
    lines += [f"cpu_level: .quad {number}", f"cpu_features: .quad {len(needed)}"]
    for each in needed:
        lines += [
            f".quad {each.leaf}, {each.register}, {each.bit}, {each.state}, {each.level}",
            f'.ascii "{each.name}"',
            f".skip {16 - len(each.name)}",
        ]
    return "\n".join(lines) + "\n"
