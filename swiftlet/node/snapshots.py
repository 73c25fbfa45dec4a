"""Snapshots of virtual machines, and what their clones start from.

::

    snapshots/GUEST:NAME/       complete since it came there by rename
      snapshot.json             the guest's bundle, which keeps the trees that it names; when and of what
      state                     what QEMU saved of devices and processors
      ram                       the guest's memory, with holes where it was never written

A clone maps the memory privately: what it writes is its own, what it only reads is the page cache's, once for all. It
inherits the file opened for reading (`image.preload`), for no clone may change what the others start from.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from swiftlet.guest import qmp, ram
from swiftlet.model.bundle import Bundle, Machine
from swiftlet.model.error import ConflictError, InputError, LaunchError, NotFoundError, StoreError
from swiftlet.node.names import storage_error
from swiftlet.node.prepare import read_bundle
from swiftlet.node.record import Guest
from swiftlet.node.wire import close_all
from swiftlet.store.guard import Guard
from swiftlet.store.layout import Layout

SAVE_SECONDS = 30.0

_NAME_BYTES = 63

_SAVING = "saving"
"""File in a guest's folder: the machine stands still for being saved."""


class Snapshot(msgspec.Struct, frozen=True):
    """A machine at a moment. name: GUEST:NAME. bytes: of its memory and state on the disk.

    held: its workload was held still, and goes on when it is told to.
    """

    name: str
    bundle: Bundle
    created_ns: int
    bytes: int
    held: bool = False

    @property
    def machine(self) -> Machine:
        """The machine that it is of."""
        assert self.bundle.machine is not None
        return self.bundle.machine


class Snapshots:
    """All snapshots of one instance."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.snapshots
        self._layout = layout

    def find(self, name: str) -> Snapshot:
        """A snapshot by its name. Raises NotFoundError."""
        try:
            with open(f"{self._folder}/{_checked(name)}/snapshot.json", "rb") as file:
                return msgspec.json.decode(file.read(), type=Snapshot)
        except OSError:
            raise NotFoundError(f"no snapshot {name!r}", "swiftlet snapshot ls") from None
        except msgspec.MsgspecError:
            raise NotFoundError(f"snapshot {name!r} cannot be read", f"swiftlet snapshot rm {name}") from None

    def check_source(self, guest: Guest) -> None:
        """Raise ConflictError unless the snapshot that a clone was made of is still there."""
        try:
            there = is_clone(guest, self.find(guest.snapshot))
        except NotFoundError:
            there = False
        if not there:
            told = f"guest {guest.name} is a clone of a snapshot that is gone ({guest.snapshot}) and cannot start again"
            raise ConflictError(told, f"swiftlet rm {guest.name}")

    def all(self) -> list[Snapshot]:
        """Every snapshot that can be read, by name."""
        found = []
        for name in sorted(os.listdir(self._folder)):
            try:
                found.append(self.find(name))
            except (NotFoundError, InputError):
                continue
        return found

    def remove(self, name: str) -> None:
        """Remove a snapshot; clones that run keep the memory that they have. Raises NotFoundError."""
        path = f"{self._folder}/{_checked(name)}"
        with Guard(self._layout) as session:
            try:
                os.rename(path, session.interim())
            except FileNotFoundError:
                raise NotFoundError(f"no snapshot {name!r}", "swiftlet snapshot ls") from None

    def check_free(self, guest: Guest, name: str) -> str:
        """The name of a snapshot that is to be taken, GUEST:NAME. Raises InputError, ConflictError (it is taken)."""
        full = _checked(f"{guest.name}:{name}")
        if os.path.exists(f"{self._folder}/{full}"):
            raise ConflictError(f"there is a snapshot {full} already", f"swiftlet snapshot rm {full}")
        return full

    async def take(self, guest: Guest, name: str, *, held: bool) -> Snapshot:
        """Save a running machine, which stands still meanwhile and goes on. held: its workload is (`ready.settle`).

        Raises ConflictError (it cannot be saved, or the name is taken), LaunchError, FullError, StoreError.
        """
        full = self.check_free(guest, name)
        path = f"{self._folder}/{full}"
        bundle = saveable(guest)
        assert bundle.machine is not None
        with Guard(self._layout) as session:  # where the daemon is killed, the next one removes what is half-made
            interim = session.interim()
            try:
                os.mkdir(interim, 0o700)
                await self._save(guest, bundle.machine.memory, interim)
                taken = Snapshot(full, bundle, time.time_ns(), _disk_bytes(interim), held)
                with open(f"{interim}/snapshot.json", "wb") as file:
                    file.write(msgspec.json.encode(taken))
                os.rename(interim, path)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    raise ConflictError(f"there is a snapshot {full} already") from None
                raise storage_error(error, path) from None
        return taken

    async def _save(self, guest: Guest, size: int, folder: str) -> None:
        state = os.open(f"{folder}/state", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with guest.monitor, qmp.session(guest.folder) as monitor:
                await monitor.send_descriptor("state", state)
                Path(guest.folder, _SAVING).touch()
                try:  # QEMU stops the machine when it saves it; one that was stopped before would not go on as a clone
                    await monitor.migrate_to("state", SAVE_SECONDS)
                    await asyncio.to_thread(_copy_memory, guest.pid, size, f"{folder}/ram")
                finally:
                    await _go_on(guest, monitor)
        finally:
            os.close(state)

    def open(self, snapshot: Snapshot) -> tuple[int, int]:
        """The memory and the state as descriptors for reading, the caller's to close. Raises StoreError."""
        opened: list[int] = []
        try:
            for name in ("ram", "state"):
                opened.append(os.open(f"{self._folder}/{snapshot.name}/{name}", os.O_RDONLY | os.O_CLOEXEC))
                os.posix_fadvise(opened[-1], 0, 0, os.POSIX_FADV_WILLNEED)
        except OSError as error:
            close_all(tuple(opened))
            raise StoreError(f"snapshot {snapshot.name} cannot be read: {error}") from None
        memory, state = opened
        return memory, state


