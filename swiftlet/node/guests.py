"""The one place where desired and actual meet: every change of a guest's state is decided here.

create -> Generating -> (root resolved, bundle written) -> Generated -> (launched) -> Running -> Stopped -> Removed.
What is wanted comes from `api`, what is comes from the launcher (`launch`) and, after a restart, from `adopt`. Each
change is journaled before anybody is told. Nothing here waits for the disk or costs more with more guests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from swiftlet.model.bundle import Bundle, Rootfs
from swiftlet.model.error import ConflictError, InputError, LaunchError, NotFoundError, StoreError, SwiftletError
from swiftlet.model.workload import Workload
from swiftlet.node import record
from swiftlet.node.groups import end_groups
from swiftlet.node.journal import Journal
from swiftlet.node.launch import LauncherClient
from swiftlet.node.leftovers import clear
from swiftlet.node.machines import HYPERVISOR, Found, Machines
from swiftlet.node.names import Names, delete, new_id
from swiftlet.node.network import Network
from swiftlet.node.prepare import Prepared, Preparer, read_bundle
from swiftlet.node.programs import Programs
from swiftlet.node.record import Exit, Guest, Spare
from swiftlet.node.signals import signal_number
from swiftlet.node.spares import Spares
from swiftlet.node.starter import SpareLostError, Starter
from swiftlet.node.wire import close_all
from swiftlet.node.workers import is_there
from swiftlet.store.layout import Layout

Progress = Callable[[dict[str, Any]], None]
"""Told what happens while a root is resolved: the wire's P."""

KILL_SECONDS = 10.0
"""A guest whose processes are still there so long after SIGKILL is stuck in the kernel."""

ATTEMPTS = 5
"""How often a root is made that is collected before a bundle names it."""

Result = TypeVar("Result")


class Roots(Protocol):
    """Where a guest's root comes from (`templates`)."""

    def ready(self, references: tuple[str, ...]) -> Rootfs | None:
        """A root that needs no work, from memory."""

    async def resolve(self, references: tuple[str, ...], progress: Progress) -> Rootfs:
        """A root, resolved and materialised if need be. May be cancelled."""


class Started(NamedTuple):
    """A guest that was started, and what the caller gets of it: the pidfd, then the attached ends, his to close.

    pid: its first process, which may have ended already.
    """

    guest: Guest
    pid: int
    fds: tuple[int, ...]


