"""A guest's journal: every change of its state, one JSON line each, in `guests/ID/journal.jsonl`.

Append-only and without fsync: a power cut ends the guest as well. A torn last line (the daemon was killed
while it wrote) is passed over when reading and begun anew when writing. Which changes are legal is
`model.guest`'s table; what they mean is left to `node.guests`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from typing import Any, cast

import msgspec

from swiftlet.model.guest import TRANSITIONS, State, check_transition
from swiftlet.node.names import storage_error

log = logging.getLogger("swiftlet.journal")

FILE = "journal.jsonl"


class Change(msgspec.Struct, frozen=True):
    """One change of state. time_ns: wall clock, nanoseconds since 1970. old: "" when the guest has just come to be."""

    time_ns: int
    old: str
    new: State
    reason: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The change as it is written: {"time_ns", "from", "to", "reason"}."""
        return {"time_ns": self.time_ns, "from": self.old, "to": self.new, "reason": self.reason}


class Journal:
    """The journal of one guest; knows the state that it ended in."""

    def __init__(self, guest: str, folder: str, changes: list[Change] | None = None) -> None:
        self._guest = guest
        self._path = f"{folder}/{FILE}"
        self.changes: list[Change] = changes or []

    @property
    def state(self) -> State:
        """Where the guest is now; "Generating" before its first line is written."""
        return self.changes[-1].new if self.changes else "Generating"

    @property
    def begun_ns(self) -> int:
        """Wall-clock time of the first change, 0 when there is none."""
        return self.changes[0].time_ns if self.changes else 0

    def last(self, state: State) -> Change | None:
        """The latest change into `state`."""
        return next((change for change in reversed(self.changes) if change.new == state), None)

    def enter(self, new: State, reason: str = "") -> Change:
        """Write the change to `new`, which is about to be made, and return it.

        Raises ConflictError when the guest may not go there, FullError or StoreError when the disk refuses; then
        nothing is written.
        """
        change = self._change(new, reason)
        try:
            _append(self._path, json.dumps(change.document).encode() + b"\n")
        except OSError as error:
            raise storage_error(error, self._path) from None
        self.changes.append(change)
        return change

    def note(self, new: State, reason: str = "") -> Change:
        """As `enter`, for what has happened already: where the disk refuses, it is true all the same.

        The next daemon finds it out by itself: from exit.json, the launcher, the folder that is not there.
        """
        change = self._change(new, reason)
        try:
            _append(self._path, json.dumps(change.document).encode() + b"\n")
        except OSError as error:
            log.warning("guest %s is %s, which its journal lacks: %s", self._guest, new, error)
        self.changes.append(change)
        return change

    def _change(self, new: State, reason: str) -> Change:
        if self.changes or new != "Generating":
            check_transition(self._guest, self.state, new)
        return Change(time.time_ns(), self.changes[-1].new if self.changes else "", new, reason)


def _append(path: str, line: bytes) -> None:
    """Add a whole line to a file, or nothing. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(handle).st_size
        if os.write(handle, line) < len(line):
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(handle)


def read_journal(guest: str, folder: str) -> Journal:
    """The journal that lies in a guest's folder; empty when there is none.

    A line that is no change is passed over. A torn last line gets its newline, so that the next one stands alone.
    """
    try:
        with open(f"{folder}/{FILE}", "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return Journal(guest, folder)
    if raw and not raw.endswith(b"\n"):
        with open(f"{folder}/{FILE}", "ab") as file:
            file.write(b"\n")
    changes = [change for line in raw.split(b"\n") if (change := _parse(line)) is not None]
    return Journal(guest, folder, changes)


def _parse(line: bytes) -> Change | None:
    try:
        found = json.loads(line)
        if found["to"] not in TRANSITIONS:
            return None
        return Change(int(found["time_ns"]), str(found["from"]), cast(State, found["to"]), str(found["reason"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
