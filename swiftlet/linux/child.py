"""Child processes that end with the one that started them, however that ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from swiftlet.linux import syscall


def leash() -> Callable[[], None]:
    """For subprocess's `preexec_fn`: SIGKILL for the child when this process, or the thread that starts it, has gone.

    PR_SET_PDEATHSIG of prctl(2). What the child starts itself is its own business.
    """
    parent = os.getpid()

    def hold() -> None:
        syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)  # it had gone before

    return hold
