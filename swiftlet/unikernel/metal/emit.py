"""Makes LLVM's code of the dialect's functions: values are 64 bits, doubles or truth values.

Variables live in memory here; LLVM's own passes put them into registers.
"""

from __future__ import annotations

import ast
from collections.abc import Set
from typing import Any, NamedTuple

from llvmlite import ir

from swiftlet.unikernel.metal import intrinsic
from swiftlet.unikernel.metal.kind import BIT, BOOL, DOUBLE, F64, I64, LITERAL, NOTHING, U64, WORD, Kind, widened
from swiftlet.unikernel.metal.program import Constant, Function, Module, Program, Variable, Word


class Value(NamedTuple):
    """A value. number: of a literal, which has no code yet."""

    code: Any
    kind: Kind
    number: int | float = 0


_ARITHMETIC = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "shl",
}
_FLOATS = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


def emitted(program: Program, kept: Set[str] | None = None) -> str:
    """The whole program, as LLVM reads it. kept: the only ones of its exported functions that others call."""
    made = ir.Module("metal")
    made.triple = "x86_64-unknown-linux-gnu"
    functions = {}
    for each in program.functions:
        kinds = [kind.in_register for _, kind in each.arguments]
        functions[each.symbol] = _declared(made, each, kinds)
        if kept is not None and "export" in each.marks and each.symbol not in kept:
            functions[each.symbol].linkage = "internal"
    for variable in program.variables:
        _place(made, variable)
    for each in program.functions:
        if "external" not in each.marks:
            _Emitter(made, each, functions[each.symbol]).run()
    return with_attributes(str(made))


def with_attributes(code: str) -> str:
    """LLVM's text with what llvmlite has no words for: frames that a back-trace can follow, and no table for addresses
    of what other objects define, since all are linked into one image.
    """
    framed = code.replace(" noredzone", ' noredzone "frame-pointer"="all"')
    return framed.replace(" = external ", " = external dso_local ").replace("declare ", "declare dso_local ")


def _declared(made: ir.Module, function: Function, kinds: list[ir.Type]) -> ir.Function:
    code = ir.Function(made, ir.FunctionType(function.result.in_register, kinds), function.symbol)
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


