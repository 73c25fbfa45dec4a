"""Clones' machines that are started ahead: one for each snapshot that was taken or cloned lately.

Most of a clone's start is its QEMU's, and its kernel's until that knows who it is. So one waits there that has done so,
with a folder, a control group and a place on the bridge of its own, and the next clone becomes it: a guest takes its
id. Its workload is held meanwhile. It has no name and no journal, is in no listing, and ends when it was not wanted for
a while, when its snapshot is removed, and with its daemon (of one that was killed, the next finds it half-made).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from swiftlet.model.bundle import Rootfs
from swiftlet.model.error import LaunchError, StoreError, SwiftletError
from swiftlet.model.workload import Workload
from swiftlet.node.groups import end_groups
from swiftlet.node.journal import Journal
from swiftlet.node.launch import LauncherClient
from swiftlet.node.machines import Machines
from swiftlet.node.names import Names, new_id
from swiftlet.node.network import Network
from swiftlet.node.prepare import Preparer
from swiftlet.node.record import Guest, Spare
from swiftlet.node.starter import Starter

log = logging.getLogger("swiftlet.spares")

QUIET_SECONDS = 0.5
"""From a clone's start until the next spare is made: whoever starts several has the processors for them."""

KEPT_SECONDS = 300.0
"""A spare that nobody wanted for so long is ended."""

MOST = 4
"""Spares at a time; each is a QEMU with what it has written of its guest's memory."""

END_SECONDS = 5.0

AGAIN_SECONDS = 60.0
"""None is made for so long after one could not be: a launcher of before may not know how."""


class _Making:
    """One that is being made. over: it is made, or could not be. ended: it has, early. unwanted: nobody waits."""

    def __init__(self) -> None:
        self.id = new_id()
        self.over = asyncio.Event()
        self.ended = False
        self.unwanted = False


