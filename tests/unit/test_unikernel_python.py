"""Compiled tasks and plain CPython do the same: every example, and functions that nobody has thought of."""

from __future__ import annotations

import importlib.util
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from swiftlet.unikernel import build_linux, wire
from swiftlet.unikernel.client import Client

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/unikernel"
CALLS = 2000
SEED = int(os.environ.get("SWIFTLET_SEED", "5"))


class Service:
    """A program's Linux executable, running."""

    def __init__(self, folder: Path, program: Path) -> None:
        path = folder / f"{program.stem}.service"
        path.write_bytes(build_linux.build(str(program)).image)
        path.chmod(0o755)
        command = [path, "--threads", "--address", "127.0.0.1", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = int(self.process.stdout.readline().partition(":")[2].partition(",")[0])
        self.client = Client("127.0.0.1", port)

    def close(self) -> None:
        self.client.read(wire.SHUTDOWN)
        self.client.close()
        assert self.process.wait(10) == 0


@pytest.fixture
def service(tmp_path):
    made = []

    def start(program):
        made.append(Service(tmp_path, program))
        return made[-1].client

    yield start
    for each in made:
        each.close()


def module_of(path: Path):
    """The program as CPython has it."""
    spec = importlib.util.spec_from_file_location(f"plain_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(call, *arguments):
    """What a call returned, or what it raised."""
    try:
        return "returned", plain(call(*arguments))
    except Exception as error:
        return "raised", type(error).__name__, str(error)


def plain(value):
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    return value.tolist() if hasattr(value, "tolist") else value


def same(one, other) -> bool:
    """Alike, with nan like nan and doubles to the last bit."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)
    return type(one) is type(other) and one == other


ARGUMENTS = {
    ("primes", "count_primes"): lambda r: (r.randrange(-20, 400),),
    ("queens", "queens"): lambda r: (r.randrange(-1, 7),),
    ("queens", "queens_with"): lambda r: (r.randrange(0, 8), r.randrange(-1, 8)),
    ("pi", "darts"): lambda r: (r.randrange(1 << 32), r.randrange(-1, 60)),
    ("cache", "put"): lambda r: (r.randrange(-3, 300), r.randrange(-(1 << 62), 1 << 62)),
    ("cache", "get"): lambda r: (r.randrange(-3, 300),),
    ("cache", "statistics"): lambda r: (),
}


@pytest.mark.parametrize("name", sorted({name for name, _ in ARGUMENTS}))
def test_an_example_does_what_it_does_under_cpython(service, name):
    program = EXAMPLES / f"{name}.py"
    client, module, moments = service(program), module_of(program), random.Random(SEED)
    tasks = [task for example, task in ARGUMENTS if example == name]
    raised = 0
    for _ in range(CALLS):
        task = moments.choice(tasks)
        arguments = ARGUMENTS[name, task](moments)
        here = outcome(getattr(module, task), *arguments)
        there = outcome(client.call, task, *arguments)
        assert same(there, here), (task, arguments, there, here)
        raised += here[0] == "raised"
    assert raised < CALLS, "not only errors were compared"


def test_the_example_of_equations_does_what_it_does_under_cpython(service):
    import numpy

    program = EXAMPLES / "linear.py"
    client, module, moments = service(program), module_of(program), numpy.random.default_rng(SEED)
    for number in range(CALLS):
        n = int(moments.integers(1, 7))
        equations = moments.integers(-3, 4, (n, n + 1 + (number % 50 == 0))).astype(float)
        here = outcome(module.solve, equations.copy())
        there = outcome(client.call, "solve", equations)
        assert here[0] == there[0] and here[2:] == there[2:]
        if here[0] == "returned":
            assert numpy.allclose(there[1], here[1], rtol=1e-9, atol=1e-9)


FUNCTIONS = 40


class _Writer:
    """Writes small typed functions at random: integers a, b and doubles x, y in, one of either out."""

    def __init__(self, moments: random.Random) -> None:
        self.moments = moments

    def function(self, number: int) -> str:
        result = self.moments.choice(("int", "float", "bool"))
        lines = [f"    {line}" for line in self.body(2)]
        lines.append(f"    return {self.expression(result, 3)}")
        head = f"@task\ndef f{number}(a: int, b: int, x: float, y: float) -> {result}:"
        start = ["    c = a - b", "    z = x * 0.5"]
        return "\n".join([head, *start, *lines])

    def body(self, depth: int) -> list[str]:
        found: list[str] = []
        for _ in range(self.moments.randrange(1, 4)):
            kind = self.moments.randrange(6 if depth else 3)
            if kind < 2:
                found.append(f"c = {self.expression('int', 2)}")
            elif kind == 2:
                found.append(f"z = {self.expression('float', 2)}")
            elif kind == 3:
                found.append(f"if {self.expression('bool', 2)}:")
                found += [f"    {line}" for line in self.body(depth - 1)]
                found.append("else:")
                found += [f"    {line}" for line in self.body(depth - 1)]
            elif kind == 4:
                name = f"i{depth}"
                found.append(f"for {name} in range({self.moments.randrange(1, 6)}):")
                found += [f"    {line}" for line in [*self.body(depth - 1), f"c = c + {name}"]]
            else:
                found.append(f"if c % {self.moments.randrange(3, 9)} == 0:")
                found.append('    raise ValueError("as it is written")')
        return found

    def expression(self, kind: str, depth: int) -> str:
        pick = self.moments.choice
        if kind == "bool":
            if depth == 0:
                return pick(("True", "False"))
            inside = pick(("int", "float"))
            if self.moments.random() < 0.3:
                return (
                    f"({self.expression('bool', depth - 1)} {pick(('and', 'or'))} {self.expression('bool', depth - 1)})"
                )
            operator = pick(("<", "<=", ">", ">=", "==", "!="))
            return f"({self.expression(inside, depth - 1)} {operator} {self.expression(inside, depth - 1)})"
        if depth == 0:
            if kind == "int":
                return pick(("a", "b", "c", str(self.moments.randrange(-9, 10))))
            return pick(("x", "y", "z", f"{self.moments.uniform(-3, 3):.3f}"))
        if kind == "int":
            left, right = self.expression("int", depth - 1), self.expression("int", depth - 1)
            operator = pick(("+", "-", "%", "//", "&", "|", "^", "min", "max", "abs", "short"))
            if operator in ("min", "max"):
                return f"{operator}({left}, {right})"
            if operator == "abs":
                return f"abs({left})"
            if operator == "short":  # a product that 64 bits hold
                return f"(({left} & 1023) * ({right} & 1023))"
            return f"({left} {operator} {right})"
        left, right = self.expression("float", depth - 1), self.expression("float", depth - 1)
        operator = pick(("+", "-", "*", "/", "//", "%", "float", "fabs", "if"))
        if operator == "float":
            return f"float({self.expression('int', depth - 1)})"
        if operator == "fabs":
            return f"abs({left})"
        if operator == "if":
            return f"({left} if {self.expression('bool', depth - 1)} else {right})"
        return f"({left} {operator} {right})"


@pytest.mark.parametrize("round_", range(2))
def test_functions_that_nobody_has_thought_of_do_what_they_do_under_cpython(service, tmp_path, round_):
    """Integers stay below 2^40 here, so that none wraps; what wraps is documented."""
    moments = random.Random(SEED * 1000 + round_)
    writer = _Writer(moments)
    text = "from swiftlet.unikernel import service, task\n\n"
    text += "\n\n".join(writer.function(number) for number in range(FUNCTIONS))
    text += f"\n\napp = service({', '.join(f'f{number}' for number in range(FUNCTIONS))})\n"
    program = tmp_path / "program.py"
    program.write_text(text)
    client, module = service(program), module_of(program)
    kinds = set()
    for number in range(FUNCTIONS):
        for _ in range(50):
            integers = [moments.choice((0, 1, -1, moments.randrange(-(1 << 30), 1 << 30))) for _ in range(2)]
            doubles = [moments.choice((0.0, -0.0, 1.5, moments.uniform(-1e3, 1e3))) for _ in range(2)]
            here = outcome(getattr(module, f"f{number}"), *integers, *doubles)
            there = outcome(client.call, f"f{number}", *integers, *doubles)
            kinds.add(here[0] if here[0] == "returned" else here[1])
            assert same(there[:2], here[:2]), (number, integers, doubles, there, here)
    assert {"returned", "ZeroDivisionError"} <= kinds


if __name__ == "__main__":
    sys.stdout.write(_Writer(random.Random(SEED)).function(0) + "\n")
