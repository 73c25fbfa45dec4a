"""Which pipes have no name: a FIFO is a file of somebody's folder, with an owner and a mode that can be changed.

Asked without fstatfs, for the command must not wait for ctypes.
"""

from __future__ import annotations

import os
import stat


def is_anonymous(fd: int) -> bool:
    """Whether it is a pipe made by pipe(2): those lie on a device of the kernel's own, which no mount shows."""
    found = os.fstat(fd)
    if not stat.S_ISFIFO(found.st_mode):
        return False
    ends = os.pipe()
    try:
        return os.fstat(ends[0]).st_dev == found.st_dev
    finally:
        for end in ends:
            os.close(end)
