"""Small typed functions that nobody has thought of, and what CPython makes of them: strategies of hypothesis.

A program is drawn choice by choice, the simplest first, so that hypothesis makes a failing one smaller. Every function
takes the same arguments, and may call those before it. `model` is the program under CPython with what is documented to
differ (docs/unikernels.md): an `int` wraps around at 64 bits, and `/` takes integers as doubles. Nothing else is
forgiven: what a function returns or raises is the same to the last bit and letter.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as some

HEAD = "a: int, b: int, x: float, y: float, t: bool, p: int64[:], q: float64[:]"
NAMES = "a, b, x, y, t, p, q"
BEGIN = ("c = a", "z = x", "u = t")

_LEAVES = {"int": ["a", "b", "c", "len(p)"], "float": ["x", "y", "z"], "bool": ["t", "u", "True", "False"]}
_VARIABLES = {"int": "c", "float": "z", "bool": "u"}
_ERRORS = ("ValueError", "RuntimeError", "KeyError", "OverflowError", "ArithmeticError", "IndexError")

_MOST = 20_000
"""Steps that a function may take, with those of the ones that it calls."""

INT = some.one_of(some.integers(-9, 9), some.integers(-(1 << 63), (1 << 63) - 1), some.sampled_from([1 << 53, 1 << 62]))
FLOAT = some.one_of(some.sampled_from([0.0, -0.0, 1.0, 0.5, -3.0]), some.floats())
LETTERS = some.text("a b'\"\\%{}\né€\t\0", max_size=6)

VALUES = some.tuples(
    INT, INT, FLOAT, FLOAT, some.booleans(), some.lists(INT, max_size=4), some.lists(FLOAT, max_size=4)
)


class Program:
    """A program's text. names: of its functions, in order."""

    def __init__(self, functions: list[str]) -> None:
        self.names = [f"f{number}" for number in range(len(functions))]
        head = "from swiftlet.unikernel import float64, int64, service, task\n\n\n"
        self.text = head + "\n\n\n".join(functions) + f"\n\n\napp = service({', '.join(self.names)})\n"

    def __repr__(self) -> str:
        return f"\n{self.text}"


