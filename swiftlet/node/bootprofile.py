"""A machine's start, measured twice and explained: `boot_watch` is the worker's part, `profile` the daemon's.

Two throw-away copies of the guest are started, one after the other, with everything that a start has: the first as it
is, for the marks; the second to be looked into. A worker watches each, and is there before it is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from swiftlet.image import programs
from swiftlet.image.kernel import footprint, initcalls, kept, orc
from swiftlet.image.kernel.symbols import Image, Symbols
from swiftlet.image.machine import machine_tree
from swiftlet.model.error import InputError, SwiftletError
from swiftlet.model.workload import Workload
from swiftlet.node.bootreport import Named, Origin, report
from swiftlet.node.bootwatch import Kernel, Look, Recording, digest_of, watch
from swiftlet.node.wire import close_all

if TYPE_CHECKING:
    from swiftlet.node.guests import Guests, Progress
    from swiftlet.node.pull import Work
    from swiftlet.node.record import Guest
    from swiftlet.node.workers import Workers

WATCHING = "watch"
"""The stage of a worker that is ready to watch."""

_KILL_AGAIN_SECONDS = 0.1


def throw_away(workload: Workload) -> Workload:
    """The copy of a workload that is started to be measured. Raises InputError for what is no machine."""
    if workload.kind != "vm":
        raise InputError(
            "only a virtual machine has a boot to be profiled", "start it with --as vm, or give --as vm here"
        )
    ports = tuple(msgspec.structs.replace(port, host=0) for port in workload.ports)
    name = f"boot-profile-{secrets.token_hex(4)}"
    return msgspec.structs.replace(workload, name=name, ports=ports, remove=True, tty=False, interactive=False)


def booted(guest: Guest) -> Workload:
    """The workload of a guest that is to be profiled. Raises InputError for a clone."""
    if guest.snapshot:
        raise InputError(
            f"guest {guest.name} is a clone of {guest.snapshot}: it has no boot to be profiled",
            "profile a guest that was booted",
        )
    return guest.workload


def check_kernel(kernel: kept.Kernel) -> None:
    """Raise InputError for a kernel that cannot be looked into, such as one that was not built here."""
    missing = _missing(kernel)
    if missing:
        raise InputError(
            f"kernel {kernel.name or kernel.digest[:16]} cannot be looked into: it has no {missing}",
            "profile a kernel that was built here, as in: boot profile --as vm --kernel server -t TEMPLATE",
        )


def _missing(kernel: kept.Kernel) -> str:
    if kernel.initramfs or not os.path.isfile(kernel.vmlinux):
        return "vmlinux"
    try:
        with open(f"{kernel.folder}/System.map", "rb") as file:
            return "" if b" _text\n" in file.read() else "symbols in its System.map"
    except OSError:
        return "System.map"


async def profile(guests: Guests, workers: Workers, workload: Workload, tell: Progress) -> dict[str, Any]:
    """Start it twice and say what was seen. May be cancelled; its copies are gone afterwards.

    Raises every kind of SwiftletError.
    """
    throw_away(workload)
    await asyncio.to_thread(check_kernel, guests.machines.kernel(workload.kernel))
    plain = await _started(guests, workers, throw_away(workload), {"kernel": "", "moments": {}}, tell)
    asked = {"kernel": plain["kernel"], "moments": plain["moments"]}
    return await _started(guests, workers, throw_away(workload), asked, tell)


async def _started(
    guests: Guests, workers: Workers, copy: Workload, asked: dict[str, Any], tell: Progress
) -> dict[str, Any]:
    ready = asyncio.Event()

    def told(step: dict[str, Any]) -> None:
        if step["stage"] == WATCHING:
            ready.set()
        tell(step)

    async def start() -> None:
        await ready.wait()
        started = await guests.run(copy, tell, attach=False, watched=bool(asked["kernel"]))
        close_all(started.fds)

    watching = asyncio.ensure_future(workers.run("boot_watch", {"name": copy.name, **asked}, told))
    starting = asyncio.ensure_future(start())
    try:
        await asyncio.wait([watching, starting], return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            await starting
        return await watching
    finally:
        starting.cancel()
        watching.cancel()
        await asyncio.wait([starting, watching])
        for task in (starting, watching):
            if not task.cancelled():
                task.exception()  # it is raised above, or comes of the other one's
        with contextlib.suppress(SwiftletError):
            await _end(guests, copy.name)


async def _end(guests: Guests, name: str) -> None:
    """Remove a copy, also one whose start never ends: where its watcher has gone, nobody lets its processors go on.

    Raises LaunchError.
    """
    guest = guests.by_name.get(name)
    if guest is None:
        return
    removing = asyncio.ensure_future(guests.remove(guest, force=True))
    while not removing.done():  # the launcher may be asked to start it only after it was asked to kill it
        with contextlib.suppress(SwiftletError):
            await guests.launcher.request("kill", {"id": guest.id})
        await asyncio.wait([removing], timeout=_KILL_AGAIN_SECONDS)
    await removing


# In the worker


def boot_watch(work: Work) -> dict[str, Any]:
    """Watch one start. kernel: the digest of the one that is to be looked into, "" for none."""
    asked, layout = work.parameters, work.layout
    kernel = kept.kernel_of(layout.cache, asked["kernel"]) if asked["kernel"] else None
    inside = _inside(kernel) if kernel is not None else None
    work.progress(WATCHING, "a start that is looked into" if kernel else "a start as it always is", 0, 0)
    seen, bundle = watch(f"{layout.root}/guests", f"{layout.root}/names", asked["name"], inside)
    assert bundle.machine is not None
    if kernel is None or inside is None:
        return {"moments": seen.moments, "kernel": bundle.machine.kernel}
    work.progress("explain", f"{len(seen.looks)} looks", 0, 0)
    plain = Recording()
    plain.moments = asked["moments"]
    calls = initcalls.read_log(seen.log, inside.symbols)
    namer = _Namer(inside.symbols, seen.looks, (machine_tree(layout.cache), *bundle.rootfs.lowers))
    machine = bundle.machine
    return {
        "templates": list(bundle.workload.templates),
        "kernel": {"digest": kernel.digest, "name": kernel.name, "version": kernel.version},
        "machine": {"type": machine.type, "accelerator": machine.accelerator, "processors": machine.processors},
        "stacks_read": inside.unwinder is not None,
        **report(plain, seen, calls, _origins(kernel, calls), namer.named, _jiffy_ms(kernel)),
    }


def _inside(kernel: kept.Kernel) -> Kernel:
    """What must be known to look into a kernel. Raises KernelError, OSError."""
    with open(f"{kernel.folder}/System.map") as file:
        symbols = Symbols(file.read())
    with open(kernel.vmlinux, "rb") as image:
        return Kernel(symbols, orc.unwinder_of(kernel.version, symbols, Image(image.read())))


def _jiffy_ms(kernel: kept.Kernel) -> float:
    return 1000 / int(kept.values_of(kernel).get("CONFIG_HZ", "250"))


def _origins(kernel: kept.Kernel, calls: list[initcalls.Initcall]) -> dict[str, Origin]:
    """Where initcalls are from; {} where the kernel's source has gone or no table of its objects was kept."""
    tree, objects = kernel.source.get("path", ""), footprint.read(kernel.folder)
    if not objects or not os.path.isdir(tree):
        return {}
    paths = initcalls.objects_of({call.name for call in calls}, objects, tree)
    return {name: Origin(path, objects[path].needs) for name, path in paths.items()}


class _Namer:
    """Puts looks into words."""

    def __init__(self, symbols: Symbols, looks: list[Look], trees: tuple[str, ...]) -> None:
        self._symbols = symbols
        wanted = {look.page for look in looks if look.page}
        self._pages = programs.pages(trees, wanted, digest_of)
        self._functions: dict[str, programs.Functions] = {}

    def named(self, look: Look) -> Named:
        """One look."""
        if look.place == "firmware":
            return Named(("firmware",), "file")
        if look.place == "program":
            return self._program(look)
        names = [self._symbols.name(address) for address in look.stack]
        known = [
            name or f"({address:#x}, not the kernel's own code)"
            for name, address in zip(names, look.stack, strict=True)
        ]
        return Named(("kernel", *reversed(known)), "function" if all(names) else "")

    def _program(self, look: Look) -> Named:
        found = self._pages.get(look.page)
        if found is None:
            return Named(("programs", "(code of no file)"), "")
        program = found.program
        functions = self._functions.setdefault(program.path, programs.Functions(program))
        name = functions.name(found.offset + look.stack[0] % programs.PAGE)
        shown = name or f"(unnamed in {os.path.basename(program.path)})"
        return Named(("programs", program.path, shown), "function" if name else "file")
