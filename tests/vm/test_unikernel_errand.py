"""A call that the command line of an image asks for: without a network; the console is told, and the machine ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.test_unikernel_level import BUILD, TREE, ended

pytestmark = [pytest.mark.timeout(300, func_only=True)]

PROGRAM = """
from swiftlet.unikernel import service, task

@task
def apart(a: int, b: int) -> int:
    if a == b:
        raise ValueError("they are the same")
    return a - b

@task
def half(a: int) -> float:
    return a / 2

@task
def copied(a: bytes) -> bytes:
    return a

@task
def nothing() -> int:
    return 7

app = service(apart, half, copied, nothing)
"""


ODD = (
    "", "x", "3:", "3x", "0x1:5", "0:--5,1", "0:-,1", "0:5x,1", "0:1,", "0:1,,2", "0:,1", "65536", "-1:5",
    "18446744073709551620:5", "0:18446744073709551616,1", "0:9223372036854775808,1", "0:-9223372036854775809,1",
    "3:1,2,3,4,5,6,7,8,9", "3 tasks=", "3 tasks=x", "3 tasks=-1", "3 tasks=4294967296", "3 tasks=18446744073709551618",
)  # fmt: skip
"""What `run=` may not say."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errand")
    (folder / "program.py").write_text(PROGRAM)
    made = subprocess.run(
        [sys.executable, "-c", BUILD, folder / "program.py", "v2"], stdout=subprocess.PIPE, cwd=TREE, check=True
    )
    (folder / "image.elf").write_bytes(made.stdout)
    return folder / "image.elf"


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        ("run=0:5,3", "result 2 failed 0", 0),
        ("run=0:3,5 tasks=6", "result -12 failed 0", 0),
        ("tasks=3 run=0:-9223372036854775808,-9223372036854775807", "result -3 failed 0", 0),
        ("run=0:4,4 tasks=5", "result 0 failed 5", 1),
        ("run=3", "result 7 failed 0", 0),
        ("run=3 tasks=300", "result 2100 failed 0", 0),
        ("run=0:5", "result 0 failed 1", 1),
        ("run=0:5,3,1", "result 0 failed 1", 1),
        ("run=0:1,2,3,4,5,6,7,8", "result 0 failed 1", 1),
        ("run=0:9223372036854775807,-9223372036854775808", "result -1 failed 0", 0),
        *((f"run={each}", "not run: run=TASK:NUMBER,NUMBER tasks=NUMBER it is", 1) for each in ODD),
        ("run=1:5", "not run: its results are no integers, of which there would be a sum", 1),
        ("run=2:5", "not run: its results are no integers, of which there would be a sum", 1),
        ("run=4:1", "not run: there is no such task", 1),
        ("run=65535:1", "not run: there is no such task", 1),
        ("run=3 tasks=0", "not run: no tasks are asked for", 1),
        ("run=3 tasks=99999999", "not run: too large for this machine: give it more memory", 1),
    ],
)
def test_the_console_is_told_and_the_machine_ends(image: Path, words: str, told: str, code: int) -> None:
    said, ended_with = ended(image, "max", "-append", words)
    assert said.splitlines()[-1] == told
    assert ended_with == 2 * code + 1
