"""What a pidfd tells about a process that is not our child: whether it lives and how it ended.

Signals are sent by `signal.pidfd_send_signal`; polling is left to the caller (POLLIN: it has ended).
"""

from __future__ import annotations

import select
from fcntl import ioctl

_GET_INFO = 0xC040FF0B
"""PIDFD_GET_INFO with the 64-byte struct pidfd_info of Linux 6.13 (include/uapi/linux/pidfd.h)."""

_INFO_EXIT = 1 << 3
"""PIDFD_INFO_EXIT, Linux 6.15."""


def has_ended(pidfd: int, timeout: float = 0.0) -> bool:
    """Whether the process has ended, waiting `timeout` seconds for it at most."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def exit_status(pidfd: int) -> int | None:
    """The wait status (as of `os.wait`) of a process that has ended and was reaped by its parent.

    None while it lives or is not reaped, and on kernels older than 6.15, which do not say.
    """
    info = bytearray(64)
    info[:8] = _INFO_EXIT.to_bytes(8, "little")
    try:
        ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    if not int.from_bytes(info[:8], "little") & _INFO_EXIT:
        return None
    return int.from_bytes(info[60:64], "little", signed=True)