def is_saving(guest: Guest) -> bool:
    """Whether it may stand still because it was being saved when a daemon was killed."""
    return os.path.exists(f"{guest.folder}/{_SAVING}")


async def go_on(guest: Guest) -> None:
    """Let a machine run on whose saving was cut off. Raises LaunchError, ConflictError."""
    async with guest.monitor, qmp.session(guest.folder) as monitor:
        await _go_on(guest, monitor)


async def _go_on(guest: Guest, monitor: qmp.Monitor) -> None:
    try:
        await monitor.go_on(SAVE_SECONDS)
    except TimeoutError:
        raise LaunchError(f"guest {guest.name} does not go on after it was saved") from None
    Path(guest.folder, _SAVING).unlink(missing_ok=True)


def saveable(guest: Guest) -> Bundle:
    """The bundle of a guest that can be saved. Raises ConflictError with the reason why it cannot."""
    if guest.state != "Running":
        raise ConflictError(f"guest {guest.name} is {guest.state}, not Running")
    bundle = read_bundle(guest.folder)
    if bundle is None or bundle.machine is None:
        raise ConflictError(f"guest {guest.name} is no virtual machine", "start it with --as vm")
    if guest.workload.kind == "unikernel":
        raise ConflictError(f"guest {guest.name} is a unikernel, of which there are no snapshots", "start another one")
    if bundle.machine.shares:
        hint = "start it without -v: QEMU 7.2 cannot save a machine with shared folders"
        raise ConflictError(f"guest {guest.name} has volumes", hint)
    if bundle.machine.disk:
        raise ConflictError(f"guest {guest.name} has a disk", "start it without --disk: clones share no disk")
    if bundle.tty or bundle.workload.interactive:
        raise ConflictError(f"guest {guest.name} has a terminal or an input of its own", "start it without -i and -t")
    if guest.ports - guest.unplugging:  # those are gone before a monitor saves it
        raise ConflictError(f"commands run in guest {guest.name}", "wait until they have ended")
    if bundle.machine.snapshot:
        raise ConflictError(f"guest {guest.name} is a clone itself", "take the snapshot of a guest that was booted")
    return bundle


def _checked(name: str) -> str:
    guest, _, rest = name.partition(":")
    for part in (guest, rest):
        plain = part.replace("-", "").replace("_", "").replace(".", "")
        if not plain.isalnum() or not plain.isascii() or part.startswith(".") or len(part) > _NAME_BYTES:
            raise InputError(f"not the name of a snapshot: {name[:80]!r}", "it is GUEST:NAME, letters, digits, _ . -")
    return name


def _copy_memory(pid: int, size: int, path: str) -> None:
    """Copy what was ever written of a machine's memory, which it shares with whoever has the file."""
    source = ram.memory_file(pid, size)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy(source: int, target: int) -> None:
    """Copy a file with its holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    place = 0
    while place < size:
        try:
            start = os.lseek(source, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole to the end
            raise
        place = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < place:
            sent = os.sendfile(target, source, start, place - start)
            if not sent:
                raise OSError(errno.EIO, "the machine's memory ends before it should")
            start += sent


def _disk_bytes(folder: str) -> int:
    return sum(os.stat(f"{folder}/{name}").st_blocks * 512 for name in os.listdir(folder))


def is_clone(guest: Guest, snapshot: Snapshot) -> bool:
    """Whether a guest was made of this very snapshot, not of an earlier one of its name."""
    return guest.snapshot == snapshot.name and snapshot.created_ns <= guest.journal.begun_ns


def document_of(snapshot: Snapshot, guests: Iterable[Guest] = ()) -> dict[str, Any]:
    """As listings have it. guests: among which its clones are looked for."""
    return {
        "name": snapshot.name,
        "created_ns": snapshot.created_ns,
        "bytes": snapshot.bytes,
        "templates": list(snapshot.bundle.workload.templates),
        "memory": snapshot.machine.memory,
        "clones": sorted(guest.name for guest in guests if is_clone(guest, snapshot)),
    }
