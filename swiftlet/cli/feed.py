"""Our standard input on its way to a guest: handed over where it is a pipe without a name, else copied.

A guest never gets a descriptor of a file, FIFO, folder or terminal of this host: through /proc/self/fd/0 its root
could open the file for writing, make the FIFO its own, climb out of the folder, or go on reading what is typed after
we have left.
"""

from __future__ import annotations

import os
import select
import stat

from swiftlet.linux.pipe import is_anonymous
from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from swiftlet.cli.terminal import DetachKeys

CHUNK = 65536


def open_input() -> tuple[int, int]:
    """(the descriptor that the guest may have, the end of it that we fill or -1). Raises InputError."""
    if is_anonymous(0):
        return 0, -1
    if stat.S_ISDIR(os.fstat(0).st_mode):
        raise InputError("standard input is a folder")
    return os.pipe()


class Feed:
    """Copies our standard input to a non-blocking `target` as a poll loop tells it to.

    What the target does not take yet is kept, and no more is read until it does. awaited: the events that the
    loop waits for on the target anyway. owned: the target is closed at the end of our input.
    """

    def __init__(
        self, poll: select.poll, target: int, *, awaited: int = 0, owned: bool = False, detach: DetachKeys | None = None
    ) -> None:
        self.target = target
        self.detached = False
        self._poll = poll
        self._awaited = awaited
        self._owned = owned
        self._detach = detach
        self._pending = bytearray()
        self._reading = True
        os.set_blocking(target, False)
        poll.register(0, select.POLLIN)
        poll.register(target, awaited)

    def read(self) -> None:
        """Our standard input has something, or has ended."""
        try:
            data = os.read(0, CHUNK)
        except OSError:  # the terminal has gone
            data = b""
        if not data:
            self._stop_reading()
        elif self._detach:
            data, self.detached = self._detach.feed(data)
        self._pending += data
        self.send()

    def send(self) -> None:
        """The target may take more."""
        try:
            while self._pending:
                del self._pending[: os.write(self.target, self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            self.drop()
            return
        self._poll.register(self.target, self._awaited | (select.POLLOUT if self._pending else 0))
        if self._reading:
            self._poll.register(0, 0 if self._pending else select.POLLIN)
        elif not self._pending and self._owned:
            self.drop()

    def drop(self) -> None:
        """Nobody reads the target any more, or there is no more to be read."""
        self._stop_reading()
        self._pending.clear()
        if self.target >= 0 and not self._awaited:
            self._poll.unregister(self.target)
        if self.target >= 0 and self._owned:
            os.close(self.target)
        self.target = -1

    def _stop_reading(self) -> None:
        if self._reading:
            self._poll.unregister(0)
            self._reading = False
