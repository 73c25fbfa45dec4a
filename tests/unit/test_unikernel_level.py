"""Levels of x86-64: tasks use what their level has, and a program of Linux looks first whether the processor has it."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from swiftlet.model.error import InputError, KernelError
from swiftlet.unikernel import level
from swiftlet.unikernel.level import FEATURES, LEVELS

pytestmark = pytest.mark.slow  # its program takes the compiler that long

TREE = Path(__file__).resolve().parents[2]

PROGRAM = """
from swiftlet.unikernel import float64, service, task

@task
def scaled(values: float64[:], by: float) -> float64[:]:
    result = values * 0.0
    for i in range(len(values)):
        result[i] = values[i] * by + 1.0
    return result

app = service(scaled)
"""

MAKE = """
import sys
from swiftlet.unikernel import build_linux, level
level.choose(sys.argv[2])
from swiftlet.unikernel import compile as tasks
plain = tasks.optimised
def spied(code, machine, level=2):
    with open(sys.argv[3] + ".s", "w") as file:
        file.write(machine.emit_assembly(plain(code, machine, level)))
    return plain(code, machine, level)
tasks.optimised = spied
with open(sys.argv[3], "wb") as file:
    file.write(build_linux.build(sys.argv[1], level=sys.argv[2]).image)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """For each level an executable, with its tasks' assembly beside it."""
    folder = tmp_path_factory.mktemp("levels")
    (folder / "program.py").write_text(PROGRAM)
    for each in LEVELS:
        command = [sys.executable, "-c", MAKE, folder / "program.py", each, folder / each]
        subprocess.run(command, cwd=TREE, check=True)
        (folder / each).chmod(0o755)
    return folder


def test_tasks_are_compiled_for_their_level_and_nothing_is_fused(programs):
    """A product that is not rounded before it is added to is another number than CPython's."""
    text = {each: (programs / f"{each}.s").read_text() for each in LEVELS}
    assert "%ymm" not in text["v2"] and "%zmm" not in text["v2"]
    assert "%ymm" in text["v3"] and "%zmm" not in text["v3"] and "%k1" not in text["v3"]
    assert "%ymm" in text["v4"] or "%zmm" in text["v4"]
    assert not any("vfmadd" in each for each in text.values())


SHOWN = {"cx16": "cx16", "lahf": "lahf_lm", "sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "lzcnt": "abm"}
"""What Linux calls a feature that it has another name for."""


def here() -> set[str]:
    """What this processor has, as Linux says it."""
    text = Path("/proc/cpuinfo").read_text()
    flags = next(each for each in text.splitlines() if each.startswith("flags")).split()
    return {each.name for each in FEATURES if SHOWN.get(each.name, each.name) in flags}


@pytest.mark.parametrize("wanted", LEVELS)
def test_a_program_starts_where_linux_says_that_the_processor_has_it_all(programs, wanted):
    missing = [each.name for each in FEATURES if each.level <= int(wanted[1:]) and each.name not in here()]
    said, told, code = begun(programs / wanted)
    if missing:
        assert code == 1 and told.startswith(f"swiftlet: this image needs {', '.join(missing)}, which")
    else:
        assert said.startswith("ready on")


def begun(program: Path) -> tuple[str, str, int]:
    """The first line that a program says, what it complains of, and its exit code; 0 where it goes on."""
    command = [program, "--address", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    if said:
        process.terminate()
    _, told = process.communicate(timeout=10)
    return said, told, process.returncode


NOWHERE = 0x7FFFFFFF
"""A leaf of cpuid that no processor has."""


def lacking(image: bytes, *names: str) -> bytes:
    """An image whose table asks for what there is not, instead of these."""
    changed = bytearray(image)
    for each in (one for one in FEATURES if one.name in names):
        entry = struct.pack("<5Q16s", each.leaf, each.register, each.bit, each.state, each.level, each.name.encode())
        assert image.count(entry) == 1
        changed[image.index(entry) : image.index(entry) + 8] = struct.pack("<Q", NOWHERE)
    return bytes(changed)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["avx2", "movbe"], "; build it with --cpu-level v2"),
        (["fma"], "; build it with --cpu-level v2"),
        (["popcnt", "sse4.2", "avx"], ""),
    ],
)
def test_what_is_missing_is_told_exactly_and_ends_the_program(programs, tmp_path, names, hint):
    if not here() >= {each.name for each in FEATURES if each.level <= 3}:
        pytest.skip("this processor lacks other things too")
    (tmp_path / "lacking").write_bytes(lacking((programs / "v3").read_bytes(), *names))
    (tmp_path / "lacking").chmod(0o755)
    said, told, code = begun(tmp_path / "lacking")
    assert (said, code) == ("", 1)
    assert told == f"swiftlet: this image needs {', '.join(names)}, which this processor lacks{hint}\n"


def test_there_are_three_levels_and_a_process_compiles_for_one():
    with pytest.raises(InputError, match="no level of x86-64: 'v5'"):
        level.choose("v5")
    level.choose(level.chosen() or level.DEFAULT)
    other = next(each for each in LEVELS if each != level.chosen())
    with pytest.raises(KernelError, match="already"):
        level.choose(other)
