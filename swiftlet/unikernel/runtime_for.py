"""Which of the runtime's modules a program needs, by what its object leaves undefined. An image has nothing else.

What the runtime can supply is what its modules export; they are read, not imported.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Set
from functools import cache
from types import MappingProxyType

from swiftlet.model.error import InputError

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime")

ALWAYS = "runtime.memory"
"""What LLVM's code calls of itself: in every image, whole."""


@cache
def supplied() -> Mapping[str, str]:
    """Every symbol that the runtime can supply, and the module that has it, as `metal.program.Program` names it."""
    found: dict[str, str] = {}
    for file in sorted(os.listdir(_FOLDER)):
        if file.endswith(".py"):
            with open(os.path.join(_FOLDER, file), encoding="utf-8") as text:
                tree = ast.parse(text.read(), file)
            found |= {name: f"runtime.{file.removesuffix('.py')}" for name in _exports(tree)}
    return MappingProxyType(found)


def _exports(tree: ast.Module) -> list[str]:
    return [
        each.name
        for each in tree.body
        if isinstance(each, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "export" for mark in each.decorator_list)
    ]


def modules_for(undefined: Iterable[str]) -> tuple[str, ...]:
    """The modules that supply these symbols, as far as the runtime has them, and what is always there."""
    known = supplied()
    return tuple(sorted({known[name] for name in undefined if name in known} | {ALWAYS}))


def kept_for(undefined: Iterable[str]) -> frozenset[str]:
    """The symbols that the runtime's object defines for others; LLVM drops what only the rest would need."""
    return frozenset(undefined) | {name for name, module in supplied().items() if module == ALWAYS}


def check(path: str, undefined: Iterable[str], elsewhere: Set[str]) -> None:
    """Raise InputError if a program needs what neither the runtime supplies nor `elsewhere` has."""
    missing = sorted(set(undefined) - set(supplied()) - elsewhere)
    if missing:
        raise InputError(f"{os.path.basename(path)}: a unikernel has no {', '.join(missing)}", _hint(missing[0]))


def _hint(name: str) -> str:
    if name.endswith("f") and name[:-1] in supplied():
        return f"{name} is {name[:-1]} of numpy's float32: use float, or arrays of float64"
    return "docs/unikernels.md has what a task can call"
