"""The algorithms of the gate are right: their inputs are those of the paper's appendix B, their results are proved.

Nothing here is the C program's own way: flows are found by shortest augmenting paths and proved by a cut, systems are
solved by LU with other pivots and proved by their residuals, linear programs are proved optimal by their dual.
"""

from __future__ import annotations

import math
from collections import deque

import pytest

from tests.checking import inputs_of, values_of

INSTANCES = 10
VERTICES = 100
SIZE = 100
ROWS, COLUMNS = 50, 30
TOLERANCE = 1e-8


def parts(values: list[float], count: int) -> list[list[float]]:
    """One list for each instance."""
    assert len(values) == INSTANCES * count
    return [values[at : at + count] for at in range(0, len(values), count)]


def capacities(network):
    """vertex -> {neighbour: capacity}, without the edges that are not there."""
    flat = network["capacity"]
    assert len(flat) == VERTICES * VERTICES
    rows = [flat[at : at + VERTICES] for at in range(0, len(flat), VERTICES)]
    return [{to: capacity for to, capacity in enumerate(row) if capacity >= 0} for row in rows]


def augmenting_flow(edges, source, sink):
    """Edmonds and Karp's."""
    residual = [{to: capacity for to, capacity in row.items() if capacity} for row in edges]
    total = 0
    while True:
        before = {source: source}
        queue = deque([source])
        while queue and sink not in before:
            vertex = queue.popleft()
            for to, capacity in residual[vertex].items():
                if capacity > 0 and to not in before:
                    before[to] = vertex
                    queue.append(to)
        if sink not in before:
            return total
        path, at = [], sink
        while at != source:
            path.append((before[at], at))
            at = before[at]
        least = min(residual[one][other] for one, other in path)
        for one, other in path:
            residual[one][other] -= least
            residual[other][one] = residual[other].get(one, 0) + least
        total += least


def test_the_networks_are_those_of_appendix_b():
    networks = inputs_of("algorithms.max_flow")
    assert len(networks) == INSTANCES
    counts, all_capacities = [], []
    for network in networks:
        edges = capacities(network)
        assert network["source"] != network["sink"]
        assert all(vertex not in row for vertex, row in enumerate(edges))
        counts.append(sum(len(row) for row in edges))
        all_capacities += [capacity for row in edges for capacity in row.values()]
    expected = VERTICES * (VERTICES - 1) * 0.1
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts)
    assert set(all_capacities) == set(range(11))
    assert max(all_capacities.count(each) for each in range(11)) < 1.2 * len(all_capacities) / 11
    assert len({str(network) for network in networks}) == INSTANCES


def test_every_flow_is_what_augmenting_paths_find_and_what_its_cut_allows():
    values = values_of("algorithms.max_flow")
    sides = parts(values["source_side"], VERTICES)
    for network, flow, side in zip(inputs_of("algorithms.max_flow"), values["flow"], sides, strict=True):
        edges = capacities(network)
        assert flow == augmenting_flow(edges, network["source"], network["sink"]) > 0
        assert side[network["source"]] == 1 and side[network["sink"]] == 0
        cut = sum(capacity for one, row in enumerate(edges) for to, capacity in row.items() if side[one] > side[to])
        assert flow == cut


def lu_solve(matrix, columns):
    """Solve for several right sides, with the largest entry of each row, scaled, as the pivot."""
    rows = [list(row) + [column[at] for column in columns] for at, row in enumerate(matrix)]
    size, width = len(matrix), len(matrix) + len(columns)
    scale = [max(map(abs, row[:size])) for row in rows]
    for at in range(size):
        best = max(range(at, size), key=lambda row: abs(rows[row][at]) / scale[row])
        rows[at], rows[best], scale[at], scale[best] = rows[best], rows[at], scale[best], scale[at]
        pivots = rows[at]
        for row in rows[at + 1 :]:
            factor = row[at] / pivots[at]
            if factor:
                row[at:width] = [one - factor * other for one, other in zip(row[at:], pivots[at:], strict=True)]
    found = [[0.0] * size for _ in columns]
    for number, solution in enumerate(found):
        for at in reversed(range(size)):
            known = math.fsum(rows[at][each] * solution[each] for each in range(at + 1, size))
            solution[at] = (rows[at][size + number] - known) / rows[at][at]
    return found


