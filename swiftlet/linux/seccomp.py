"""Loading a compiled system call filter. `seccomp_compiler` makes it, elsewhere and earlier: the launcher imports this.

See seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import struct

from swiftlet.linux.syscall import call

_SYS_SECCOMP, _SET_MODE_FILTER = 317, 1


class Filter:
    """A compiled program held ready, so that loading it in a new process is one system call and no more."""

    def __init__(self, program: bytes) -> None:
        if not program or len(program) % 8:
            raise OSError(errno.EINVAL, f"{len(program)} bytes are no whole instructions", "seccomp program")
        self._program = bytearray(program)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._program))
        self._description = bytearray(struct.pack("<HxxxxxxQ", len(program) // 8, place))
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._description)))

    def load(self) -> None:
        """Bind this thread, its children and what they execute to the program, for good.

        Raises OSError: EACCES without no_new_privs (and without CAP_SYS_ADMIN), EINVAL for a program that the
        kernel does not take or a kernel without seccomp.
        """
        call(_SYS_SECCOMP, _SET_MODE_FILTER, 0, self._address, about="seccomp program")


def load(program: bytes) -> None:
    """`Filter.load` of a program that was not held ready."""
    Filter(program).load()
