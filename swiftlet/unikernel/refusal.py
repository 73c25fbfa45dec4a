"""Why a program cannot be compiled, as one line: where in it, what Numba says of it in plainer words, what to write.

Numba has the line for most of what it refuses. Where it has none, or that of a function that it has made itself, the
program's own text has it.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from swiftlet.model.error import InputError

_PAGE = "docs/unikernels.md has what a task can be"

_LINEAR = "there is no linear algebra (@, dot, linalg)"

_PLAINER: tuple[tuple[str, str, str], ...] = (
    (r"Untyped global name '(\w+)':.*<class 'function'>", "{} is not marked as a task", "write @task above it"),
    (r"Untyped global name '(\w+)':.*<class 'type'>", "there is no {} in a task", ""),
    (r"Untyped global name '(\w+)'", "{} is nothing that a task can use", "a number, a tuple, or shared(int64[:], N)"),
    (r"name '(\w+)' is not defined", "nothing has the name {}", "define it"),
    (r"scipy .*is required", _LINEAR, "write the loop, or (a * b).sum()"),
    (r"use of yield in a closure", "there are no generator expressions", "write a list: [... for ...]"),
    (r"runaway recursion", "it calls itself on every path", "return without a call on one, before it calls itself"),
    (r"Cannot cast none to", "a task returns what it says on every path", "return it, or raise behind it"),
    (r"Function\(<built-in function setitem>\)", "what is written to here cannot be", "shared(int64[:], N), or a copy"),
    (r"No conversion from array\(bool", "bytes are compared one by one, or by their length", "a loop over both"),
    (r"module '(\w+)[\w.]*' has no attribute '(\w+)'", "{0} has no {1}", ""),
    (r"Unknown attribute '(\w+)' of type Module\(<module '(\w+)", "a task has no {1}.{0}", ""),
    (r"Unknown attribute '(\w+)' of type (.*)", "{1} has no {0} in a task", ""),
    (r"No implementation of function Function\(<\S+ function (\w+).*\s*>>> \w+\((.*)\)", "there is no {0} of {1}", ""),
)
"""What Numba says of mistakes that are usual, what is said here, and what to write instead."""

_PREAMBLE = ("Failed in nopython mode", "During:", "- Resolution failure", "- argument", "File ", "<source", "[")

_KINDS = (
    (r"Literal\[(\w+)\]\([^()]*\)", r"\1"),
    (r"(?:array|Array)\((int64|float64), 1d?, [^)]*\)", r"\1[:]"),
    (r"(?:array|Array)\((int64|float64), 2d?, [^)]*\)", r"\1[:, :]"),
    (r"\b(int|float)64\b(?!\[)", r"\1"),
    (r"\bboolean\b", "bool"),
    (r"\bunicode_type\b", "str"),
)


def is_the_programs(error: Exception) -> bool:
    """Whether the program is to blame: of attributes that are not there, for those of modules only."""
    return not isinstance(error, AttributeError) or re.match(r"module '", str(error)) is not None


def refusal(error: Exception, path: str) -> InputError:
    """Numba's complaint of a program."""
    text = str(error)
    for pattern, plainer, hint in _PLAINER:
        if match := re.search(pattern, text):
            words = [kinds(each) for each in match.groups()]
            place = _place(text, path, match.groups(), is_linear=plainer == _LINEAR)
            return InputError(f"{place}: {plainer.format(*words)}", hint or _PAGE)
    said = (each.strip() for each in text.splitlines())
    reason = next((each for each in said if each and not each.startswith(_PREAMBLE)), "it cannot be compiled")
    return InputError(f"{_place(text, path, (), is_linear=False)}: {reason}", _PAGE)


def kinds(text: str) -> str:
    """Numba's names of kinds of values as programs write them."""
    for pattern, plainer in _KINDS:
        text = re.sub(pattern, plainer, text)
    return text


def _place(text: str, path: str, words: tuple[str, ...], *, is_linear: bool) -> str:
    """The file, and the line: of what was lowered, which is whole where it has been made anew; else the first told."""
    name = os.path.basename(path)
    told = [line for each, line in re.findall(r'During: lowering ".*" at (\S+) \((\d+)\)', text) if _is(each, name)]
    told += [line for each, line in re.findall(r'File "([^"]*)", line (\d+)', text) if _is(each, name)]
    line = told[0] if told else next(_lines(path, words, is_linear=is_linear), 0)
    return f"{name}:{line}" if line else name


def _is(shown: str, name: str) -> bool:
    return os.path.basename(shown) == name


def _lines(path: str, words: tuple[str, ...], *, is_linear: bool) -> Iterator[int]:
    """The lines of functions in which one of these names stands, or linear algebra."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    found = []
    for function in (each for each in tree.body if isinstance(each, ast.FunctionDef)):
        for node in ast.walk(function):
            called = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            is_product = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult)
            if called in words or (is_linear and (is_product or called in ("linalg", "dot", "vdot"))):
                found.append(node.lineno)  # type: ignore[attr-defined]
    yield from sorted(found)