@pytest.fixture(scope="module")
def systems():
    found = []
    for system in inputs_of("algorithms.elimination"):
        assert len(system["matrix"]) == SIZE * SIZE and len(system["vector"]) == SIZE
        matrix = [system["matrix"][at : at + SIZE] for at in range(0, SIZE * SIZE, SIZE)]
        found.append((matrix, system["vector"]))
    return found


def test_the_systems_are_those_of_appendix_b(systems):
    assert len(systems) == INSTANCES
    numbers = [number for matrix, vector in systems for row in (*matrix, vector) for number in row]
    assert 0 <= min(numbers) < 0.001 and 0.999 < max(numbers) <= 1
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.01
    assert len(set(numbers)) == len(numbers)


def test_every_solution_solves_its_system_and_is_what_another_method_finds(systems):
    solutions = parts(values_of("algorithms.elimination")["solution"], SIZE)
    for (matrix, vector), solution in zip(systems, solutions, strict=True):
        for row, wanted in zip(matrix, vector, strict=True):
            assert abs(math.fsum(a * x for a, x in zip(row, solution, strict=True)) - wanted) < TOLERANCE
        (other,) = lu_solve(matrix, [vector])
        assert max(abs(one - two) for one, two in zip(solution, other, strict=True)) < TOLERANCE


def test_the_inverses_have_the_diagonals_that_another_method_finds(systems):
    diagonals = parts(values_of("algorithms.elimination")["inverse_diagonal"], SIZE)
    matrix, _ = systems[0]
    some = range(0, SIZE, 7)
    units = [[float(row == column) for row in range(SIZE)] for column in some]
    for column, solution in zip(some, lu_solve(matrix, units), strict=True):
        assert abs(solution[column] - diagonals[0][column]) < TOLERANCE


@pytest.fixture(scope="module")
def programs():
    found = []
    for program in inputs_of("algorithms.simplex"):
        assert len(program["a"]) == ROWS * COLUMNS and len(program["b"]) == ROWS and len(program["c"]) == COLUMNS
        a = [program["a"][at : at + COLUMNS] for at in range(0, ROWS * COLUMNS, COLUMNS)]
        found.append((a, program["b"], program["c"]))
    return found


def test_the_linear_programs_are_those_of_appendix_b(programs):
    assert len(programs) == INSTANCES
    numbers = [number for a, b, c in programs for row in (*a, b, c) for number in row]
    assert min(numbers) >= 0 and max(numbers) <= 1 and abs(sum(numbers) / len(numbers) - 0.5) < 0.01


def test_every_optimum_is_allowed_and_its_prices_prove_that_nothing_better_is(programs):
    """Weak duality: c x <= b y for all x and y that are allowed, so where both are equal both are optimal."""
    values = values_of("algorithms.simplex")
    solutions, prices = parts(values["x"], COLUMNS), parts(values["price"], ROWS)
    for (a, b, c), x, y, optimum in zip(programs, solutions, prices, values["optimum"], strict=True):
        assert min(x) >= -TOLERANCE and min(y) >= -TOLERANCE
        for row, limit in zip(a, b, strict=True):
            assert math.fsum(each * value for each, value in zip(row, x, strict=True)) <= limit + TOLERANCE
        for column in range(COLUMNS):
            assert math.fsum(a[row][column] * y[row] for row in range(ROWS)) >= c[column] - TOLERANCE
        assert abs(math.fsum(map(float.__mul__, c, map(float, x))) - optimum) < TOLERANCE
        assert abs(math.fsum(map(float.__mul__, b, map(float, y))) - optimum) < TOLERANCE
        assert optimum > 0
