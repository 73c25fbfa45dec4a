"""Signals that come to a foreground command: handed on to the guest once there is one.

A container's first process gets them itself; a machine's is QEMU, and who runs in it is told by the daemon.

`_signal` is what `signal` wraps; the enums around it would cost 3 ms of every start.
"""

from __future__ import annotations

import time

from swiftlet.model.error import SwiftletError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any
else:
    import _signal as signal

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

INSIST_COUNT = 3
INSIST_SECONDS = 2.0
"""That many Ctrl-C in that time leave a guest which does not answer them; it goes on running."""


class Interrupted(KeyboardInterrupt):
    """A signal came while there was no guest to hand it to, or the user insists."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = int(number)


class Forwarding:
    """While entered, `FORWARDED` go to `pidfd`; without one they raise Interrupted in the main thread.

    send: hands them on in another way, where it is set. Raises SwiftletError.
    """

    def __init__(self) -> None:
        self.pidfd = -1
        self.send: Callable[[int], None] | None = None
        self.resized: Callable[[], None] | None = None
        self._saved: list[tuple[int, Any]] = []
        self._interrupts: list[float] = []

    def __enter__(self) -> Forwarding:
        for number in FORWARDED:
            self._saved.append((number, signal.signal(number, self._forward)))
        self._saved.append((signal.SIGWINCH, signal.signal(signal.SIGWINCH, self._resize)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._saved:
            signal.signal(number, handler)
        self._saved = []

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self.pidfd < 0:
            raise Interrupted(number)
        try:
            if self.send:
                self.send(number)
            else:
                signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return
        except SwiftletError:  # no daemon just now, or the guest has ended
            pass
        if number == signal.SIGINT and self._insists():
            raise Interrupted(number)

    def _insists(self) -> bool:
        now = time.monotonic()
        self._interrupts = [when for when in self._interrupts if now - when < INSIST_SECONDS] + [now]
        return len(self._interrupts) >= INSIST_COUNT

    def _resize(self, number: int, frame: FrameType | None) -> None:
        if self.resized:
            self.resized()