class _Emitter:
    """One function's code."""

    def __init__(self, made: ir.Module, function: Function, code: ir.Function) -> None:
        self.made = made
        self.function = function
        self.module: Module = function.module
        self.entry = code.append_basic_block("entry")
        self.build = ir.IRBuilder(code.append_basic_block("body"))
        self.code = code
        self.variables: dict[str, tuple[Any, Kind]] = {}
        self.loops: list[tuple[Any, Any]] = []

    def run(self) -> None:
        for (name, kind), argument in zip(self.function.arguments, self.code.args, strict=True):
            self.build.store(argument, self.variable(name, widened(kind)))
        self.block(self.function.node.body)
        if not self.build.block.is_terminated:
            if self.function.result is NOTHING:
                self.build.ret_void()
            elif self.function.node.returns is not None:
                self.build.unreachable()
        ir.IRBuilder(self.entry).branch(self.code.blocks[1])

    def fail(self, node: ast.AST, message: str) -> Exception:
        return self.module.fail(node, message)

    def variable(self, name: str, kind: Kind) -> Any:
        if name not in self.variables:
            place = ir.IRBuilder(self.entry).alloca(kind.in_register, name=name)
            self.variables[name] = (place, kind)
        return self.variables[name][0]

    # Statements

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            if self.build.block.is_terminated:
                return
            method = getattr(self, f"do_{type(node).__name__}", None)
            if method is None:
                raise self.fail(node, f"the dialect has no {type(node).__name__}")
            method(node)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_Expr(self, node: ast.Expr) -> None:
        if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
            self.value(node.value)

    def do_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self.build.ret_void()
        elif isinstance(node.value, ast.Tuple):
            self.build.ret(self.joined(node.value))
        else:
            self.build.ret(self.fitted(node, self.value(node.value), widened(self.function.result)))

    def joined(self, node: ast.Tuple) -> Any:
        """Several results as one."""
        result = self.function.result
        if len(node.elts) != len(result.parts):
            raise self.fail(node, f"{len(result.parts) or 'no'} results are meant, not {len(node.elts)}")
        code = ir.Constant(result.in_register, ir.Undefined)
        for place, (each, kind) in enumerate(zip(node.elts, result.parts, strict=True)):
            code = self.build.insert_value(code, self.fitted(each, self.value(each), kind), place)
        return code

    def do_Break(self, node: ast.Break) -> None:
        self.build.branch(self.loops[-1][1])

    def do_Continue(self, node: ast.Continue) -> None:
        self.build.branch(self.loops[-1][0])

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        assert isinstance(node.target, ast.Name) and node.value is not None
        kind = widened(self.module.kind_of(node.annotation))
        value = self.fitted(node, self.value(node.value), kind)
        self.build.store(value, self.variable(node.target.id, kind))

    def do_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                values = [self.plain(self.value(each)) for each in node.value.elts]
                for each, value in zip(target.elts, values, strict=True):
                    self.assign(each, value)
            elif isinstance(target, ast.Tuple):
                self.parted(target, self.value(node.value))
            else:
                self.assign(target, self.value(node.value))

    def parted(self, target: ast.Tuple, value: Value) -> None:
        """Assign what a function returns several of."""
        if len(value.kind.parts) != len(target.elts):
            raise self.fail(target, f"{len(value.kind.parts) or 'no'} results, not {len(target.elts)}")
        for place, (each, kind) in enumerate(zip(target.elts, value.kind.parts, strict=True)):
            self.assign(each, Value(self.build.extract_value(value.code, place), kind))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        combined = ast.copy_location(ast.BinOp(_loaded(node.target), node.op, node.value), node)
        self.assign(node.target, self.value(combined))

    def assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            known = self.variables.get(target.id)
            kind = known[1] if known else self.plain(value).kind
            self.build.store(self.fitted(target, value, kind), self.variable(target.id, kind))
        elif isinstance(target, ast.Subscript | ast.Attribute):
            place, kind, base = self.location(target)
            if kind.struct is not None or kind.element is not None:
                raise self.fail(target, "a structure or an array is not assigned to")
            self.store(place, kind, base, self.fitted(target, value, widened(kind)))
        else:
            raise self.fail(target, "nothing to assign to")

    def do_If(self, node: ast.If) -> None:
        constant = self.module.constant(node.test)
        if constant is not None:
            self.block(node.body if constant else node.orelse)
            return
        yes, no, after = (self.code.append_basic_block(name) for name in ("yes", "no", "after"))
        self.build.cbranch(self.truth(node.test), yes, no)
        for start, body in ((yes, node.body), (no, node.orelse)):
            self.build.position_at_end(start)
            self.block(body)
            if not self.build.block.is_terminated:
                self.build.branch(after)
        self.build.position_at_end(after)

    def do_While(self, node: ast.While) -> None:
        test, body, after = (self.code.append_basic_block(name) for name in ("test", "body", "after"))
        self.build.branch(test)
        self.build.position_at_end(test)
        self.build.cbranch(self.truth(node.test), body, after)
        self.loops.append((test, after))
        self.build.position_at_end(body)
        self.block(node.body)
        if not self.build.block.is_terminated:
            self.build.branch(test)
        self.loops.pop()
        self.build.position_at_end(after)

    def do_For(self, node: ast.For) -> None:
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            raise self.fail(node, "for goes over a range")
        assert isinstance(node.target, ast.Name)
        bounds = [self.value(each) for each in call.args]
        kind = next((each.kind for each in bounds if each.kind is not LITERAL), U64)
        start = bounds[0] if len(bounds) > 1 else Value(None, LITERAL, 0)
        step = int(bounds[2].number) if len(bounds) > 2 else 1
        end = self.fitted(node, bounds[1] if len(bounds) > 1 else bounds[0], kind)
        place = self.variable(node.target.id, kind)
        hidden = ir.IRBuilder(self.entry).alloca(kind.in_register)
        self.build.store(self.fitted(node, start, kind), hidden)
        test, body, next_, after = (self.code.append_basic_block(name) for name in ("test", "body", "next", "after"))
        self.build.branch(test)
        self.build.position_at_end(test)
        now = self.build.load(hidden)
        compare = self.build.icmp_signed if kind.signed or step < 0 else self.build.icmp_unsigned
        self.build.cbranch(compare("<" if step > 0 else ">", now, end), body, after)
        self.build.position_at_end(body)
        self.build.store(now, place)
        self.loops.append((next_, after))
        self.block(node.body)
        self.loops.pop()
        if not self.build.block.is_terminated:
            self.build.branch(next_)
        self.build.position_at_end(next_)
        self.build.store(self.build.add(self.build.load(hidden), ir.Constant(WORD, step)), hidden)
        self.build.branch(test)
        self.build.position_at_end(after)

    # Expressions

    def value(self, node: ast.expr) -> Value:
        """An expression's value."""
        constant = self.module.constant(node)
        if constant is not None and not isinstance(constant, bool):
            return Value(None, LITERAL, constant)
        method = getattr(self, f"of_{type(node).__name__}", None)
        if method is None:
            raise self.fail(node, f"the dialect has no {type(node).__name__}")
        return method(node)  # type: ignore[no-any-return]

    def word(self, node: ast.expr) -> Any:
        """An expression's value as 64 bits of either sign."""
        value = self.plain(self.value(node))
        if value.kind in (F64, BOOL, NOTHING):
            raise self.fail(node, f"{value.kind.name} where an integer is meant")
        return value.code

    def plain(self, value: Value) -> Value:
        """A literal as what it is by itself."""
        if value.kind is not LITERAL:
            return value
        if isinstance(value.number, float):
            return Value(ir.Constant(DOUBLE, value.number), F64)
        return Value(ir.Constant(WORD, value.number), I64 if value.number < 0 else U64)

    def fitted(self, node: ast.AST, value: Value, kind: Kind) -> Any:
        """A value's code, where another kind is expected of it."""
        if value.kind is LITERAL:
            if kind == F64:
                return ir.Constant(DOUBLE, float(value.number))
            if isinstance(value.number, float) or kind.in_register is not WORD:
                raise self.fail(node, f"{value.number} where {kind.name} is meant")
            return ir.Constant(WORD, value.number)
        same = value.kind == kind or (value.kind.struct, kind.struct) == (kind.struct, value.kind.struct) is None
        if not same and not self.alike(value.kind, kind):
            raise self.fail(node, f"{value.kind.name} where {kind.name} is meant")
        return value.code

    def alike(self, one: Kind, other: Kind) -> bool:
        """Whether a value is of the same kind in a register: arrays need not say how long they are."""
        if one.element is not None and other.element is not None:
            return bool(one.element == other.element)
        return widened(one) == widened(other)

    def truth(self, node: ast.expr) -> Any:
        """An expression as a condition."""
        value = self.plain(self.value(node))
        if value.kind is BOOL or value.kind == BOOL:
            return value.code
        if value.kind == F64:
            return self.build.fcmp_unordered("!=", value.code, ir.Constant(DOUBLE, 0.0))
        return self.build.icmp_unsigned("!=", value.code, ir.Constant(WORD, 0))

    def of_Constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, bool):
            return Value(ir.Constant(BIT, node.value), BOOL)
        raise self.fail(node, f"no value: {node.value!r}")

    def of_Name(self, node: ast.Name) -> Value:
        if node.id in self.variables:
            place, kind = self.variables[node.id]
            return Value(self.build.load(place), kind)
        return self.named(node, self.module.names.get(node.id))

    def named(self, node: ast.expr, found: object) -> Value:
        """What a module's name stands for."""
        if isinstance(found, Constant):
            return Value(None, LITERAL, found.value)
        if isinstance(found, Variable):
            return Value(self.build.ptrtoint(self.made.get_global(found.symbol), WORD), found.kind)
        raise self.fail(node, f"nothing has the name {ast.unparse(node)}")

    def of_Attribute(self, node: ast.Attribute) -> Value:
        if isinstance(node.value, ast.Name) and node.value.id not in self.variables:
            other = self.module.names.get(node.value.id)
            if isinstance(other, Module):
                return self.named(node, other.names.get(node.attr))
        return self.read(node)

    def of_Subscript(self, node: ast.Subscript) -> Value:
        return self.read(node)

    def read(self, node: ast.Attribute | ast.Subscript) -> Value:
        """A field or an element; of a structure or an array inside, a reference to it."""
        place, kind, base = self.location(node)
        if kind.struct is not None or kind.element is not None:
            return Value(place, kind)
        return Value(self.load(place, kind, base), widened(kind))

    def location(self, node: ast.Attribute | ast.Subscript) -> tuple[Any, Kind, str]:
        """Where a field or an element lies, its kind, and in what kind of structure."""
        inside = self.value(node.value)
        if isinstance(node, ast.Attribute):
            struct = inside.kind.struct
            if struct is None or node.attr not in struct.fields:
                raise self.fail(node, f"{ast.unparse(node.value)} has no field {node.attr}")
            field = struct.fields[node.attr]
            return self.build.add(inside.code, ir.Constant(WORD, field.offset)), field.kind, struct.base
        if inside.kind.element is None:
            raise self.fail(node, f"{ast.unparse(node.value)} is no array")
        element: Kind = inside.kind.element
        distance = self.build.mul(self.word(node.slice), ir.Constant(WORD, element.size))
        return self.build.add(inside.code, distance), element, "Struct"

    def load(self, place: Any, kind: Kind, base: str) -> Any:
        """Read what is stored, as a register has it."""
        if base == "Device":
            loaded = intrinsic.device_read(self.build, place, kind.bits)
        else:
            pointer = self.build.inttoptr(place, kind.stored.as_pointer())
            if base == "Shared":
                loaded = self.build.load_atomic(pointer, "acquire", kind.size)
            else:
                loaded = self.build.load(pointer, align=1 if base == "Packed" else kind.size)
        if kind == F64 or kind.size == 8:
            return loaded
        if kind == BOOL:
            return self.build.trunc(loaded, BIT)
        return self.build.sext(loaded, WORD) if kind.signed else self.build.zext(loaded, WORD)

    def store(self, place: Any, kind: Kind, base: str, code: Any) -> None:
        """Write a register's value to where it is stored."""
        if kind == BOOL:
            code = self.build.zext(code, ir.IntType(8))
        elif kind != F64 and kind.size < 8:
            code = self.build.trunc(code, kind.stored)
        if base == "Device":
            intrinsic.device_write(self.build, place, code)
            return
        pointer = self.build.inttoptr(place, kind.stored.as_pointer())
        if base == "Shared":
            self.build.store_atomic(code, pointer, "release", kind.size)
        else:
            self.build.store(code, pointer, align=1 if base == "Packed" else kind.size)

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Value(self.build.not_(self.truth(node.operand)), BOOL)
        value = self.plain(self.value(node.operand))
        if isinstance(node.op, ast.USub):
            code = self.build.fneg(value.code) if value.kind == F64 else self.build.neg(value.code)
            return Value(code, value.kind)
        if isinstance(node.op, ast.Invert):
            return Value(self.build.not_(value.code), value.kind)
        raise self.fail(node, "no such operator")

    def of_BinOp(self, node: ast.BinOp) -> Value:
        left, right, kind = self.pair(node, self.value(node.left), self.value(node.right))
        operator = type(node.op)
        if kind == F64:
            if operator not in _FLOATS:
                raise self.fail(node, "doubles have + - * /")
            return Value(getattr(self.build, _FLOATS[operator])(left, right), F64)
        if operator in _ARITHMETIC:
            return Value(getattr(self.build, _ARITHMETIC[operator])(left, right), kind)
        if operator is ast.RShift:
            return Value(self.build.ashr(left, right) if kind.signed else self.build.lshr(left, right), kind)
        if kind.signed or operator not in (ast.FloorDiv, ast.Mod):
            raise self.fail(node, "no such operator of these kinds; // and % are for numbers without a sign")
        return Value((self.build.udiv if operator is ast.FloorDiv else self.build.urem)(left, right), kind)

    def pair(self, node: ast.AST, left: Value, right: Value) -> tuple[Any, Any, Kind]:
        """Two operands of one kind."""
        if left.kind is LITERAL and right.kind is LITERAL:
            left = self.plain(left)
        kind = right.kind if left.kind is LITERAL else left.kind
        if isinstance(left.number, float) and left.kind is LITERAL and kind != F64:
            kind = F64
        if kind.struct is not None or kind.element is not None:
            kind = U64 if kind.struct is None and kind.element is None else kind
        return self.fitted(node, left, kind), self.fitted(node, right, kind), kind

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        stop = isinstance(node.op, ast.Or)
        after = self.code.append_basic_block("after")
        incoming = []
        for each in node.values[:-1]:
            found = self.truth(each)
            incoming.append((ir.Constant(BIT, stop), self.build.block))
            further = self.code.append_basic_block("further")
            self.build.cbranch(found, after if stop else further, further if stop else after)
            self.build.position_at_end(further)
        last = self.truth(node.values[-1])
        incoming.append((last, self.build.block))
        self.build.branch(after)
        self.build.position_at_end(after)
        phi = self.build.phi(BIT)
        for code, block in incoming:
            phi.add_incoming(code, block)
        return Value(phi, BOOL)

    def of_Compare(self, node: ast.Compare) -> Value:
        codes = []
        left = self.value(node.left)
        for operator, each in zip(node.ops, node.comparators, strict=True):
            right = self.value(each)
            codes.append(self.compared(node, left, right, _COMPARISONS[type(operator)]))
            left = right
        combined = codes[0]
        for code in codes[1:]:
            combined = self.build.and_(combined, code)
        return Value(combined, BOOL)

    def compared(self, node: ast.Compare, left: Value, right: Value, word: str) -> Any:
        a, b, kind = self.pair(node, left, right)
        if kind == F64:
            return (self.build.fcmp_unordered if word == "!=" else self.build.fcmp_ordered)(word, a, b)
        return (self.build.icmp_signed if kind.signed else self.build.icmp_unsigned)(word, a, b)

    def of_IfExp(self, node: ast.IfExp) -> Value:
        yes, no, after = (self.code.append_basic_block(name) for name in ("yes", "no", "after"))
        self.build.cbranch(self.truth(node.test), yes, no)
        found, ends = [], []
        for start, each in ((yes, node.body), (no, node.orelse)):
            self.build.position_at_end(start)
            found.append(self.value(each))
            ends.append(self.build.block)
            self.build.branch(after)
        self.build.position_at_end(after)
        *codes, kind = self.pair(node, *found)
        phi = self.build.phi(kind.in_register)
        for code, block in zip(codes, ends, strict=True):
            phi.add_incoming(code, block)
        return Value(phi, kind)

    def of_Call(self, node: ast.Call) -> Value:
        found: object = None
        if isinstance(node.func, ast.Name):
            found = self.module.names.get(node.func.id)
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            other = self.module.names.get(node.func.value.id)
            found = other.names.get(node.func.attr) if isinstance(other, Module) else None
        if isinstance(found, Word):
            return self.spoken(node, found.name)
        if not isinstance(found, Function):
            raise self.fail(node, f"no function {ast.unparse(node.func)}")
        if len(node.args) != len(found.arguments):
            raise self.fail(node, f"{found.node.name} takes {len(found.arguments)} arguments")
        codes = [
            self.fitted(each, self.value(each), widened(kind))
            for each, (_, kind) in zip(node.args, found.arguments, strict=True)
        ]
        return Value(self.build.call(self.made.get_global(found.symbol), codes), widened(found.result))

    def spoken(self, node: ast.Call, name: str) -> Value:
        """One of the words."""
        if name in ("at", "many"):
            kind = self.module.kind_of(node.args[0])
            return Value(self.word(node.args[1]), kind if name == "at" else Kind("array", element=kind))
        if name == "address":
            return Value(self.address(node.args[0]), U64)
        if name == "text":
            assert isinstance(node.args[0], ast.Constant)
            return Value(self.constant_text(str(node.args[0].value)), U64)
        if name == "symbol":
            assert isinstance(node.args[0], ast.Constant)
            return Value(self.outside(str(node.args[0].value)), U64)
        if name in ("atomic_add", "atomic_swap"):
            return self.atomic(node, name)
        maker = intrinsic.WORDS.get(name)
        if maker is None:
            raise self.fail(node, f"{name} is not called")
        values = []
        for each, kind in zip(node.args, maker.kinds or (U64,) * len(node.args), strict=True):
            value = self.plain(self.value(each))
            if kind == F64 and value.kind != F64:
                raise self.fail(node, f"{name} is of a double")
            values.append(self.word(each) if kind != F64 and value.kind not in (F64, BOOL) else value.code)
        if name == "unsigned" and values and values[0].type == BIT:
            values[0] = self.build.zext(values[0], WORD)
        return Value(maker.make(self.build, *values), maker.result)

    def atomic(self, node: ast.Call, name: str) -> Value:
        place, kind, _ = self.location(ast.copy_location(ast.Subscript(node.args[0], node.args[1], ast.Load()), node))
        pointer = self.build.inttoptr(place, kind.stored.as_pointer())
        words = [self.word(each) for each in node.args[2:]]
        if kind.size < 8:
            words = [self.build.trunc(each, kind.stored) for each in words]
        if name == "atomic_add":
            before = self.build.atomic_rmw("add", pointer, words[0], "seq_cst")
            return Value(before if kind.size == 8 else self.build.zext(before, WORD), U64)
        done = self.build.cmpxchg(pointer, words[0], words[1], "seq_cst", "seq_cst")
        return Value(self.build.extract_value(done, 1), BOOL)

    def address(self, node: ast.expr) -> Any:
        """Where something lies."""
        if isinstance(node, ast.Name) and node.id not in self.variables:
            found = self.module.names.get(node.id)
            if isinstance(found, Function):
                return self.build.ptrtoint(self.made.get_global(found.symbol), WORD)
        if isinstance(node, ast.Attribute | ast.Subscript):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                other = self.module.names.get(node.value.id)
                if isinstance(other, Module) and node.value.id not in self.variables:
                    return self.named(node, other.names.get(node.attr)).code
            return self.location(node)[0]
        value = self.value(node)
        if value.kind.struct is None and value.kind.element is None:
            raise self.fail(node, "only what lies in memory has an address")
        return value.code

    def constant_text(self, words: str) -> Any:
        name = f"text.{len(self.made.globals)}"
        data = bytearray(words.encode() + b"\0")
        kind = ir.ArrayType(ir.IntType(8), len(data))
        place = ir.GlobalVariable(self.made, kind, name)
        place.initializer = ir.Constant(kind, data)
        place.global_constant = True
        place.linkage = "internal"
        return self.build.ptrtoint(place, WORD)

    def outside(self, name: str) -> Any:
        if name not in self.made.globals:
            place = ir.GlobalVariable(self.made, ir.IntType(8), name)
            place.linkage = "external"
        return self.build.ptrtoint(self.made.get_global(name), WORD)


def _loaded(node: ast.expr) -> ast.expr:
    """A target, as an expression."""
    return ast.copy_location(ast.parse(ast.unparse(node), mode="eval").body, node)
