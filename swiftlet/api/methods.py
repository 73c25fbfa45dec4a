"""The methods of `io.swiftlet.Node`: each takes its parameters apart, asks the node, and answers. No decisions.

What a method answers is docs/wire.md's. A caller that goes away cancels what is done for it alone (a resolution,
waiting); a guest that has been started goes on.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from swiftlet.api import interface, parameters
from swiftlet.api.service import Call, Interface, Method, Reply
from swiftlet.linux.pipe import is_anonymous
from swiftlet.model.error import CommandNotFoundError, ConflictError, InputError, SwiftletError
from swiftlet.model.workload import Workload
from swiftlet.node import bootprofile, describe, execute, ready
from swiftlet.node.check import check_command, clone_of, workload_of
from swiftlet.node.guests import Progress, Started
from swiftlet.node.node import Node
from swiftlet.node.record import Guest
from swiftlet.node.snapshots import Snapshot, document_of, saveable

Result = TypeVar("Result")

DOCTOR_SECONDS = 60.0

LOGS = ("stdout", "stderr", "index")


class Methods:
    """The node's methods; `interface` is what the server offers."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._guests = node.guests

    def interface(self) -> Interface:
        """All methods, with the description that clients can ask for."""
        p = parameters
        methods: dict[str, Method[Any]] = {
            "Run": Method(p.Run, self.run, streams=True),
            "Start": Method(p.Start, self.start, streams=True),
            "Exec": Method(p.Exec, self.execute, streams=True),
            "Attach": Method(p.OneGuest, self.attach, streams=True),
            "Wait": Method(p.OneGuest, self.wait),
            "Stop": Method(p.Stop, self.stop),
            "Kill": Method(p.Kill, self.kill),
            "Remove": Method(p.Remove, self.remove),
            "Insert": Method(p.Insert, self.insert, streams=True),
            "Snapshot": Method(p.Snapshot, self.snapshot),
            "Snapshots": Method(p.Nothing, self.snapshots),
            "RemoveSnapshot": Method(p.OneSnapshot, self.remove_snapshot),
            "List": Method(p.List, self.list),
            "Inspect": Method(p.OneGuest, self.inspect),
            "Logs": Method(p.OneGuest, self.logs),
            "Stats": Method(p.Stats, self.stats),
            "Templates": Method(p.Nothing, self._worker("templates")),
            "Template": Method(p.Template, self._worker("template")),
            "Resolve": Method(p.Resolve, self._worker("resolve", streams=True), streams=True),
            "Explain": Method(p.Explain, self._worker("explain")),
            "TemplateVerify": Method(p.TemplateVerify, self._worker("template_verify", streams=True), streams=True),
            "ParseWorkload": Method(p.ParseWorkload, self._worker("parse_workload")),
            "StoreStat": Method(p.Nothing, self._worker("store_stat")),
            "StoreVerify": Method(p.StoreVerify, self._worker("store_verify", streams=True), streams=True),
            "StoreGc": Method(p.StoreGc, self._worker("store_gc")),
            "KernelBuild": Method(p.KernelBuild, self.kernel_build, streams=True),
            "KernelImport": Method(p.KernelImport, self._worker("kernel_import")),
            "KernelTrim": Method(p.KernelTrim, self.kernel_trim, streams=True),
            "Kernels": Method(p.Nothing, self._worker("kernels")),
            "Kernel": Method(p.OneKernel, self._worker("kernel")),
            "KernelDiff": Method(p.KernelDiff, self._worker("kernel_diff")),
            "KernelExplain": Method(p.KernelExplain, self._worker("kernel_explain")),
            "KernelRemove": Method(p.OneKernel, self._worker("kernel_remove")),
            "ImageBuild": Method(p.ImageBuild, self._worker("image_build", streams=True), streams=True),
            "UnikernelBuild": Method(p.UnikernelBuild, self._worker("unikernel_build", streams=True), streams=True),
            "BootProfile": Method(p.BootProfile, self.boot_profile, streams=True),
            "Doctor": Method(p.Nothing, self._doctor),
            "CheckProgram": Method(p.Nothing, self._worker("check_program", streams=True), streams=True),
        }
        return Interface(interface.NAME, interface.DESCRIPTION, methods)

    # Starting

    async def run(self, call: Call, given: parameters.Run) -> Reply:
        """Create and start a guest; unless detached, stay until it has ended."""
        snapshot = given.snapshot or ""
        if snapshot:
            workload = clone_of(self._guests.machines.snapshots.find(snapshot).bundle.workload, given.workload)
        else:
            workload = workload_of(given.workload)
        attach = not given.detach
        stdin = _stdin_of(call, workload.interactive and not workload.tty)

        def work(tell: Progress) -> Coroutine[Any, Any, Started]:
            return self._guests.run(workload, tell, attach=attach, stdin=stdin, snapshot=snapshot)

        started = await self._advised(_with_progress(call, work), workload, "add {}, which has it", "-t {}")
        return await self._started(call, started, attach)

    async def start(self, call: Call, given: parameters.Start) -> Reply:
        """Start a stopped guest again."""
        guest = self._guests.find(given.guest)
        attach = bool(given.attach)
        stdin = _stdin_of(call, attach and bool(call.fds) and not guest.workload.tty)

        def work(tell: Progress) -> Coroutine[Any, Any, Started]:
            return self._guests.start(guest, tell, attach=attach, stdin=stdin)

        return await self._started(call, await _with_progress(call, work), attach)

    async def _started(self, call: Call, started: Started, attach: bool) -> Reply:
        call.close_descriptors()
        answer = {"started": _started_of(started.guest, started.pid)}
        if not attach:
            return Reply(answer, started.fds)
        await call.send(answer, started.fds)
        return Reply({"exited": await started.guest.wait_ended()})

    async def execute(self, call: Call, given: parameters.Exec) -> Reply:
        """Run a command in a running guest."""
        guest = self._guests.find(given.guest)
        attach, tty = not given.detach, bool(given.tty)
        check_command(given.command, given.env or {})
        command = execute.Command(given.command, given.env or {}, given.workdir or "", given.user or "", tty)
        stdin = _stdin_of(call, bool(given.interactive) and not tty)
        work = execute.execute(self._guests, guest, command, attach=attach, stdin=stdin)
        insert = f"`swiftlet insert {guest.name} {{}}`"
        running = await self._advised(
            self._guests.finish(work, lambda done: done.fds), guest.workload, "{} adds it", insert
        )
        call.close_descriptors()
        answer = {"started": _started_of(guest, running.pid)}
        if not attach:
            return Reply(answer, running.fds)
        await call.send(answer, running.fds)
        return Reply({"exited": await running.ended})

    async def _advised(self, work: Coroutine[Any, Any, Result], workload: Workload, hint: str, each: str) -> Result:
        """Do the work; where it fails for want of a command, say where the guest has it, else which template has.

        hint: what to do with the templates. each: how one of them is spelled in it.
        """
        try:
            return await work
        except CommandNotFoundError as error:
            missing = _MISSING.search(str(error))
            if error.hint or missing is None:
                raise
            asked = {"command": missing[1] or missing[2], "stack": list(workload.templates)}
            try:
                found = await self._node.workers.run("having", asked)
            except SwiftletError:
                raise error from None
            if found["programs"]:
                raise CommandNotFoundError(str(error), f"the guest has {' and '.join(found['programs'])}") from None
            spelled = " or ".join(each.format(template) for template in found["templates"])
            raise CommandNotFoundError(str(error), hint.format(spelled) if spelled else "") from None

    async def attach(self, call: Call, given: parameters.OneGuest) -> Reply:
        """Get a running guest's outputs from here on."""
        guest = self._guests.find(given.guest)
        fds = await self._guests.finish(execute.attach(self._guests, guest), lambda done: done)
        await call.send({"started": _started_of(guest, guest.pid)}, fds)
        return Reply({"exited": await guest.wait_ended()})

    async def insert(self, call: Call, given: parameters.Insert) -> Reply:
        """Add a template to a running guest."""
        guest = self._guests.find(given.guest)

        def work(tell: Progress) -> Coroutine[Any, Any, None]:
            return execute.insert(self._guests, self._node.workers, guest, given.template, tell)

        await _with_progress(call, work)
        return Reply()

    async def snapshot(self, call: Call, given: parameters.Snapshot) -> Reply:
        """Save a running machine."""
        guest = self._guests.find(given.guest)

        saveable(guest)
        self._guests.machines.snapshots.check_free(guest, given.name)
        ports = ready.published(guest) if given.ports is None else given.ports
        await ready.wait(guest, ports)
        at_once = given.ports is not None and not ports  # --now

        async def take() -> Snapshot:
            async with guest.busy, guest.still:
                try:
                    held = not at_once and await ready.settle(guest, self._guests.launcher)
                    return await self._guests.machines.snapshots.take(guest, given.name, held=held)
                finally:
                    await ready.let_go(guest, self._guests.launcher)

        taken = await self._guests.finish(take(), lambda _: ())
        self._guests.spares.want(taken.name, clone_of(taken.bundle.workload, {}))
        return Reply({"snapshot": document_of(taken)})

    async def snapshots(self, call: Call, given: parameters.Nothing) -> Reply:
        """All snapshots, with the guests that are their clones."""
        found = await asyncio.to_thread(self._guests.machines.snapshots.all)
        guests = list(self._guests.by_id.values())
        return Reply({"snapshots": [document_of(each, guests) for each in found]})

    async def remove_snapshot(self, call: Call, given: parameters.OneSnapshot) -> Reply:
        """Remove a snapshot."""

        async def remove() -> None:
            await asyncio.to_thread(self._guests.machines.snapshots.remove, given.snapshot)
            await self._guests.spares.forget(given.snapshot)

        await self._guests.finish(remove(), lambda _: ())
        return Reply()

    # Ending

    async def wait(self, call: Call, given: parameters.OneGuest) -> Reply:
        """Wait until a guest has ended."""
        return Reply({"exited": await self._guests.find(given.guest).wait_ended()})

    async def stop(self, call: Call, given: parameters.Stop) -> Reply:
        """Ask a guest to end; kill it when it does not."""
        if given.timeout is not None and not 0 <= given.timeout <= 1e9:
            raise InputError(f"not a number of seconds: {given.timeout}")
        return Reply({"exited": await self._guests.stop(self._guests.find(given.guest), given.timeout)})

    async def kill(self, call: Call, given: parameters.Kill) -> Reply:
        """Send a signal to a guest."""
        await self._guests.kill(self._guests.find(given.guest), given.signal)
        return Reply()

    async def remove(self, call: Call, given: parameters.Remove) -> Reply:
        """Remove a guest."""
        await self._guests.remove(self._guests.find(given.guest), force=bool(given.force))
        return Reply()

    # Looking

    async def list(self, call: Call, given: parameters.List) -> Reply:
        """All guests, or those that run."""
        shown = [guest for guest in self._guests.by_id.values() if given.all or guest.is_running]
        return Reply({"guests": [describe.line_of(guest) for guest in shown]})

    async def inspect(self, call: Call, given: parameters.OneGuest) -> Reply:
        """Everything about a guest."""
        guest = self._guests.find(given.guest)
        return Reply({"guest": await asyncio.to_thread(describe.everything_of, guest)})

    async def logs(self, call: Call, given: parameters.OneGuest) -> Reply:
        """The guest's log files, for reading."""
        guest = self._guests.find(given.guest)
        fds = tuple(os.open(f"{guest.folder}/{name}", _LOG_FLAGS, 0o600) for name in LOGS)
        return Reply({"state": guest.state}, fds)

    async def stats(self, call: Call, given: parameters.Stats) -> Reply:
        """What guests use now."""
        named = [self._guests.find(text) for text in given.guests]
        for guest in named:
            if not guest.is_running:
                raise ConflictError(f"guest {guest.name} is {guest.state}, not Running")
        shown = named or [guest for guest in self._guests.by_id.values() if guest.is_running]
        return Reply({"stats": await asyncio.to_thread(lambda: [describe.stats_of(guest) for guest in shown])})

    # Templates, the store, kernels, the host: done by workers

    async def kernel_build(self, call: Call, given: parameters.KernelBuild) -> Reply:
        """Build a kernel, or find that it is there."""
        asked = msgspec.to_builtins(given)
        return Reply(await _with_progress(call, lambda tell: self._node.kernels.build(asked, tell)))

    async def boot_profile(self, call: Call, given: parameters.BootProfile) -> Reply:
        """Measure and explain how a machine starts."""
        if (given.guest is None) == (given.workload is None):
            raise InputError("a boot profile is of a guest or of a workload")
        workload = bootprofile.booted(self._guests.find(given.guest)) if given.guest else workload_of(given.workload)

        def work(tell: Progress) -> Coroutine[Any, Any, dict[str, Any]]:
            return bootprofile.profile(self._guests, self._node.workers, workload, tell)

        return Reply({"profile": await _with_progress(call, work)})

    async def kernel_trim(self, call: Call, given: parameters.KernelTrim) -> Reply:
        """Derive a kernel from checks."""
        asked = msgspec.to_builtins(given)
        return Reply(await _with_progress(call, lambda tell: self._node.kernels.trim(asked, tell)))

    def _worker(self, operation: str, *, streams: bool = False) -> Callable[[Call, Any], Awaitable[Reply]]:
        async def method(call: Call, given: Any) -> Reply:
            asked = {name: getattr(given, name) for name in given.__struct_fields__}

            def work(tell: Progress) -> Coroutine[Any, Any, dict[str, Any]]:
                return self._node.workers.run(operation, asked, tell)

            return Reply(await (_with_progress(call, work) if streams else work(_ignore)))

        return method

    async def _doctor(self, call: Call, given: parameters.Nothing) -> Reply:
        try:
            async with asyncio.timeout(DOCTOR_SECONDS):
                return Reply(await self._node.workers.run("doctor", {}))
        except TimeoutError:
            text = "a probe hangs in the kernel"
            finding = {"name": "doctor", "status": "limited", "detail": text, "consequence": "see dmesg"}
            return Reply({"findings": [finding]})