class _Writer:
    """Writes one function. before: (result, steps) of the functions that it may call, by name."""

    def __init__(self, draw: Callable[[Any], Any], before: dict[str, tuple[str, int]]) -> None:
        self.draw = draw
        self.before = before
        self.steps = 1
        self.times = 1

    def pick(self, options: Any) -> Any:
        return self.draw(some.sampled_from(options))

    def chance(self, of: int) -> bool:
        """True once in so many times; False is simpler."""
        return bool(self.draw(some.integers(0, of - 1)) == of - 1)

    def function(self, name: str, result: str) -> str:
        lines = [*BEGIN, *self.body(2), f"return {self.result(result)}"]
        return f"@task\ndef {name}({HEAD}) -> {result}:\n" + "\n".join(f"    {line}" for line in lines)

    def result(self, kind: str) -> str:
        if kind == "int64[:]":
            return "p"
        if kind.startswith("tuple"):
            return f"({self.of('int', 1)}, {self.of('float', 1)}, {self.of('bool', 1)}, q)"
        return self.of(kind, 3)

    # Statements

    def body(self, depth: int) -> list[str]:
        lines: list[str] = []
        for _ in range(self.draw(some.integers(0 if depth == 2 else 1, 3))):
            kinds = [self.assign, self.element, self.refuse]
            kinds += [self.branch, self.count, self.walk, self.repeat] if depth else []
            lines += self.pick(kinds)(depth)
        return lines or ["pass"]

    def inside(self, depth: int, times: int) -> list[str]:
        self.times *= times
        lines = [f"    {line}" for line in self.body(depth - 1)]
        self.times //= times
        self.steps += self.times * times
        return lines

    def assign(self, depth: int) -> list[str]:
        kind = self.pick(["int", "float", "bool"])
        if kind != "bool" and self.chance(3):
            operator = self.pick(["+", "-", "*", "//", "%"])
            return [f"{_VARIABLES[kind]} {operator}= {self.of(kind, 2)}"]
        return [f"{_VARIABLES[kind]} = {self.of(kind, 3)}"]

    def element(self, depth: int) -> list[str]:
        kind = self.pick(["int", "float"])
        operator = self.pick(["=", "+=", "-="])
        return [f"{'p' if kind == 'int' else 'q'}[{self.place()}] {operator} {self.of(kind, 2)}"]

    def refuse(self, depth: int) -> list[str]:
        text = self.pick(["", repr(self.draw(LETTERS)), "7"])
        if self.chance(4):
            return [f"assert {self.condition(2)}{', ' + text if text else ''}"]
        error = self.pick(_ERRORS)
        raised = f"raise {error}({text})" if text or self.chance(2) else f"raise {error}"
        return [f"if {self.condition(2)}:", f"    {raised}"]

    def branch(self, depth: int) -> list[str]:
        lines = [f"if {self.condition(2)}:", *self.inside(depth, 1)]
        if self.chance(2):
            lines += ["else:", *self.inside(depth, 1)]
        return lines

    def count(self, depth: int) -> list[str]:
        name = f"i{depth}"
        ends = self.pick(
            [
                "3",
                "len(p)",
                "a % 5",
                f"{self.draw(some.integers(-3, 4))}, 4, 2",
                "4, -2, -1",
                f"{self.of('int', 1)}, {self.of('int', 1)}, {1 << 61}",
            ]
        )
        return [f"for {name} in range({ends}):", *self.inside(depth, 6), *self.leave(f"c += {name}")]

    def walk(self, depth: int) -> list[str]:
        array, line = self.pick([("p", "c = c + v{0}"), ("q", "z = z + v{0}")])
        return [f"for v{depth} in {array}:", *self.inside(depth, 4), *self.leave(line.format(depth))]

    def repeat(self, depth: int) -> list[str]:
        name = f"n{depth}"
        head = [f"{name} = 0", f"while {name} < 5 and {self.of('bool', 1)}:", f"    {name} += 1"]
        return [*head, *self.inside(depth, 5)]

    def leave(self, last: str) -> list[str]:
        """The end of a loop's body, which may not come to it."""
        word = self.pick(["", "break", "continue", "return"])
        if not word or word == "return":
            return [f"    {last}"]
        return [f"    if {self.condition(1)}:", f"        {word}", f"    {last}"]

    # Expressions

    def condition(self, depth: int) -> str:
        """What decides whether a function goes on: one that never does has no result, and is refused."""
        found = self.of("bool", depth)
        has_variable = any(isinstance(each, ast.Name) for each in _values_in(found))
        return found if has_variable else str(self.pick(["t", "u"]))

    def of(self, kind: str, depth: int) -> str:
        if depth == 0 or not self.chance(2):
            return str(self.leaf(kind))
        return str(getattr(self, f"{kind}_of")(depth - 1))

    def leaf(self, kind: str) -> str:
        if kind == "bool" or self.draw(some.booleans()):
            return str(self.pick(_LEAVES[kind]))
        if kind == "int":
            return f"({self.draw(INT)})".replace("(-9223372036854775808)", "(-9223372036854775807)")
        number = self.draw(FLOAT.filter(lambda each: each - each == 0))
        return f"({number!r})"

    def place(self) -> str:
        """An index, mostly one that there is."""
        return str(self.pick(["0", "-1", "len(p) - 1", "2", "c % 5", "-5", "len(p)", self.of("int", 1)]))

    def called(self, kind: str) -> str:
        names = [
            name
            for name, (result, steps) in self.before.items()
            if result == kind and self.steps + self.times * steps <= _MOST
        ]
        if not names:
            return self.leaf(kind)
        name = self.pick(names)
        self.steps += self.times * self.before[name][1]
        words = (self.of("int", 1), "b", self.of("float", 1), "y", self.of("bool", 1), "p", "q")
        return f"{name}({', '.join(words)})"

    def int_of(self, depth: int) -> str:
        form = self.pick(
            [
                "({i} + {i})", "({i} - {i})", "({i} * {i})", "({i} // {i})", "({i} % {i})", "(-{i})", "abs({i})",
                "min({i}, {i})", "max({i}, {i}, {i})", "({i} & {i})", "({i} | {i})", "({i} ^ {i})", "(~{i})",
                "({i} << {s})", "({i} >> {s})", "({i} ** {e})", "({i} if {b} else {i})", "int({b})", "({b} + {b})",
                "({i} + {b})", "p[{p}]", "({i} and {i})", "({i} or {i})", "int({w})", "{call}",
            ]
        )  # fmt: skip
        return self.filled(form, "int", depth)

    def float_of(self, depth: int) -> str:
        form = self.pick(
            [
                "({f} + {f})", "({f} - {f})", "({f} * {f})", "({f} / {f})", "({f} // {f})", "({f} % {f})", "(-{f})",
                "abs({f})", "min({f}, {f})", "max({f}, {f})", "({i} / {i})", "float({i})", "({f} + {i})", "({i} * {f})",
                "({i} // {f})", "({f} % {i})", "({f} / {i})", "({f} if {b} else {f})", "q[{p}]", "float({b})",
                "({f} or {f})", "({b} * {f})", "{call}",
            ]
        )  # fmt: skip
        return self.filled(form, "float", depth)

    def bool_of(self, depth: int) -> str:
        form = self.pick(
            [
                "({i} {c} {i})", "({f} {c} {f})", "({i} {c} {f})", "({f} {c} {i})", "({b} {c} {b})", "(not {b})",
                "({b} and {b})", "({b} or {b})", "({i} {c} {i} {c} {i})", "({b} & {b})", "({b} | {b})", "({b} ^ {b})",
                "bool({i})", "bool({f})", "({i} in (1, 2, {i}))", "{call}",
            ]
        )  # fmt: skip
        return self.filled(form, "bool", depth)

    def filled(self, form: str, kind: str, depth: int) -> str:
        """A form with expressions in its gaps."""
        makers: dict[str, Callable[[], str]] = {
            "{i}": lambda: self.of("int", depth),
            "{f}": lambda: self.of("float", depth),
            "{b}": lambda: self.of("bool", depth),
            "{c}": lambda: str(self.pick(["<", "<=", ">", ">=", "==", "!="])),
            "{s}": lambda: str(self.pick(["1", "b", "63", "64", "-1", "(c & 63)"])),
            "{e}": lambda: str(self.draw(some.integers(0, 5))),
            "{w}": lambda: self.of("float", depth),
            "{p}": self.place,
            "{call}": lambda: self.called(kind),
        }
        for gap, make in makers.items():
            while gap in form:
                form = form.replace(gap, make(), 1)
        # Numbers alone CPython takes together when it compiles, and what does not fit 64 bits then is refused.
        is_constant = kind == "int" and not any(isinstance(each, ast.Name) for each in _values_in(form))
        return str(self.pick(_LEAVES["int"])) if is_constant else form


