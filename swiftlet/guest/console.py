"""What a machine's kernel and QEMU say: the last of it is kept, for a guest could fill the host's disk with it."""

from __future__ import annotations

import os

MOST = 1 << 20
"""Bytes at which a console is cut."""

KEPT = 256 << 10
"""Bytes of its end that stay then: more than a kernel says when it starts, unless it is asked to say everything."""


def cut(fd: int) -> bool:
    """Cut a console that has grown too long to its end, and say whether it was. fd: read, write and append.

    What is said in this very moment may be lost. Whoever writes does so by appending, so goes on at the new end.
    """
    size = os.fstat(fd).st_size
    if size <= MOST:
        return False
    kept = os.pread(fd, KEPT, size - KEPT)
    os.ftruncate(fd, 0)
    os.write(fd, kept[kept.find(b"\n") + 1 :])
    return True
