"""Makes LLVM's code of the dialect's functions: values are 64 bits, doubles or truth values.

Variables live in memory here; LLVM's own passes put them into registers.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, NamedTuple

from llvmlite import ir

from swiftlet.unikernel.metal.body import Body
from swiftlet.unikernel.metal.kind import Kind
from swiftlet.unikernel.metal.program import Function, Program, Variable


class Value(NamedTuple):
    """A value. number: of a literal, which has no code yet."""

    code: Any
    kind: Kind
    number: int | float = 0


def emitted(program: Program, kept: Set[str] | None = None) -> str:
    """The whole program, as LLVM reads it. kept: the only ones of its exported functions that others call."""
    made = ir.Module("metal")
    made.triple = "x86_64-unknown-linux-gnu"
    functions: dict[str, ir.Function] = {}
    for each in sorted(program.functions, key=lambda each: "external" in each.marks):
        kind = ir.FunctionType(each.result.in_register, [kind.in_register for _, kind in each.arguments])
        if each.symbol in functions:  # a module defines what another one only declares
            if functions[each.symbol].function_type != kind:
                raise each.module.fail(each.node, f"{each.symbol} is defined elsewhere with other arguments")
            continue
        functions[each.symbol] = _declared(made, each, kind)
        if kept is not None and "export" in each.marks and each.symbol not in kept:
            functions[each.symbol].linkage = "internal"
    for variable in program.variables:
        _place(made, variable)
    for each in program.functions:
        if "external" not in each.marks:
            Body(made, each, functions[each.symbol]).run()
    return with_attributes(str(made))


def with_attributes(code: str) -> str:
    """LLVM's text with what llvmlite has no words for: frames that a back-trace can follow, and no table for addresses
    of what other objects define, since all are linked into one image.

    Each page of a frame is touched in its turn, so that a large one does not reach over the page below a stack.
    """
    words = ' noredzone "frame-pointer"="all" "probe-stack"="inline-asm"'
    framed = code.replace(" noredzone", words)
    return framed.replace(" = external ", " = external dso_local ").replace("declare ", "declare dso_local ")


def _declared(made: ir.Module, function: Function, kind: ir.FunctionType) -> ir.Function:
    code = ir.Function(made, kind, function.symbol)
    for mark, attribute in (("inline", "alwaysinline"), ("bare", "noinline")):
        if mark in function.marks:
            code.attributes.add(attribute)
    if "external" not in function.marks:
        code.attributes.add("noredzone")
        code.attributes.add("optsize")
        code.attributes.add("nounwind")
        if "export" not in function.marks:
            code.linkage = "internal"
    return code


def _place(made: ir.Module, variable: Variable) -> None:
    if variable.values is None:
        kind: ir.Type = ir.ArrayType(ir.IntType(8), max(1, variable.kind.size))
        place = ir.GlobalVariable(made, kind, variable.symbol)
        place.initializer = ir.Constant(kind, None)
        place.align = max(16, variable.kind.alignment, 4096 if variable.kind.size >= 4096 else 0)
    else:
        element = variable.kind.element.stored
        kind = ir.ArrayType(element, variable.kind.length)
        place = ir.GlobalVariable(made, kind, variable.symbol)
        place.initializer = ir.Constant(kind, [ir.Constant(element, value) for value in variable.values])
        place.global_constant = True
        place.align = 16
    place.linkage = "internal"
