"""A function's body as LLVM has it: its statements."""

from __future__ import annotations

import ast
from typing import Any

from llvmlite import ir

from swiftlet.unikernel.metal.expression import Expressions, Value
from swiftlet.unikernel.metal.kind import LITERAL, NOTHING, U64, WORD, widened


class Body(Expressions):
    """One function's code."""

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


def _loaded(node: ast.expr) -> ast.expr:
    """A target, as an expression."""
    return ast.copy_location(ast.parse(ast.unparse(node), mode="eval").body, node)
