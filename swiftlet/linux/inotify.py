"""inotify(7), as far as one follows files that grow. Raises OSError."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_IN_MODIFY = 2
_IN_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_EVENT = struct.Struct("iIII")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def open_queue() -> int:
    """A queue of events: close-on-exec, non-blocking."""
    return _checked(_libc.inotify_init1(_IN_CLOEXEC_NONBLOCK))


def watch_writes(queue: int, fd: int) -> int:
    """Have every write to an open file told; the number by which its events name it."""
    return _checked(_libc.inotify_add_watch(queue, f"/proc/self/fd/{fd}".encode(), _IN_MODIFY))


def unwatch(queue: int, watch: int) -> None:
    """Have no more told of a file; one that has gone is no error."""
    _libc.inotify_rm_watch(queue, watch)


def events(queue: int) -> Iterator[int]:
    """The files that have been written to since this was asked last, as `watch_writes` numbered them."""
    try:
        data = os.read(queue, 1 << 16)
    except BlockingIOError:
        return
    place = 0
    while place < len(data):
        number, _, _, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size + length
        yield number


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "inotify")
    return result
