"""What a unikernel's tasks take and return, and the memory that they do it in."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from tests.product import Product
from tests.vm.test_unikernel import Service

pytestmark = [pytest.mark.root, pytest.mark.timeout(300, func_only=True)]

ARRAYS = '''
import numpy as np
from typing import NamedTuple
from swiftlet.unikernel import float64, int64, service, task

class Point(NamedTuple):
    x: float
    y: float

@task
def solve(a: float64[:, :]) -> float64[:]:
    """Gauss-Jordan with pivots; the right-hand side is the last column."""
    n = a.shape[0]
    for k in range(n):
        p = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[p, k]):
                p = i
        if a[p, k] == 0.0:
            raise ValueError("the matrix is singular")
        for j in range(n + 1):
            a[k, j], a[p, j] = a[p, j], a[k, j]
        a[k] /= a[k, k]
        for i in range(n):
            if i != k:
                a[i] -= a[i, k] * a[k]
    return a[:, n]

@task
def middle(p: Point, q: tuple[float, float]) -> Point:
    return Point((p.x + q[0]) / 2, (p[1] + q[1]) / 2)

@task
def count(text: bytes, letter: int) -> int:
    n = 0
    for each in text:
        if each == letter:
            n += 1
    return n

@task
def head(text: bytes, n: int) -> bytes:
    return text[:n]

@task
def squares(n: int) -> int64[:]:
    return np.arange(n) ** 2

@task
def hog(n: int) -> int:
    total = 0
    for i in range(n):
        total += len(np.zeros(1000))
    return total

@task
def order(a: int64[:]) -> int64[:]:
    return np.sort(a)

@task
def beyond(a: int64[:], i: int) -> int:
    return a[i]

@task
def grow(n: int) -> int:
    found = [0]
    for i in range(n):
        found.append(i)
    return len(found) + found[-1]

@task
def dice(seed: int, n: int) -> float:
    np.random.seed(seed)
    total = 0.0
    for i in range(n):
        total += np.random.random()
    return total

app = service(solve, middle, count, head, squares, hog, order, beyond, grow, dice)
'''


@pytest.fixture(scope="module")
def arrays(product: Product) -> Iterator[Service]:
    made = Service(product, "arrays", "--cpus", "2", program=ARRAYS)
    yield made
    product.ok("rm", "-f", "arrays")


def test_arrays_tuples_and_bytes_go_in_and_out(arrays: Service) -> None:
    import numpy as np

    moments = np.random.default_rng(3)
    with arrays.client() as client:
        for n in (1, 3, 16, 60):
            a = moments.normal(size=(n, n + 1)) + n * np.eye(n, n + 1)
            assert np.allclose(client.call("solve", a), np.linalg.solve(a[:, :n], a[:, n]), atol=1e-9)
        with pytest.raises(ValueError, match="the matrix is singular"):
            client.call("solve", [[0.0, 1.0]])
        assert client.call("middle", (1.0, 2.0), (3.0, 5.0)) == (2.0, 3.5)
        text = bytes(moments.integers(0, 256, 5000, dtype=np.uint8))
        assert client.call("count", text, text[0]) == text.count(text[0])
        for n in (0, 1, 7, 8, 4999, 6000):
            assert client.call("head", text, n) == text[:n]
        assert (client.call("squares", 9000) == np.arange(9000) ** 2).all(), "a result in many datagrams"
        numbers = moments.integers(-1000, 1000, 9000)
        assert (client.call("order", numbers) == np.sort(numbers)).all()
        assert [len(each) for each in client.run("squares", [7], 64)] == [7] * 64


def test_memory_is_used_again_and_too_much_of_it_is_an_error_of_the_task(arrays: Service) -> None:
    with arrays.client() as client:
        assert client.call("hog", 20000) == 20_000_000, "of 160 MB that were allocated, never much at a time"
        assert client.call("grow", 50_000) == 100_000
        for name, arguments in (("squares", [10**8]), ("squares", [200_000]), ("grow", [10**8])):
            with pytest.raises(MemoryError):
                client.call(name, *arguments)
        assert client.run("grow", [1000], 8) == [2000] * 8
        with pytest.raises(IndexError, match="out of bounds"):
            client.call("beyond", [1, 2, 3], 3)
        assert client.call("beyond", [1, 2, 3], -1) == 3


def test_random_numbers_are_numpys(arrays: Service) -> None:
    import numpy as np

    with arrays.client() as client:
        for seed in (0, 1, 12345):
            expected = np.random.RandomState(seed).random_sample(2000)
            assert client.call("dice", seed, 2000) == pytest.approx(float(sum(expected.tolist())), rel=1e-15)


def test_arguments_that_lie_about_their_length_are_a_type_error(arrays: Service) -> None:
    moments = random.Random(4)
    with arrays.client() as client:
        place, _ = client.find("solve")
        for _ in range(200):
            rows, columns = (moments.choice([-1, 0, 1, 2, 1 << 31, 1 << 61, (1 << 63) - 1]) for _ in range(2))
            data = struct.pack("<2q", rows, columns) + bytes(8 * moments.randrange(4))
            if rows * columns * 8 == len(data) - 16 and rows >= 0 <= columns:
                continue
            (outcome,) = client.outcomes(place, data, 1)
            assert outcome.data.startswith(b"TypeError\0the arguments of solve are cut short"), (rows, columns)
