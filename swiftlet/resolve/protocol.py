"""What the resolver needs from others, as protocols: the store's objects, its records, progress, a sandbox.

Layer rule: `resolve` may use `store`, but a sandbox comes from above and is handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from swiftlet.model.closure import Closure, Entry


class Stored(Protocol):
    """What became of a put. reused: the store had these bytes already."""

    @property
    def digest(self) -> str:
        """SHA-256, hex."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def reused(self) -> bool:
        """Whether nothing had to be written."""


class Objects(Protocol):
    """Files by content; one that is executable is another object than the same bytes which are not."""

    def put(
        self, source_fd: int, *, offset: int = 0, size: int | None = None, executable: bool = False, expected: str = ""
    ) -> Stored:
        """Keep `size` bytes of a descriptor from `offset`. Raises CorruptError when their digest is not `expected`."""

    def put_bytes(self, data: bytes, *, executable: bool = False) -> Stored:
        """Keep these bytes."""

    def has(self, digest: str, executable: bool = False) -> bool:
        """Whether the object is there."""

    def open(self, digest: str, executable: bool = False) -> int:
        """A descriptor for reading; the caller closes it."""

    def path(self, digest: str, executable: bool = False) -> str:
        """Where the object lies."""


class Records(Protocol):
    """Closures by digest, and by name what a template resolved to last."""

    def save_closure(self, closure: Closure) -> None:
        """Keep a closure."""

    def closure(self, digest: str) -> Closure:
        """Read a closure. Raises NotFoundError, CorruptError."""

    def save_lock(self, name: str, lock: dict[str, Any]) -> None:
        """Keep a lock, and with it every digest that it names."""

    def lock(self, name: str) -> dict[str, Any] | None:
        """The lock that was saved, or None. Raises CorruptError."""


class Progress(Protocol):
    """Told what happens; stage is one of the wire's: fetch, unpack, resolve, generate. total 0 is not known."""

    def __call__(self, stage: str, text: str, done: int, total: int) -> None:
        """`done` of `total`, bytes or files."""


class Sandbox(Protocol):
    """Runs one command over entries and gives back every file below / that it made or changed."""

    def __call__(self, entries: Sequence[Entry], run: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Path -> (mode, content). Raises a SwiftletError when the command fails."""


def no_progress(stage: str, text: str, done: int, total: int) -> None:
    """A Progress that nobody watches."""


EXECUTABLE = 0o555
PLAIN = 0o444


def file_mode(mode: int) -> int:
    """The permission bits that a file keeps: no set-uid, set-gid, sticky or write bit; readable by all."""
    return EXECUTABLE if mode & 0o111 else PLAIN


def is_executable(mode: int) -> bool:
    """Whether a file of this mode lies in the store as an executable object."""
    return bool(mode & 0o111)
