"""A program of tasks that end in every way in which a task can, for tests of the unikernel and of the Linux program."""

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