_MISSING = re.compile(r"^command '(.+)' is not in the guest$|the interpreter (\S+), which is not in the guest$")
"""How the launcher says what a guest lacks."""

_LOG_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def _ignore(progress: dict[str, Any]) -> None:
    """Nobody watches."""


def _started_of(guest: Guest, pid: int) -> dict[str, Any]:
    return {"id": guest.id, "name": guest.name, "pid": pid, "kind": guest.workload.kind}


def _stdin_of(call: Call, wanted: bool) -> int:
    """The caller's standard input, when it is to be passed on. Raises InputError when it did not come.

    Of this host's files a guest would get more than their content: it is made the owner of what it reads from.
    """
    if not wanted:
        return -1
    if not call.fds:
        raise InputError("interactive, but no standard input came with the call")
    if not is_anonymous(call.fds[0]) and not stat.S_ISSOCK(os.fstat(call.fds[0]).st_mode):
        raise InputError("standard input is neither a pipe without a name nor a socket", "copy it into a pipe(2)")
    return call.fds[0]


async def _with_progress(call: Call, work: Callable[[Progress], Coroutine[Any, Any, Result]]) -> Result:
    """Do the work, passing its progress on; a caller that reads slowly gets the latest of each stage only."""
    waiting: list[dict[str, Any]] = []
    changed = asyncio.Event()

    def tell(progress: dict[str, Any]) -> None:
        if waiting and waiting[-1].get("stage") == progress.get("stage"):
            waiting.pop()
        waiting.append(progress)
        changed.set()

    task = asyncio.get_running_loop().create_task(work(tell))
    task.add_done_callback(lambda _: changed.set())
    try:
        while not task.done():
            await changed.wait()
            changed.clear()
            while waiting:
                await call.send({"progress": waiting.pop(0)})
        return task.result()
    except BaseException:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        raise
