"""What numba asks when an array is to have another shape: whether its items may stay where they are.

They may where they lie one behind the other; else numba copies them. Reductions ask it too.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import export, i64, many, u64


@export
def numba_attempt_nocopy_reshape(
    nd: i64, dims: u64, strides: u64, newnd: i64, newdims: u64, newstrides: u64, itemsize: i64, is_f_order: i64
) -> i64:
    """1, with the strides written, or 0."""
    old = many(i64, dims)
    steps = many(i64, strides)
    new = many(i64, newdims)
    found = many(i64, newstrides)
    count = newnd
    expected = itemsize
    place = nd
    while place > 0:  # in C's order without gaps, but for dimensions of one
        place -= 1
        if old[place] != 1:
            if steps[place] != expected:
                return 0
            expected = expected * old[place]
    step = itemsize
    while count > 0:
        count -= 1
        found[count] = step
        step = step * new[count]
    return 1