class Guests:
    """All guests of one instance, by id and by name."""

    def __init__(
        self,
        names: Names,
        preparer: Preparer,
        launcher: LauncherClient,
        network: Network,
        roots: Roots,
        machines: Machines,
        programs: Programs,
    ) -> None:
        self.names = names
        self.preparer = preparer
        self.launcher = launcher
        self.network = network
        self.roots = roots
        self.machines = machines
        self.programs = programs
        self.by_id: dict[str, Guest] = {}
        self.by_name: dict[str, Guest] = {}
        self.execs: dict[str, asyncio.Future[Exit]] = {}
        self.begun: set[str] = set()
        self._deleter = ThreadPoolExecutor(1, "delete")
        self._tasks: set[asyncio.Task[Any]] = set()
        self.starter = Starter(launcher, network, machines)
        self.spares = Spares(names, preparer, launcher, network, machines, self.starter, self.spawn, self.delete_later)

    # Looking up

    def add(self, guest: Guest) -> None:
        """Take a guest into the listings."""
        self.by_id[guest.id] = guest
        self.by_name[guest.name] = guest

    def find(self, text: str) -> Guest:
        """By name, id, or an unambiguous beginning of an id. Raises NotFoundError, InputError."""
        found = self.by_name.get(text) or self.by_id.get(text)
        if found is not None:
            return found
        matching = [guest for id_, guest in self.by_id.items() if text and id_.startswith(text)]
        if len(matching) > 1:
            raise InputError(f"{text} is the beginning of {len(matching)} guests' ids", "write more of it")
        if not matching:
            raise NotFoundError(f"no guest {text[:80]!r}", self._near(text))
        return matching[0]

    def _near(self, text: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(text, self.by_name, 3)
        return f"did you mean {', '.join(near)}?" if near else "swiftlet ps -a lists them"

    # Starting

    async def run(
        self,
        workload: Workload,
        progress: Progress,
        *,
        attach: bool,
        stdin: int = -1,
        snapshot: str = "",
        watched: bool = False,
    ) -> Started:
        """Create and start a guest; nothing of it stays when that fails. May be cancelled until it is launched.

        snapshot: the machine that it is a clone of, if it is one. watched: a machine whose start is looked into.
        Raises every kind of SwiftletError.
        """
        if snapshot:
            self.spares.want(snapshot, workload)
        guest = self._create(workload, self.spares.take(snapshot, workload) if snapshot and not attach else None)
        guest.snapshot, guest.watched = snapshot, watched
        try:
            prepared = await self._generate(guest, workload, progress)
        except BaseException as error:
            self._discard(guest, f"not started: {_reason(error)}")
            raise
        try:
            started = await self.finish(self._launch_new(guest, prepared, attach, stdin), _fds_of)
        except SpareLostError:  # it starts one of its own
            return await self.run(workload, progress, attach=attach, stdin=stdin, snapshot=snapshot, watched=watched)
        if snapshot:
            self.spares.want(snapshot, workload)
        return started

    async def start(self, guest: Guest, progress: Progress, *, attach: bool, stdin: int = -1) -> Started:
        """Start a stopped guest again; its files are as it left them. Raises ConflictError and what `run` raises."""
        async with guest.busy:
            if guest.state != "Stopped":
                raise ConflictError(f"guest {guest.name} is {guest.state}, not Stopped", "swiftlet ps shows states")
            prepared = await self._generate_again(guest, progress)
            return await self.finish(self._launch_again(guest, prepared, attach, stdin), _fds_of)

    def _create(self, workload: Workload, spare: Spare | None = None) -> Guest:
        self.preparer.driver(workload.kind)
        signal_number(workload.stop_signal)
        id_ = spare.guest.id if spare else new_id()
        folder = spare.guest.folder if spare else self.names.make_folder(id_)
        try:
            name = self.names.claim(workload.name, id_)
        except BaseException:
            if spare is None:
                os.rmdir(folder)
            else:
                self.spares.put_back(spare)
            raise
        guest = Guest(id_, name, folder, workload, Journal(id_, folder))
        guest.launching, guest.spare = True, spare
        self.add(guest)
        try:
            guest.journal.enter("Generating")
        except BaseException as error:
            self._discard(guest, f"not made: {_reason(error)}")
            raise
        return guest

    async def _generate(self, guest: Guest, workload: Workload, progress: Progress) -> Prepared:
        if guest.snapshot:
            rootfs = self.machines.snapshots.find(guest.snapshot).bundle.rootfs
        else:
            if workload.kind == "vm":
                self.machines.check(workload)
            rootfs = await self._root(workload.templates, progress) if workload.templates else Rootfs((), ())
        spare = guest.spare
        prepared = await self._prepare(guest, rootfs, progress, spare.bundle if spare else None)
        with prepared.closed_on_failure():
            guest.take(prepared.bundle)
            if spare is not None and not spare.fits(prepared.bundle):
                guest.spare = None
                await asyncio.shield(self.spawn(self.spares.end(spare, remove=False)))
            guest.journal.enter("Generated")
        return prepared

    async def _generate_again(self, guest: Guest, progress: Progress) -> Prepared:
        """The root that the guest has had, unless it has been lost."""
        if guest.snapshot:
            self.machines.snapshots.check_source(guest)
        before = read_bundle(guest.folder)
        rootfs = before.rootfs if before else await self.roots.resolve(guest.workload.templates, progress)
        prepared = await self._prepare(guest, rootfs, progress, before)
        with prepared.closed_on_failure():
            guest.take(prepared.bundle)
            record.put_exit_aside(guest.folder)
            guest.journal.enter("Generated", "start again")
            record.forget_exit(guest.folder)
        guest.exit = None
        guest.launching = True
        return prepared

    async def _prepare(
        self, guest: Guest, rootfs: Rootfs, progress: Progress, before: Bundle | None = None
    ) -> Prepared:
        """Write the bundle over a root, which is made again when a collection has just taken it."""
        for _ in range(ATTEMPTS):
            try:
                machine = await self._machine(guest, rootfs, progress)
                prepared = self.preparer.prepare(guest.id, guest.folder, guest.workload, rootfs, before, machine)
            except StoreError:
                if is_there(rootfs):
                    raise
                prepared = None
            if prepared is not None:
                return prepared
            rootfs = await self.roots.resolve(guest.workload.templates, progress)
        raise StoreError(
            f"the root of guest {guest.name} was collected {ATTEMPTS} times while it was made", "try again"
        )

    async def _root(self, references: tuple[str, ...], progress: Progress) -> Rootfs:
        return self.roots.ready(references) or await self.roots.resolve(references, progress)

    async def _machine(self, guest: Guest, rootfs: Rootfs, progress: Progress) -> Found | None:
        """What a virtual machine around this root is made of; None for a guest that is none."""
        if guest.workload.kind == "unikernel":
            program = await self.programs.find(guest.workload.program, guest.workload.cpu_level, progress)
            return self.machines.of_program(program, await self._root((HYPERVISOR,), progress))
        if guest.workload.kind != "vm":
            return None
        kernel, snapshot = guest.workload.kernel, guest.snapshot
        found = await self.machines.found_for(kernel, snapshot, rootfs, lambda wanted: self._root(wanted, progress))
        return found._replace(watched=True) if guest.watched else found

    async def finish(self, work: Coroutine[Any, Any, Result], fds_of: Callable[[Result], tuple[int, ...]]) -> Result:
        """Do what must not be cut off in the middle; when the caller goes meanwhile, his descriptors are closed."""
        task = self.spawn(work)

        def close_unwanted(task: asyncio.Task[Result]) -> None:
            if not task.cancelled() and task.exception() is None:
                close_all(fds_of(task.result()))

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(close_unwanted)
            raise

    async def _launch_new(self, guest: Guest, prepared: Prepared, attach: bool, stdin: int) -> Started:
        try:
            async with guest.busy:
                return await self._launch(guest, prepared, attach, stdin)
        except BaseException as error:
            self._discard(guest, f"not started: {_reason(error)}")
            raise

    async def _launch_again(self, guest: Guest, prepared: Prepared, attach: bool, stdin: int) -> Started:
        try:
            return await self._launch(guest, prepared, attach, stdin)
        except BaseException as error:
            guest.launching = False
            guest.journal.note("Stopped", f"not started: {_reason(error)}")
            guest.tell_ended()
            raise

    async def _launch(self, guest: Guest, prepared: Prepared, attach: bool, stdin: int) -> Started:
        """Start what was prepared, and note that it runs."""
        try:
            pid, fds = await self.starter.start(guest, prepared, attach, stdin)
        except BaseException:
            await asyncio.to_thread(end_groups, guest.groups)  # what a launcher that died had made of it
            self._detach(guest)
            raise
        return self._running(guest, pid, fds, attach)

    def _running(self, guest: Guest, pid: int, fds: tuple[int, ...], attach: bool) -> Started:
        guest.pid = pid
        guest.started_ns = guest.journal.note("Running").time_ns
        guest.launching = False
        if not attach:
            close_all(fds[1:])
            fds = fds[:1]
        if guest.early_exit is not None:
            exit_, guest.early_exit = guest.early_exit, None
            self.stopped(guest, exit_)
        return Started(guest, pid, fds)

    # Ending

    def on_exit(self, id_: str, exec_: str, exit_: Exit) -> None:
        """The launcher tells that a guest, or a command in it, has ended."""
        if exec_:
            self.begun.discard(exec_)
            future = self.execs.pop(exec_, None)
            if future is not None and not future.done():
                future.set_result(exit_)
            return
        guest = self.by_id.get(id_)
        if self.spares.on_exit(id_) or guest is None:
            return
        if guest.launching:
            guest.early_exit = exit_
        elif guest.is_running:
            self.stopped(guest, exit_)

    def stopped(self, guest: Guest, exit_: Exit) -> None:
        """Note that a guest has ended, give back what it had, and remove it if it was run with --rm."""
        guest.exit = exit_
        guest.pid = 0
        guest.journal.note("Stopped", exit_.get("reason") or f"exited with {exit_['code']}")
        self._detach(guest)
        if guest.workload.remove:
            self._discard(guest, "run with --rm")
        guest.tell_ended()

    def _detach(self, guest: Guest) -> None:
        if guest.attached is not None:
            self.network.detach(guest.id, guest.attached)
            guest.attached = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{guest.folder}/network.json")

    async def stop(self, guest: Guest, timeout: float | None) -> Exit:
        """Ask it to end by its stop signal, and kill it when it has not after `timeout` seconds (None: its own)."""
        if not guest.is_running:
            return self._not_running(guest)
        seconds = guest.workload.stop_timeout if timeout is None else timeout
        ended = asyncio.ensure_future(guest.wait_ended())
        try:
            with contextlib.suppress(SwiftletError):  # a machine that hangs may take no order any more: its grace runs
                await self._signal(guest, signal_number(guest.workload.stop_signal))
            done, _ = await asyncio.wait([ended], timeout=max(0.0, seconds))
            if not done:
                await self._kill(guest)
            return await ended
        finally:
            ended.cancel()

    def _not_running(self, guest: Guest) -> Exit:
        if guest.state == "Stopped":
            return guest.exit or record.exit_without_start(guest)
        raise ConflictError(f"guest {guest.name} is {guest.state}: it has not been started yet")

    async def kill(self, guest: Guest, signal_name: str) -> None:
        """Send a signal to its first process; SIGKILL goes to all, and their end is waited for.

        Raises ConflictError, InputError, LaunchError (it does not end).
        """
        number = signal_number(signal_name)
        if not guest.is_running:
            raise ConflictError(f"guest {guest.name} is {guest.state}: nothing to signal")
        if number == signal.SIGKILL:
            await self._kill(guest)
        else:
            await self._signal(guest, number)

    async def _signal(self, guest: Guest, number: int) -> None:
        """A guest that has ended in this very moment is no error."""
        try:
            async with guest.still:  # or each clone of it would have this signal too
                await self.launcher.request("signal", {"id": guest.id, "signal": number})
        except SwiftletError:
            if guest.is_running and self.launcher.connected:
                raise

    async def _kill(self, guest: Guest) -> None:
        """Kill every process of a guest and wait until it is Stopped. Raises LaunchError when it does not end."""
        with contextlib.suppress(SwiftletError):
            await self.launcher.request("kill", {"id": guest.id})
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await guest.wait_ended()
        except TimeoutError:
            hint = "a process of it hangs in the kernel: see dmesg"
            raise LaunchError(
                f"guest {guest.name} does not end, {KILL_SECONDS:.0f} s after it was killed", hint
            ) from None

    async def remove(self, guest: Guest, *, force: bool) -> None:
        """Remove a stopped guest, or with `force` any. Raises ConflictError, LaunchError."""
        if force and guest.state == "Generated":
            async with guest.busy:  # until its start is over
                pass
        if guest.is_running and force:
            await self._kill(guest)
        if guest.is_running or guest.launching:
            raise ConflictError(f"guest {guest.name} is {guest.state}", f"swiftlet stop {guest.name}, or rm --force")
        if guest.state != "Removed":
            self._discard(guest, "removed")

    def _discard(self, guest: Guest, reason: str) -> None:
        """Make a guest vanish at once; its files are deleted in the background."""
        guest.launching = False
        guest.journal.note("Removed", reason)
        self.by_id.pop(guest.id, None)
        if self.by_name.get(guest.name) is guest:
            del self.by_name[guest.name]
        self.names.release(guest.name, guest.id)
        if guest.spare is not None:  # it was never told to go on
            self.spawn(self.spares.end(guest.spare))
        else:
            if guest.userns:
                self.preparer.release_range(guest.userns)
            self.delete_later(self.names.put_away(guest.id))
        guest.tell_ended()

    def delete_later(self, path: str) -> None:
        """Delete a tree in the background; what is not done when the daemon ends, the next one does."""
        if path:
            with contextlib.suppress(RuntimeError):  # the daemon is leaving
                self._deleter.submit(delete, path)

    def sweep_later(self, layout: Layout) -> None:
        """Delete in the background what killed workers left half-made."""
        self._deleter.submit(clear, layout)

    def spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run a coroutine on its own; its failure is logged if nobody else sees it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Finish what is under way and leave the guests as they are."""
        await self.spares.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        self._deleter.shutdown(wait=False, cancel_futures=True)


def _reason(error: BaseException) -> str:
    return "given up" if isinstance(error, asyncio.CancelledError) else str(error)


def _fds_of(started: Started) -> tuple[int, ...]:
    return started.fds
