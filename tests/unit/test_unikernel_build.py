"""Programs of tasks as images: built without the host's compilers, described, and refused with file and line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from swiftlet.model.error import InputError, KernelError
from swiftlet.unikernel import elf, link
from swiftlet.unikernel.build import build
from swiftlet.unikernel.metal.assemble import assembled

TREE = Path(__file__).resolve().parents[2]
PRIMES = f"{TREE}/examples/unikernel/primes.py"


@pytest.fixture(scope="module")
def primes():
    return build(PRIMES)


def segments(image):
    return [each for each in ELFFile(io.BytesIO(image)).iter_segments() if each["p_type"] == "PT_LOAD"]


def test_an_image_has_no_page_that_is_writable_and_executable(primes):
    flags = [each["p_flags"] for each in segments(primes.image)]
    assert flags and not any(each & 1 and each & 2 for each in flags)
    pages = [each["p_vaddr"] // 4096 for each in segments(primes.image)]
    assert len(set(pages)) == len(pages), "and none that is shared by two kinds"


def test_an_image_is_small_and_says_what_it_serves(primes):
    assert len(primes.image) < 64 << 10
    assert [str(each) for each in primes.signatures] == ["count_primes(limit: int) -> int"]
    assert b'"name":"count_primes"' in primes.image
    names = {each.name for each in primes.functions}
    assert {"pvh_entry", "task_0", "kmain", "trap"} <= names


def test_the_same_program_makes_the_same_image(primes):
    assert build(PRIMES).image == primes.image


def test_neither_a_compiler_nor_a_linker_is_needed(tmp_path):
    """As a user's first build: a new process, whose PATH has nothing at all."""
    code = (
        "import shutil, sys; from swiftlet.unikernel.build import build;"
        "assert not any(shutil.which(name) for name in ('gcc', 'cc', 'ld', 'as', 'clang'));"
        "print(len(build(sys.argv[1]).image))"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(TREE)}
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, PRIMES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 10
    assert time.monotonic() - begin < 20, "seconds: measured by the bench; here nothing may hang"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("@task\ndef f(n) -> int:\n    return 1\napp = service(f)\n", "program.py:2: f: its argument n has no type"),
        ("@task\ndef f(n: int):\n    return 1\napp = service(f)\n", "program.py:2: f: its result has no type"),
        ("@task\ndef f(n: dict) -> int:\n    return 1\napp = service(f)\n", "its argument n has no type that a task"),
        ("@task\ndef f(n: int) -> int:\n    return 1\n", "0 services"),
        ("def f(n: int) -> int:\n    return 1\napp = service(f)\n", "f is not marked with @task"),
        (
            "@task\ndef f(n: int) -> int:\n    print(n)\n    return 1\napp = service(f)\n",
            "program.py:4: f: print: a task has",
        ),
        (
            "@task\ndef f(n: int) -> int:\n    return len({1: 2})\napp = service(f)\n",
            "program.py:4: f: a task has no dicts",
        ),
        (
            "@task\ndef f(n: int) -> int:\n    raise ValueError(n)\napp = service(f)\n",
            "program.py:4: f: what a task raises",
        ),
        ("@task\ndef f(n: int = 3) -> int:\n    return n\napp = service(f)\n", "program.py:3: f: a task has plain"),
        ("app = service(\n", "program.py:2"),
        ("raise RuntimeError('no')\n", "RuntimeError: no"),
        ("@task\ndef f(n: int) -> int:\n    return n.foo\napp = service(f)\n", "program.py:4"),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_file_and_line(tmp_path, text, complaint):
    (tmp_path / "program.py").write_text(f"from swiftlet.unikernel import service, task\n{text}")
    with pytest.raises(InputError) as told:
        build(str(tmp_path / "program.py"))
    assert complaint in str(told.value)


def test_the_linker_refuses_what_nobody_defines_and_what_two_define():
    one = elf.parse(assembled(".text\n.globl start\nstart: call missing\n"), "one")
    with pytest.raises(KernelError, match="nothing defines missing"):
        link.linked([one], "start")
    two = elf.parse(assembled(".text\n.globl missing, start\nmissing: ret\nstart: ret\n"), "two")
    with pytest.raises(KernelError, match="two defines start once more"):
        link.linked([one, two], "start")


def test_the_linker_fills_in_addresses():
    one = elf.parse(assembled(".text\n.globl start\nstart: call there\n.data\n.quad there + 8\n.long there\n"), "one")
    two = elf.parse(assembled(".text\n.globl there\n.balign 64\nthere: ret\n"), "two")
    image = link.linked([one, two], "start")
    where = {each["p_flags"]: each for each in segments(image.data)}
    there = link.BASE + 64
    assert where[5].data()[1:5] == (64 - 5).to_bytes(4, "little")
    assert where[6].data()[:12] == (there + 8).to_bytes(8, "little") + there.to_bytes(4, "little")


@pytest.mark.parametrize("length", [0, 10, 63, 64, 200])
def test_an_object_that_is_cut_short_is_refused(length):
    whole = assembled(".text\n.globl start\nstart: ret\n")
    from swiftlet.model.error import BadElfError

    with pytest.raises(BadElfError):
        elf.parse(whole[:length], "cut")
