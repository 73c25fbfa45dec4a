"""What tasks become, looked at closely: what their object needs, how it is bound, and what it never holds.

The lists here are written by hand: a new version of Numba or LLVM that needs more is to be looked at first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from swiftlet.unikernel import elf
from swiftlet.unikernel.build import REQUIRED
from swiftlet.unikernel.metal import assemble

TREE = Path(__file__).resolve().parents[2]
EXAMPLES = TREE / "examples/unikernel"

NEEDED = {
    "cache": {"shared_0", "shared_1", "shared_2"},
    "linear": {"NRT_MemInfo_alloc_aligned", "NRT_MemInfo_call_dtor", "memcpy"},
    "pi": {"numba_get_np_random_state", "numba_rnd_init", "numba_rnd_shuffle"},
    "primes": set(),
    "queens": set(),
}
"""Symbols that an example's object may leave undefined."""

RELOCATIONS = {1: "R_X86_64_64", 2: "R_X86_64_PC32", 4: "R_X86_64_PLT32", 10: "R_X86_64_32", 11: "R_X86_64_32S"}

SECTIONS = re.compile(r"\.(text|rodata(\.cst\d+)?|eh_frame)")
"""What is loaded of it: nothing of it is ever written to."""

MADE = """
import hashlib, sys
from swiftlet.unikernel import compile
for path in sys.argv[1:]:
    print(hashlib.sha256(compile.compiled(path).object).hexdigest())
"""


class Compiled:
    """An example's object, and the assembly of which it is made."""

    def __init__(self, name: str) -> None:
        from swiftlet.unikernel import compile as tasks

        self.assembly = self.code = ""
        plain = tasks.optimised

        def spied(code, machine, level=2):
            module = plain(code, machine, level)
            self.code = str(module)
            self.assembly = machine.emit_assembly(module)
            return plain(code, machine, level)

        tasks.optimised = spied
        try:
            self.data = tasks.compiled(str(EXAMPLES / f"{name}.py")).object
        finally:
            tasks.optimised = plain
        self.object = elf.parse(self.data, name)


@pytest.fixture(scope="module", params=sorted(NEEDED))
def compiled(request):
    return request.param, Compiled(request.param)


def test_every_example_is_looked_at():
    assert {each.stem for each in EXAMPLES.glob("*.py")} == set(NEEDED)


def test_what_compiles_is_what_is_locked():
    locked = dict(re.findall(r"^(\S+)==(\S+)", (TREE / "requirements/unikernel.txt").read_text(), re.MULTILINE))
    for name in REQUIRED:
        assert metadata.version(name) == locked[name], f"{name}: the lists of this file are of another version"


def test_an_object_needs_what_is_listed_and_nothing_else(compiled):
    name, made = compiled
    assert made.object.undefined == NEEDED[name]
    assert made.object.defined == {f"task_{number}" for number in range(len(made.object.defined))}


def test_it_is_bound_in_few_ways_to_itself_and_to_what_is_listed(compiled):
    name, made = compiled
    for section in made.object.sections:
        assert not section.flags & elf.ALLOC or SECTIONS.fullmatch(section.name), section.name
        assert not section.flags & elf.WRITE
        for each in section.relocations:
            symbol = made.object.symbols[each.symbol]
            assert each.type in RELOCATIONS, (section.name, each)
            assert symbol.section or symbol.name in NEEDED[name], (section.name, symbol)


def test_no_address_of_the_host_is_in_it(compiled):
    """Where a process has its heap, its libraries and its stack: what Numba does for a JIT."""
    _, made = compiled
    numbers = {int(each) for each in re.findall(r"(?:\$|\.quad\s+)(-?\d+)", made.assembly)}
    assert numbers, "and there are numbers in the assembly"
    assert not {hex(each) for each in numbers if 1 << 44 <= each < 1 << 47}


@pytest.mark.slow
def test_another_process_makes_the_same_bytes():
    told = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(TREE)}
        command = [sys.executable, "-c", MADE, *(EXAMPLES / f"{name}.py" for name in sorted(NEEDED))]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        told.append(done.stdout.split())
    assert told[0] == told[1] and len(set(told[0])) == len(NEEDED)


BELOW_STACK = re.compile(r"-\d+\(%rsp\)")


def test_no_task_writes_below_its_stack_where_an_interrupt_would(compiled):
    _, made = compiled
    groups = dict(re.findall(r"^attributes #(\d+) = \{ (.*) \}$", made.code, re.MULTILINE))
    functions = re.findall(r"^define .* #(\d+).*\{$", made.code, re.MULTILINE)
    assert len(functions) == len(re.findall("^define ", made.code, re.MULTILINE)) > 0
    assert all("noredzone" in groups[each] for each in functions)
    assert not BELOW_STACK.search(made.assembly)


REGISTERS = re.compile(r"%(?:[xyz]mm|mm|st\()\d*")


@pytest.mark.parametrize(
    ("names", "features"), [(("kernel.main",), assemble.INTEGERS_ONLY), (("runtime.memory", "runtime.arena"), "")]
)
def test_what_runs_in_an_interrupt_leaves_a_tasks_registers_alone(names, features):
    """The kernel, and what LLVM and it call of the runtime: no stub saves a register of SSE or AVX."""
    assembly = assembly_of(names, features)
    assert not REGISTERS.search(assembly), REGISTERS.search(assembly)
    assert not BELOW_STACK.search(assembly)
    assert REGISTERS.search(assembly_of(("runtime.mathexp",), "")), "as they would be seen"


def assembly_of(names, features):
    machine = assemble.target_machine(assemble.BASELINE, features)
    module = assemble.optimised(assemble.emitted(assemble.Program(names)), machine)
    return machine.emit_assembly(module)