def _values_in(expression: str) -> list[ast.AST]:
    """What an expression is made of, without the names of functions."""
    nodes = list(ast.walk(ast.parse(expression)))
    functions = {id(each.func) for each in nodes if isinstance(each, ast.Call)}
    return [each for each in nodes if id(each) not in functions]


@some.composite
def programs(draw: Callable[[Any], Any], most: int = 12) -> Program:
    """Programs of up to `most` functions. Each place may stay empty, so a failing one loses what does not matter."""
    functions: list[str] = []
    known: dict[str, tuple[str, int]] = {}
    for place in range(most):
        kind = draw(some.sampled_from(["", "int", "float", "bool", "int64[:]", "tuple[int, float, bool, float64[:]]"]))
        if kind or (place == most - 1 and not functions):
            writer, name = _Writer(draw, known), f"f{len(functions)}"
            kind = kind or "int"
            functions.append(writer.function(name, kind))
            known = {**known, name: (kind, writer.steps)}
    return Program(functions)


# CPython with what is documented to differ


class Array(list[Any]):
    """An array of tasks for CPython: items keep their kind, and an index is one of those that there are."""

    def _checked(self, place: int) -> int:
        if not -len(self) <= place < len(self):
            raise IndexError("index is out of bounds")
        return place

    def __getitem__(self, place: Any) -> Any:
        return super().__getitem__(self._checked(place))

    def __setitem__(self, place: Any, value: Any) -> None:
        super().__setitem__(self._checked(place), wrapped(value))


def wrapped(value: Any) -> Any:
    """An int as 64 bits have it; anything else as it is."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        return (value + (1 << 63)) % (1 << 64) - (1 << 63)
    return value


def divided(left: Any, right: Any) -> Any:
    """`/`, of two integers as doubles."""
    return float(left) / float(right) if isinstance(left, int) and isinstance(right, int) and right else left / right


def shifted(left: int, right: int) -> Any:
    """`<<`; without making what nobody sees."""
    return left << right if right <= 64 else 0


class _Wrapping(ast.NodeTransformer):
    """Every operation whose result may not fit goes through `wrapped`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Div):
            return _call("divided", node.left, node.right)
        if isinstance(node.op, ast.LShift):
            return _call("wrapped", _call("shifted", node.left, node.right))
        return _call("wrapped", node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node if isinstance(node.operand, ast.Constant) else _call("wrapped", node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return _call("wrapped", node) if isinstance(node.func, ast.Name) and node.func.id in ("abs", "int") else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node  # an Array's, which wraps what it is given
        before = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], _call("wrapped", ast.BinOp(before, node.op, node.value)))


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def model(program: Program) -> dict[str, Any]:
    """The program's functions under CPython, by name."""
    tree = ast.fix_missing_locations(_Wrapping().visit(ast.parse(program.text)))
    space: dict[str, Any] = {"wrapped": wrapped, "divided": divided, "shifted": shifted}
    exec(compile(tree, "program.py", "exec", dont_inherit=True), space)
    return space
