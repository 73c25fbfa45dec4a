"""Counts the ways to place n queens, one task for each place of the first queen.

swiftlet run -d --name queens --as unikernel queens.py --cpus 4 -p 7001:7000/udp
swiftlet unikernel call localhost:7001 queens 10
"""

import sys

from swiftlet.unikernel import service, task


@task
def place(full: int, columns: int, left: int, right: int) -> int:
    """Ways to fill the rows that are left. A bit is a column, or a diagonal where it meets this row."""
    if columns == full:
        return 1
    found = 0
    free = full & ~(columns | left | right)
    while free:
        queen = free & -free
        free ^= queen
        found += place(full, columns | queen, (left | queen) << 1, (right | queen) >> 1)
    return found


@task
def queens(n: int) -> int:
    """All ways."""
    if n < 1 or n > 16:
        raise ValueError("from 1 to 16 queens")
    return place((1 << n) - 1, 0, 0, 0)


@task
def queens_with(n: int, first: int) -> int:
    """Ways in which the first row's queen stands in column `first`: a part of the whole."""
    if n < 1 or n > 16 or first < 0 or first >= n:
        raise ValueError("from 1 to 16 queens, the first of them on the board")
    queen = 1 << first
    return place((1 << n) - 1, queen, queen << 1, queen >> 1)


app = service(queens, queens_with)

if __name__ == "__main__":
    print(queens(int(sys.argv[1]) if len(sys.argv) > 1 else 8))