class Spares:
    """Those of one instance."""

    def __init__(
        self,
        names: Names,
        preparer: Preparer,
        launcher: LauncherClient,
        network: Network,
        machines: Machines,
        starter: Starter,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        delete: Callable[[str], None],
    ) -> None:
        self._names = names
        self._preparer = preparer
        self._launcher = launcher
        self._network = network
        self._machines = machines
        self._starter = starter
        self._spawn = spawn
        self._delete = delete
        self._waiting: dict[str, Spare] = {}
        self._making: dict[str, _Making] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._not_before = 0.0
        chosen = os.environ.get("SWIFTLET_SPARES", "")
        self._most = int(chosen) if chosen.isdigit() else MOST
        self._closed = False

    @property
    def ids(self) -> set[str]:
        """What the launcher runs for these."""
        return {*self.waiting, *(making.id for making in self._making.values()), *self._ended}

    def take(self, snapshot: str, workload: Workload) -> Spare | None:
        """A machine that waits to be a clone with this workload, which is the caller's from now on.

        Raises NotFoundError when there is no such snapshot any more.
        """
        spare = self._waiting.get(snapshot)
        if spare is None or spare.guest.workload != _plain(workload) or not self._launcher.connected:
            return None
        if spare.created_ns != self._machines.snapshots.find(snapshot).created_ns:
            return None  # another one has its name by now
        return self._waiting.pop(snapshot)

    def put_back(self, spare: Spare) -> None:
        """What was taken is not wanted after all."""
        snapshot = spare.guest.snapshot
        if snapshot in self._waiting or self._closed:
            self._spawn(self.end(spare))
        else:
            self._waiting[snapshot] = spare

    @property
    def waiting(self) -> set[str]:
        """Those that wait, by their ids."""
        return {spare.guest.id for spare in self._waiting.values()}

    def lose(self, gone: set[str]) -> None:
        """The launcher does not run these any more."""
        for id_ in gone & self.waiting:
            self.on_exit(id_)

    def want(self, snapshot: str, workload: Workload) -> None:
        """There may be a clone like this soon."""
        if self._closed or not self._most or time.monotonic() < self._not_before:
            return
        self._set(snapshot, QUIET_SECONDS, lambda: self._spawn(self._make(snapshot, _plain(workload))))

    async def forget(self, snapshot: str) -> None:
        """Of this snapshot none is wanted any more."""
        timer = self._timers.pop(snapshot, None)
        if timer is not None:
            timer.cancel()
        making = self._making.get(snapshot)
        if making is not None:
            making.unwanted = True
            await asyncio.shield(self._spawn(self._give_up(making)))
        spare = self._waiting.pop(snapshot, None)
        if spare is not None:
            await asyncio.shield(self._spawn(self.end(spare)))  # whoever asks may go meanwhile

    async def close(self) -> None:
        """End all, and make no more."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for snapshot in {*self._waiting, *self._making}:
            await self.forget(snapshot)

    def on_exit(self, id_: str) -> bool:
        """The launcher tells that something has ended; whether that was a machine that waits, or waited."""
        ended = self._ended.get(id_)
        if ended is not None:
            ended.set()
            return True
        for making in self._making.values():
            if making.id == id_:
                making.ended = True
                return True
        for snapshot, spare in list(self._waiting.items()):
            if spare.guest.id == id_:
                del self._waiting[snapshot]
                log.warning("the machine that waited to be a clone of %s has ended", snapshot)
                self._spawn(self.end(spare, ended=True))
                return True
        return False

    async def end(self, spare: Spare, *, ended: bool = False, remove: bool = True) -> None:
        """End a machine that waits, and give back what it had. ended: it has. remove: its folder too."""
        guest = spare.guest
        spare.close()
        if not ended:
            over = self._ended[guest.id] = asyncio.Event()
            try:
                with contextlib.suppress(SwiftletError, TimeoutError):  # the launcher has gone, and all with it
                    await self._launcher.request("kill", {"id": guest.id})
                    await asyncio.wait_for(over.wait(), END_SECONDS)
            finally:
                del self._ended[guest.id]
        await self._give_back(guest, remove=remove)

    # Making one

    def _set(self, snapshot: str, seconds: float, work: Callable[[], Any]) -> None:
        timer = self._timers.pop(snapshot, None)
        if timer is not None:
            timer.cancel()

        def due() -> None:
            self._timers.pop(snapshot, None)
            work()

        self._timers[snapshot] = asyncio.get_running_loop().call_later(seconds, due)

    async def _make(self, snapshot: str, workload: Workload) -> None:
        """Make one, or keep the one that is there a while longer."""
        if self._closed:
            return
        there = self._waiting.get(snapshot)
        if there is not None and there.guest.workload != workload:
            await self.forget(snapshot)
            there = None
        if there is None and snapshot not in self._making:
            if len(self._waiting) + len(self._making) >= self._most:
                return
            making = self._making[snapshot] = _Making()
            try:
                await self._start(snapshot, workload, making)
            except (OSError, SwiftletError) as error:
                if not making.unwanted:
                    log.warning("no machine waits to be a clone of %s: %s", snapshot, error)
                    if isinstance(error, LaunchError):
                        self._not_before = time.monotonic() + AGAIN_SECONDS
                return
            finally:
                del self._making[snapshot]
                making.over.set()
        self._set(snapshot, KEPT_SECONDS, lambda: self._spawn(self.forget(snapshot)))

    async def _start(self, snapshot: str, workload: Workload, making: _Making) -> None:
        id_ = making.id
        guest = Guest(id_, "", self._names.make_folder(id_), workload, Journal(id_, self._names.folder(id_)))
        try:
            saved = self._machines.snapshots.find(snapshot)
            rootfs = saved.bundle.rootfs
            found = await self._machines.found_for(workload.kernel, snapshot, rootfs, _never)
            prepared = self._preparer.prepare(id_, guest.folder, workload, rootfs, None, found)
            if prepared is None:
                raise StoreError("its root was collected")
            guest.take(prepared.bundle)
            guest.snapshot = snapshot
            spare = await self._starter.make_spare(guest, prepared, held=saved.held)
            spare.created_ns = saved.created_ns
        except BaseException:
            await self._give_back(guest)
            raise
        if making.ended:
            await self.end(spare, ended=True)
            raise LaunchError("it ended at once")
        if self._closed or making.unwanted:
            await self.end(spare)
        else:
            self._waiting[snapshot] = spare

    async def _give_up(self, making: _Making) -> None:
        """End one that is being made, and wait until nothing is left of it."""
        with contextlib.suppress(SwiftletError):  # it has not been started yet: then it is ended when it has been
            await self._launcher.request("kill", {"id": making.id})
        await making.over.wait()

    async def _give_back(self, guest: Guest, *, remove: bool = True) -> None:
        await asyncio.to_thread(end_groups, guest.groups)
        if guest.attached is not None:
            self._network.detach(guest.id, guest.attached)
            guest.attached = None
        if remove:
            if guest.userns:
                self._preparer.release_range(guest.userns)
            self._delete(self._names.put_away(guest.id))


def _plain(workload: Workload) -> Workload:
    """What of a clone's workload its machine depends on."""
    return msgspec.structs.replace(workload, name="", ports=(), hostname="")


async def _never(references: tuple[str, ...]) -> Rootfs:
    raise StoreError(f"{' '.join(references)}: a clone has the roots of its snapshot")
