"""The user's terminal while a guest has it: raw mode and back, the window's size, the keys that detach."""

from __future__ import annotations

import os
import termios
from fcntl import ioctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

DETACH_KEYS = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as with docker and podman."""


class RawMode:
    """A terminal that hands on every key. Leaving restores it, whatever happened; `fd` None does nothing."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd

    def __enter__(self) -> None:
        if self.fd is None:
            return
        self._saved = termios.tcgetattr(self.fd)
        termios.tcsetattr(self.fd, termios.TCSANOW, _raw(self._saved))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.fd is None:
            return
        try:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)
        except termios.error:
            pass  # the terminal itself is gone


def _raw(attributes: list[Any]) -> list[Any]:
    """What cfmakeraw(3) does."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, control = attributes
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    control = list(control)
    control[termios.VMIN], control[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, control]


def copy_size(source: int, target: int) -> None:
    """Give one terminal the window size of another; the kernel sends SIGWINCH to who runs there."""
    try:
        size = ioctl(source, termios.TIOCGWINSZ, bytes(8))
        if any(size[:4]):
            ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        pass  # one of the two is no terminal, or has just gone


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is open on a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


class DetachKeys:
    """Watches typed bytes for the detach keys; the first of the two is held back until the next byte comes."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(the bytes to hand on, whether the keys were pressed; what follows them is dropped)."""
        data = self._held + data
        at = data.find(DETACH_KEYS)
        if at >= 0:
            self._held = b""
            return data[:at], True
        self._held = DETACH_KEYS[:1] if data.endswith(DETACH_KEYS[:1]) else b""
        return (data[: -len(self._held)] if self._held else data), False
