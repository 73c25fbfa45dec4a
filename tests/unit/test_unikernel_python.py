"""Compiled tasks and plain CPython do the same: every example, and functions that nobody has thought of."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import os
import pickle
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as some

from swiftlet.model.error import InputError
from swiftlet.unikernel import build_linux, level, wire
from swiftlet.unikernel.client import Client
from tests.typed_functions import HEAD, VALUES, Array, Program, model, programs

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/unikernel"
CALLS = 2000
SEED = int(os.environ.get("SWIFTLET_SEED", "5"))
LEVEL = os.environ.get("SWIFTLET_CPU_LEVEL", level.DEFAULT)


def built(program: Path) -> bytes:
    """The program's executable."""
    return build_linux.build(str(program), level=LEVEL).image


class Service:
    """A program's Linux executable, running."""

    def __init__(self, folder: Path, program: Path, image: bytes = b"") -> None:
        path = folder / f"{program.stem}.service"
        path.write_bytes(image or built(program))
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
    if isinstance(value, Array):
        return list(value)
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


NAMES = sorted({name for name, _ in ARGUMENTS})


def compare(client: Client, name: str) -> None:
    """Many calls of an example's tasks, and the same of what they are under CPython."""
    module, moments = module_of(EXAMPLES / f"{name}.py"), random.Random(SEED)
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


