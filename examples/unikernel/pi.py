"""Estimates pi by throwing darts, as many tasks at a time as there are processors.

swiftlet run -d --name pi --as unikernel pi.py --cpus 4 -p 7003:7000/udp
swiftlet unikernel call localhost:7003 darts 1 100000
"""

import numpy as np

from swiftlet.unikernel import service, task


@task
def darts(seed: int, throws: int) -> float:
    """An estimate by so many throws; the same seed makes the same throws everywhere."""
    if throws < 1:
        raise ValueError("at least one throw")
    np.random.seed(seed)
    inside = 0
    for _ in range(throws):
        x = np.random.random()
        y = np.random.random()
        if x * x + y * y < 1.0:
            inside += 1
    return 4.0 * inside / throws


app = service(darts)

if __name__ == "__main__":
    print(darts(1, 100000))
