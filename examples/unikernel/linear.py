"""Solves linear equations by Gauss-Jordan elimination, with arrays in and out.

swiftlet run -d --name linear --as unikernel linear.py -m 64M -p 7002:7000/udp
swiftlet unikernel call localhost:7002 solve '[[2, 1, 5], [1, 3, 10]]'
"""

from swiftlet.unikernel import float64, service, task


@task
def solve(equations: float64[:, :]) -> float64[:]:
    """equations: n rows of n coefficients and the right-hand side."""
    n = equations.shape[0]
    if equations.shape[1] != n + 1:
        raise ValueError("n equations have n + 1 columns")
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(equations[i, k]) > abs(equations[pivot, k]):
                pivot = i
        if equations[pivot, k] == 0.0:
            raise ValueError("the equations have no single solution")
        for j in range(n + 1):
            equations[k, j], equations[pivot, j] = equations[pivot, j], equations[k, j]
        divisor = equations[k, k]
        for j in range(n + 1):
            equations[k, j] /= divisor
        for i in range(n):
            if i != k:
                factor = equations[i, k]
                for j in range(n + 1):
                    equations[i, j] -= factor * equations[k, j]
    return equations[:, n].copy()


app = service(solve)

if __name__ == "__main__":
    import numpy

    print(solve(numpy.array([[2.0, 1.0, 5.0], [1.0, 3.0, 10.0]])))
