"""A program of tasks that end in every way in which a task can, for tests of the unikernel and of the Linux program."""

from __future__ import annotations

PROGRAM = """
from swiftlet.unikernel import service, task

@task
def add(a: int, b: int) -> int:
    return a + b

@task
def divide(a: int, b: int) -> float:
    return a / b

@task
def odd(n: int) -> bool:
    return n % 2 == 1

@task
def depth(n: int) -> int:
    return 0 if n == 0 else depth(n - 1) + 1

@task
def refuses(n: int) -> int:
    if n > 3:
        raise ValueError("too large")
    return n

@task
def forever(n: int) -> int:
    while n != 0:  # of a prime's remainders none is
        n = n * 2 % 1000003
    return n

app = service(add, divide, odd, depth, refuses, forever)
"""


LOCALS = 300
"""Of the rare path in `LARGE_FRAMES`: together more than a page."""


def _large_frames() -> str:
    """A task with a frame larger than a page, most of which its usual path never touches."""
    lines = [f"        b{each} = x * {each + 3} + x // {each + 7}" for each in range(LOCALS)]
    lines += [f"        s = s * 31 + b{each}" for each in reversed(range(LOCALS))]
    body = "\n".join(lines)
    return f"""
from swiftlet.unikernel import service, task

@task
def frames(n: int, rare: int, x: int) -> int:
    if n == 0:
        return 0
    s = 0
    if n == rare:
{body}
    return s + 1 + frames(n - 1, rare, x)
"""


LARGE_FRAMES = _large_frames()
