"""Reads modules of the dialect: their constants, structures, arrays and functions, and whom they import."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from swiftlet.model.error import KernelError
from swiftlet.unikernel.metal.kind import (
    BOOL,
    F64,
    NOTHING,
    NUMBERS,
    U64,
    Kind,
    Struct,
    laid_out,
    widened,
)

_PACKAGE = "swiftlet.unikernel"
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_WORDS = f"{_PACKAGE}.metal.words"
_STRUCTS = ("Struct", "Shared", "Device", "Packed")

_PLAIN = {**NUMBERS, "f64": F64, "bool": BOOL, "None": NOTHING}


class Word(NamedTuple):
    """One of `words`."""

    name: str


class Constant(NamedTuple):
    """A module's constant."""

    value: int | float


class Variable(NamedTuple):
    """A module's array or structure. values: of one that is never written to."""

    symbol: str
    kind: Kind
    values: tuple[int | float, ...] | None


class Function(NamedTuple):
    """A function. symbol: its name for the linker. marks: the words that decorate it."""

    symbol: str
    arguments: tuple[tuple[str, Kind], ...]
    result: Kind
    node: ast.FunctionDef
    module: Module
    marks: frozenset[str]


Entity = Word | Constant | Variable | Function | Struct


class Module:
    """A module that was read. names: what each name of it stands for."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.names: dict[str, Entity | Module] = {}

    def fail(self, node: ast.AST, message: str) -> KernelError:
        """The error for something that the dialect does not have."""
        return KernelError(f"{os.path.relpath(self.path, _FOLDER)}:{getattr(node, 'lineno', 0)}: {message}")

    def kind_of(self, node: ast.expr | None) -> Kind:
        """What an annotation means. Raises KernelError."""
        if isinstance(node, ast.Constant) and node.value is None:
            return NOTHING
        if isinstance(node, ast.Name):
            if isinstance(found := self.names.get(node.id), Struct):
                return Kind(found.name, struct=found)
            if node.id in _PLAIN:
                return _PLAIN[node.id]
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Array":
            return Kind("array", element=self.kind_of(node.slice))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and ast.unparse(node.value) == "tuple":
            return Kind("tuple", parts=tuple(widened(self.kind_of(each)) for each in node.slice.elts))
        raise self.fail(node or ast.Pass(), f"no kind: {ast.unparse(node) if node else 'nothing'}")

    def constant(self, node: ast.expr) -> int | float | None:
        """The value of an expression that is one before anything runs, else None."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.Name):
            found = self.names.get(node.id)
            return found.value if isinstance(found, Constant) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other = self.names.get(node.value.id)
            found = other.names.get(node.attr) if isinstance(other, Module) else None
            return found.value if isinstance(found, Constant) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "size_of":
                return self.kind_of(node.args[0]).size
            if node.func.id == "ord" and isinstance(node.args[0], ast.Constant):
                return ord(str(node.args[0].value))
            return None
        return self._folded(node)

    def _folded(self, node: ast.expr) -> int | float | None:
        if isinstance(node, ast.UnaryOp):
            inside = self.constant(node.operand)
            if inside is None:
                return None
            if isinstance(node.op, ast.USub):
                return -inside
            return ~inside if isinstance(node.op, ast.Invert) and isinstance(inside, int) else None
        if isinstance(node, ast.BinOp):
            left, right = self.constant(node.left), self.constant(node.right)
            if left is None or right is None:
                return None
            folded = ast.Expression(ast.BinOp(ast.Constant(left), node.op, ast.Constant(right)))
            return eval(compile(ast.fix_missing_locations(folded), "", "eval"))  # type: ignore[no-any-return]
        return None


