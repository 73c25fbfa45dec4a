"""What the daemon knows of one guest, and what of it lies in the guest's folder. No decisions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from typing import Any

import msgspec

from swiftlet.model.bundle import Bundle
from swiftlet.model.guest import State
from swiftlet.model.workload import Workload
from swiftlet.node.journal import Journal
from swiftlet.node.names import storage_error
from swiftlet.node.network import Attached
from swiftlet.node.prepare import range_of, read_bundle

log = logging.getLogger("swiftlet.record")

_ASIDE = "exit.json.before"

Exit = dict[str, Any]
"""How a guest ended, as docs/design.md describes it."""


class Guest:
    """One guest. Its truth is its folder, its control group and its processes; this is what the daemon remembers.

    still: held while it is saved, when nobody may begin anything in it: each clone would go on with that.
    launching: a start is under way; an exit that arrives before the start is told waits in `early_exit`.
    """

    def __init__(self, id_: str, name: str, folder: str, workload: Workload, journal: Journal) -> None:
        self.id = id_
        self.name = name
        self.folder = folder
        self.workload = workload
        self.journal = journal
        self.pid = 0
        self.started_ns = 0
        self.exit: Exit | None = None
        self.attached: Attached | None = None
        self.groups: dict[str, str] = {}
        self.userns = 0
        self.snapshot = ""
        self.watched = False
        self.spare: Spare | None = None
        self.ports: set[int] = set()
        self.unplugging: set[int] = set()
        self.monitor = asyncio.Lock()
        self.argv: tuple[str, ...] = workload.command
        self.launching = False
        self.early_exit: Exit | None = None
        self.busy = asyncio.Lock()
        self.still = asyncio.Lock()
        self._waiting: list[asyncio.Future[Exit]] = []

    @property
    def state(self) -> State:
        """Where it is in the table of `model.guest`."""
        return self.journal.state

    @property
    def is_running(self) -> bool:
        """Whether it has processes."""
        return self.state in ("Running", "Inserting")

    def take(self, bundle: Bundle) -> None:
        """Remember what matters of a bundle."""
        self.groups = bundle.cgroup.paths
        self.userns = range_of(bundle)
        self.argv = bundle.argv
        self.snapshot = bundle.machine.snapshot if bundle.machine else ""

    async def wait_ended(self) -> Exit:
        """How it ended; at once when it has."""
        if self.state in ("Stopped", "Removed"):
            return self.exit or exit_without_start(self)
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def tell_ended(self) -> None:
        """Wake up everybody in `wait_ended`."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(self.exit or exit_without_start(self))


class Spare:
    """A clone's machine that was started ahead and waits. guest: what it will be, unseen until then.

    tap: its end of the network once more, to be closed by `close`; -1 for none. files: those that it was told ahead,
    None when it knows nothing yet. created_ns: of the snapshot.
    """

    def __init__(self, guest: Guest, bundle: Bundle, tap: int, files: dict[str, str] | None = None) -> None:
        self.guest = guest
        self.bundle = bundle
        self.tap = tap
        self.files = files
        self.created_ns = 0

    def fits(self, bundle: Bundle) -> bool:
        """Whether it is what would be started of this bundle."""
        return (bundle.machine, bundle.cgroup) == (self.bundle.machine, self.bundle.cgroup)

    def close(self) -> None:
        """Close the descriptor, once."""
        tap, self.tap = self.tap, -1
        if tap >= 0:
            os.close(tap)


def exit_without_start(guest: Guest) -> Exit:
    """The exit of a guest that never ran: docker's code for a start that failed."""
    last = guest.journal.changes[-1] if guest.journal.changes else None
    reason = last.reason if last else ""
    return made_up_exit(126, 0, reason, 0)


def made_up_exit(code: int, signal: int, reason: str, started_ns: int, usage: dict[str, int] | None = None) -> Exit:
    """An exit that no launcher has seen."""
    return {
        "code": code,
        "signal": signal,
        "oom": False,
        "reason": reason,
        "started_ns": started_ns,
        "ended_ns": time.time_ns(),
        "usage": usage or {},
    }


def read_exit(folder: str) -> Exit | None:
    """exit.json, when it is there and whole."""
    try:
        with open(f"{folder}/exit.json", "rb") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("code"), int) else None


def write_exit(folder: str, exit_: Exit) -> None:
    """Put an exit that no launcher could write into the guest's folder, whole; a full disk only loses it for later."""
    try:
        with open(f"{folder}/exit.json.new", "w") as file:
            json.dump(exit_, file)
        os.rename(f"{folder}/exit.json.new", f"{folder}/exit.json")
    except OSError as error:
        log.warning("exit.json: %s", error)


def put_exit_aside(folder: str) -> None:
    """Take exit.json away because the guest is to be started again; until the journal says so it can be put back."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{folder}/exit.json", f"{folder}/{_ASIDE}")


def put_exit_back(folder: str) -> None:
    """The guest was not started again after all: the daemon was killed before the journal said so."""
    if not os.path.exists(f"{folder}/exit.json"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{folder}/{_ASIDE}", f"{folder}/exit.json")


def forget_exit(folder: str) -> None:
    """Remove what was put aside: the journal says that the guest is started again."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/{_ASIDE}")


def read_network(folder: str) -> Attached | None:
    """network.json, when it is there and whole."""
    try:
        with open(f"{folder}/network.json", "rb") as file:
            return msgspec.json.decode(file.read(), type=Attached)
    except (OSError, msgspec.MsgspecError):
        return None


def write_network(folder: str, attached: Attached) -> None:
    """Write network.json, so that the next daemon knows whose the address and the ports are.

    Raises FullError, StoreError.
    """
    try:
        with open(f"{folder}/network.json", "wb") as file:
            file.write(msgspec.json.encode(attached))
    except OSError as error:
        raise storage_error(error, folder) from None


def read_guest(id_: str, name: str, folder: str, journal: Journal) -> Guest | None:
    """A guest that was there before this daemon; None when it never got as far as a bundle."""
    bundle = read_bundle(folder)
    if bundle is None or bundle.id != id_:
        return None
    guest = Guest(id_, name, folder, bundle.workload, journal)
    guest.take(bundle)
    if guest.state == "Stopped":
        put_exit_back(folder)
    else:
        forget_exit(folder)
    guest.exit = read_exit(folder)
    guest.attached = read_network(folder)
    return guest