def compare_equations(client: Client) -> None:
    """The same of the example of equations, whose doubles may be others in the last bits."""
    import numpy

    module, moments = module_of(EXAMPLES / "linear.py"), numpy.random.default_rng(SEED)
    for number in range(CALLS):
        n = int(moments.integers(1, 7))
        equations = moments.integers(-3, 4, (n, n + 1 + (number % 50 == 0))).astype(float)
        here = outcome(module.solve, equations.copy())
        there = outcome(client.call, "solve", equations)
        assert here[0] == there[0] and here[2:] == there[2:]
        if here[0] == "returned":
            assert numpy.allclose(there[1], here[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_does_what_it_does_under_cpython(service, name):
    compare(service(EXAMPLES / f"{name}.py"), name)


def test_the_example_of_equations_does_what_it_does_under_cpython(service):
    compare_equations(service(EXAMPLES / "linear.py"))


EXAMPLES_OF_FUNCTIONS = int(os.environ.get("SWIFTLET_EXAMPLES", "3"))
"""Programs of up to twelve functions. Where the number is said they are others each time, or `--hypothesis-seed`'s."""


@pytest.mark.timeout(300 + 30 * EXAMPLES_OF_FUNCTIONS, func_only=True)
@settings(
    max_examples=EXAMPLES_OF_FUNCTIONS,
    deadline=None,
    derandomize="SWIFTLET_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs(), some.lists(VALUES, min_size=4, max_size=8))
def test_functions_that_nobody_has_thought_of_do_what_they_do_under_cpython(program, calls):
    """Value, exception's type, and its text; of what is documented to differ the model knows."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), program.text) as client:
        module = model(program)
        for name in program.names:
            for a, b, x, y, t, p, q in calls:
                here = outcome(module[name], a, b, x, y, t, Array(p), Array(q))
                there = outcome(client.call, name, a, b, x, y, t, p, q)
                assert same(there, here), f"{name}{a, b, x, y, t, p, q}: {there}, under CPython {here}"


LEAST, MOST = -(1 << 63), (1 << 63) - 1

FOUND = (
    ("(c ** 4) >> 63", "int", [(4933825,)]),
    ("(c + 1) > c", "bool", [(MOST,)]),
    ("c * c >= 0", "bool", [(3037000500,)]),
    ("c // b", "int", [(LEAST, -1), (LEAST, 1), (7, 0), (-7, 2)]),
    ("c % b", "int", [(LEAST, -1), (7, 0), (-7, 2), (7, -2)]),
    ("c << b", "int", [(1, 64), (1, 63), (1, -1), (-1, 200)]),
    ("c >> b", "int", [(-5, 64), (5, 1 << 40), (5, -1)]),
    ("c < x", "bool", [(MOST, 0, 2.0**63), ((1 << 53) + 1, 0, 2.0**53), (LEAST, 0, -(2.0**63)), (0, 0, math.nan)]),
    ("x <= c", "bool", [(MOST, 0, 2.0**63), ((1 << 53) - 1, 0, 2.0**53)]),
    ("x == c", "bool", [(MOST, 0, 2.0**63), ((1 << 53) + 1, 0, 2.0**53), (5, 0, 5.0)]),
    ("c != x", "bool", [(MOST, 0, 2.0**63), (5, 0, 5.0), (5, 0, math.nan)]),
    (
        "int(x)",
        "int",
        [(0, 0, each) for each in (math.nan, math.inf, -math.inf, 2.0**63, -(2.0**63), 1e30, -1e20, -2.9)],
    ),
    ("x / y", "float", [(0, 0, 1.0, 0.0), (0, 0, 1.0, -0.0)]),
    ("x // y", "float", [(0, 0, 1.0, 0.0), (0, 0, -1.0, math.inf)]),
    ("x % y", "float", [(0, 0, 1.0, 0.0), (0, 0, -1.0, math.inf)]),
    ("float(t)", "float", [()]),
)
"""Results that were once another than CPython's, and calls of which they were."""

RAISED = (
    "KeyError(7)",
    "KeyError('')",
    "KeyError()",
    "KeyError",
    "ValueError('a', 7)",
    "ValueError('a\\0b')",
    "OSError(2, 'x')",
)


def test_what_was_once_another_stays_as_it_is_under_cpython(tmp_path):
    head = "def f{}({}) -> {}:\n    c = a\n    "
    functions = [f"@task\n{head.format(n, HEAD, kind)}return {text}" for n, (text, kind, _) in enumerate(FOUND)]
    raising = [f"@task\ndef f{n + len(FOUND)}({HEAD}) -> int:\n    if t:\n        raise {each}\n    return 0"
               for n, each in enumerate(RAISED)]  # fmt: skip
    program = Program([*functions, *raising])
    module = model(program)
    calls = [(name, values) for name, (_, _, each) in zip(program.names, FOUND, strict=False) for values in each]
    calls += [(name, ()) for name in program.names[len(FOUND) :]]
    with running(tmp_path, program.text) as client:
        for name, values in calls:
            a, b, x, y = (*values, *(0, 0, 0.0, 0.0)[len(values) :])
            here = outcome(module[name], a, b, x, y, True, Array(), Array())
            there = outcome(client.call, name, a, b, x, y, True, [], [])
            assert same(there, here), (name, values, there, here)


def test_an_exception_is_in_words_however_often_its_name_was_changed():
    from swiftlet.unikernel import compile as tasks

    data = pickle.dumps((IndexError, ("no",), None))
    quoted = "".join(f"\\{byte:02X}" for byte in data)
    for name in (".const.pickledata.0af", ".const.pickledata.0af.6", ".const.pickledata.0af.6.126"):
        code = f'@{name} = internal constant [{len(data)} x i8] c"{quoted}"\n{{ ptr @{name}, i32 {len(data)} }}\n'
        words = tasks._told(code)
        assert words.count(name) == 2 and quoted not in words and f"i32 {len(data)} " not in words


@contextlib.contextmanager
def running(folder: Path, text: str) -> Iterator[Client]:
    """A program that runs for the length of a `with`."""
    (folder / "program.py").write_text(text)
    with multiprocessing.get_context("fork").Pool(1) as pool:  # Numba keeps what it has compiled as long as it lives
        try:
            image = pool.apply(built, (folder / "program.py",))
        except InputError as error:
            if "returns nothing" not in str(error):
                raise
            reject()  # so it only raises, which is refused
    made = Service(folder, folder / "program.py", image)
    try:
        yield made.client
    finally:
        made.close()
