"""A program of tasks as Python reads it: run, its service found, and what a task cannot have refused with its line.

The check here is for people: it names the line and what to write instead for what is usual in Python and cannot be
compiled. What it lets pass is judged by the compiler.
"""

from __future__ import annotations

import ast
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from swiftlet.model.error import InputError
from swiftlet.unikernel import declare
from swiftlet.unikernel.signature import Signature

_CODES: dict[Any, str] = {
    int: "i",
    float: "f",
    bool: "b",
    bytes: "s",
    declare.int64[:]: "I1",
    declare.int64[:, :]: "I2",
    declare.float64[:]: "F1",
    declare.float64[:, :]: "F2",
}
_KINDS = "int, float, bool, bytes, tuples of these, float64[:], float64[:, :], int64[:], int64[:, :]"

MODULE = "program"
"""The name that a program has while it is built."""

_REFUSED: tuple[tuple[type[ast.AST] | tuple[type[ast.AST], ...], str, str], ...] = (
    ((ast.AsyncFor, ast.AsyncWith, ast.Await), "a task waits for nobody", "split it into several tasks"),
    ((ast.Yield, ast.YieldFrom), "a task returns once", "return a tuple, or call the task again"),
    ((ast.With,), "a task opens nothing, so it has no with", "leave it out"),
    ((ast.Try,), "a task catches no exceptions: its caller gets them", "test for what may go wrong"),
    ((ast.Global, ast.Nonlocal), "tasks share no variables", "take it as an argument and return it"),
    ((ast.Lambda,), "a task has no functions of its own", "write a function and mark it with @task"),
    ((ast.ClassDef,), "a task has no classes of its own", "use tuples"),
    ((ast.Import, ast.ImportFrom), "a task imports nothing", "import at the top of the program"),
    ((ast.Dict, ast.DictComp), "a task has no dicts", "use numbers that count up as keys"),
    ((ast.Set, ast.SetComp), "a task has no sets", "use a sorted list, or truth values by number"),
    ((ast.JoinedStr, ast.FormattedValue), "a task makes no texts", "return numbers and format them outside"),
    ((ast.Delete,), "a task forgets everything by itself", "leave it out"),
)

_CALLS = {
    "print": ("a task has nowhere to print to", "return what you want to see"),
    "input": ("a task reads no input", "take it as an argument"),
    "open": ("a unikernel has no files", "take the data as an argument"),
    "eval": ("a unikernel has no Python in it", "write it out"),
    "exec": ("a unikernel has no Python in it", "write it out"),
    "getattr": ("a task has no objects", "use tuples"),
    "isinstance": ("types are known when a program is built", "write one task for each type"),
}


def load(path: str) -> declare.Service:
    """Run a program's top level and return its service. Raises InputError with file, line and reason."""
    name = os.path.basename(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tree = ast.parse(text, path)
    except SyntaxError as error:
        raise InputError(f"{name}:{error.lineno}: {error.msg}") from None
    except (UnicodeDecodeError, ValueError):
        raise InputError(f"{name} is no Python program") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    for each in _tasks(tree):
        _check(each, name)
    return _service(_run(compile(text, path, "exec", dont_inherit=True), path), name)


def _run(code: types.CodeType, path: str) -> dict[str, Any]:
    module = sys.modules[MODULE] = types.ModuleType(MODULE)
    module.__file__ = path
    sys.path.insert(0, os.path.dirname(path))
    prefix, sys.pycache_prefix = (
        sys.pycache_prefix,
        "/nonexistent",
    )  # modules beside it as they are written, not as cached
    try:
        exec(code, module.__dict__)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((each.lineno for each in reversed(frames) if each.filename == path), 0)
        raise InputError(f"{os.path.basename(path)}:{line}: {type(error).__name__}: {error}") from None
    finally:
        sys.pycache_prefix = prefix
        sys.path.remove(os.path.dirname(path))
    return module.__dict__


def _service(space: dict[str, Any], name: str) -> declare.Service:
    found = [each for each in space.values() if isinstance(each, declare.Service)]
    if len(found) != 1:
        raise InputError(f"{name} has {len(found)} services", "one: app = service(FUNCTION, ...)")
    return found[0]


def _tasks(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for each in tree.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = [ast.unparse(mark) for mark in each.decorator_list]
            if any(mark == "task" or mark.endswith(".task") for mark in marks):
                yield each


def _check(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> None:
    place = f"{name}:{{}}: {function.name}: "
    if isinstance(function, ast.AsyncFunctionDef):
        raise InputError(place.format(function.lineno) + "a task waits for nobody", "write def")
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults:
        raise InputError(
            place.format(function.lineno) + "a task has plain arguments, each with a type", "def f(a: int)"
        )
    for statement in function.body:
        for node in ast.walk(statement):
            for kinds, reason, hint in _REFUSED:
                if isinstance(node, kinds):
                    raise InputError(place.format(node.lineno) + reason, hint)  # type: ignore[attr-defined]
            if isinstance(node, ast.FunctionDef):
                raise InputError(place.format(node.lineno) + "a task has no functions of its own", "mark it with @task")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
                reason, hint = _CALLS[node.func.id]
                raise InputError(place.format(node.lineno) + f"{node.func.id}: {reason}", hint)
            if isinstance(node, ast.Raise):
                _check_raise(node, place.format(node.lineno))


def _check_raise(node: ast.Raise, place: str) -> None:
    """An exception's text is in the image, so it is known when that is made."""
    arguments = node.exc.args if isinstance(node.exc, ast.Call) else []
    if node.exc is None or not all(isinstance(each, ast.Constant) for each in arguments):
        raise InputError(f"{place}what a task raises has a constant text", 'raise ValueError("why")')


def signature_of(function: Callable[..., Any], name: str) -> Signature:
    """A task's signature by its annotations. Raises InputError with file and line."""
    code = function.__code__
    place = f"{name}:{code.co_firstlineno}: {function.__name__}: "
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise InputError(f"{place}{error}") from None
    found = []
    names = code.co_varnames[: code.co_argcount]
    for each in (*names, "return"):
        what = "its result" if each == "return" else f"its argument {each}"
        if each not in hints:
            shown = ", ".join(f"{name}: int" for name in names)
            raise InputError(f"{place}{what} has no type", f"def {function.__name__}({shown}) -> int")
        kind = _code_of(hints[each])
        if not kind:
            shown = getattr(hints[each], "__name__", hints[each])
            if isinstance(hints[each], declare.Item):
                raise InputError(f"{place}{what} is one number, and no array", f"write {hints[each].number}")
            raise InputError(f"{place}{what} has no type that a task can have: {shown}", f"there are {_KINDS}")
        found.append(kind)
    return Signature(function.__name__, tuple(zip(names, found[:-1], strict=True)), found[-1], code.co_firstlineno)


def _code_of(hint: Any) -> str:
    """The code of an annotation; "" where a task can have no such value."""
    if typing.get_origin(hint) is tuple:
        return _code_of_tuple(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return _code_of_tuple(tuple(typing.get_type_hints(hint).values()))
    try:
        return _CODES.get(hint, "")
    except TypeError:  # it cannot be a key
        return ""


def _code_of_tuple(inside: tuple[Any, ...]) -> str:
    codes = [_code_of(each) for each in inside]
    return f"({''.join(codes)})" if codes and all(codes) else ""