class Program:
    """Every module that a program needs."""

    def __init__(self, names: Iterable[str]) -> None:
        """Read the modules `names` (below this package, `kernel.console`), and all that they import.

        Raises KernelError.
        """
        self.modules: dict[str, Module] = {}
        for name in names:
            self._load(f"{_PACKAGE}.{name}")

    @property
    def functions(self) -> list[Function]:
        """All functions."""
        return [each for each in self._entities() if isinstance(each, Function)]

    @property
    def variables(self) -> list[Variable]:
        """All arrays and structures."""
        return [each for each in self._entities() if isinstance(each, Variable)]

    def _entities(self) -> list[Entity | Module]:
        found: dict[int, Entity | Module] = {}
        for module in self.modules.values():
            found |= {id(each): each for each in module.names.values()}
        return list(found.values())

    def _load(self, name: str) -> Module:
        if name in self.modules:
            return self.modules[name]
        path = f"{_FOLDER}/{name.removeprefix(_PACKAGE + '.').replace('.', '/')}.py"
        module = self.modules[name] = Module(name, path)
        with open(path) as file:
            tree = ast.parse(file.read(), path)
        for node in tree.body:
            self._define(module, node)
        return module

    def _define(self, module: Module, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom):
            self._import(module, node)
        elif isinstance(node, ast.ClassDef):
            module.names[node.name] = _struct(module, node)
        elif isinstance(node, ast.FunctionDef):
            module.names[node.name] = _function(module, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            targets = [each.id for each in node.targets if isinstance(each, ast.Name)]
            for target in targets:
                module.names[target] = _assigned(module, target, node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else []
            for each, value in zip(node.targets[0].elts, values, strict=True):
                assert isinstance(each, ast.Name)
                module.names[each.id] = _assigned(module, each.id, value)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            raise module.fail(node, "a module has imports, constants, structures, arrays and functions")

    def _import(self, module: Module, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if source == "__future__":
            return
        if source == _WORDS:
            module.names |= {each.asname or each.name: Word(each.name) for each in node.names}
            return
        for each in node.names:
            if os.path.isdir(f"{_FOLDER}/{source.removeprefix(_PACKAGE).strip('.').replace('.', '/')}"):
                module.names[each.asname or each.name] = self._load(f"{source}.{each.name}")
            else:
                other = self._load(source)
                if each.name not in other.names:
                    raise module.fail(node, f"{source} has no {each.name}")
                module.names[each.asname or each.name] = other.names[each.name]


def _struct(module: Module, node: ast.ClassDef) -> Struct:
    base = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
    if base not in _STRUCTS:
        raise module.fail(node, f"{node.name} is none of {', '.join(_STRUCTS)}")
    fields: dict[str, Kind] = {}
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            kind = module.kind_of(each.annotation)
            fields[each.target.id] = U64 if kind.struct is not None else kind
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            fields[each.targets[0].id] = _made(module, each.value)[0]
        elif not isinstance(each, ast.Expr | ast.Pass):
            raise module.fail(each, "a structure has fields")
    return laid_out(node.name, base, fields)


def _made(module: Module, node: ast.expr) -> tuple[Kind, tuple[int | float, ...] | None]:
    """What `array`, `table` or `place` makes."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise module.fail(node, "array, table or place, or a constant")
    kind = module.kind_of(node.args[0])
    if node.func.id == "place":
        return kind, None
    if node.func.id == "array":
        count = module.constant(node.args[1])
        if not isinstance(count, int):
            raise module.fail(node, "an array's length is a constant")
        return Kind("array", element=kind, length=count), None
    values = tuple(module.constant(each) for each in node.args[1:])
    if node.func.id != "table" or None in values:
        raise module.fail(node, "a table has constants")
    return Kind("array", element=kind, length=len(values)), tuple(value for value in values if value is not None)


def _assigned(module: Module, target: str, node: ast.expr) -> Entity:
    value = module.constant(node)
    if value is not None:
        return Constant(value)
    kind, values = _made(module, node)
    return Variable(f"{module.name.rpartition('.')[2]}.{target}", kind, values)


def _function(module: Module, node: ast.FunctionDef) -> Function:
    marks = frozenset(each.id for each in node.decorator_list if isinstance(each, ast.Name))
    arguments = tuple((each.arg, module.kind_of(each.annotation)) for each in node.args.args)
    named = marks & {"export", "external"}
    symbol = node.name if named else f"{module.name.rpartition('.')[2]}.{node.name}"
    result = module.kind_of(node.returns)
    return Function(symbol, arguments, result, node, module, marks)


def names_of(entities: Mapping[str, object]) -> str:
    """For messages."""
    return ", ".join(sorted(entities))
