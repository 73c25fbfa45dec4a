"""numpy's reductions and shapes in tasks: what they are under CPython."""

from __future__ import annotations

import numpy as np
import pytest

from swiftlet.unikernel import build_linux
from tests.unit.test_unikernel_linux import Service, written

TASKS = """
import numpy as np
from swiftlet.unikernel import float64, int64, service, task

@task
def largest(a: float64[:, :]) -> float:
    return a.max() - a[:, 1:].min() + np.max(a[0])

@task
def turned(a: float64[:, :]) -> float64[:]:
    return a.T.copy().reshape(a.size)

@task
def halves(a: int64[:]) -> int64[:, :]:
    return a.reshape((2, a.size // 2))

@task
def middle(a: float64[:]) -> float:
    return np.median(a)

app = service(largest, turned, halves, middle)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    (folder / "tasks.py").write_text(TASKS)
    program = written(folder, build_linux.build(str(folder / "tasks.py")).image)
    with Service(program, "--threads") as service, service.client() as made:
        yield made


def test_reductions_and_shapes_are_numpys(client):
    moments = np.random.default_rng(4)
    for rows, columns in ((1, 2), (3, 4), (7, 2)):
        a = moments.random((rows, columns))
        assert client.call("largest", a) == a.max() - a[:, 1:].min() + np.max(a[0])
        assert client.call("turned", a).tolist() == a.T.copy().reshape(a.size).tolist()
    numbers = moments.integers(-99, 99, 12)
    assert client.call("halves", numbers).tolist() == numbers.reshape((2, 6)).tolist()
    assert client.call("middle", moments.random(5) * 0 + 2.5) == 2.5


def test_a_shape_that_does_not_fit_is_numpys_error(client):
    with pytest.raises(ValueError, match="total size of new array must be unchanged"):
        client.call("halves", [1, 2, 3])
