"""What this host has for virtual machines: QEMU, kernels, images of roots, and whether KVM can be trusted.

Everything here can be made again. QEMU itself is a template like any other and comes from the store, so that a host
needs none installed and all hosts have the same build.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from swiftlet.guest import orders, qemu
from swiftlet.guest.machine import check_same, disk_of
from swiftlet.image import erofs
from swiftlet.image.kernel import kept
from swiftlet.image.kernel.kept import Kernel
from swiftlet.image.machine import check_layers, machine_root
from swiftlet.image.preload import opener
from swiftlet.linux import tsc
from swiftlet.model.bundle import Bundle, Machine, Rootfs
from swiftlet.model.error import InputError, NotFoundError
from swiftlet.model.workload import Workload
from swiftlet.node import canary, rootdisk
from swiftlet.node.diagnose import KernelFiles
from swiftlet.node.network import Attached
from swiftlet.node.snapshots import Snapshots
from swiftlet.store.layout import Layout

HYPERVISOR = "qemu@7.2"
"""The template of the machines."""


MAPPING = ("VIRTIO_PMEM", "FS_DAX")
"""Options of a kernel that can map its root from the host's memory: then it does."""


DISKS = ("EXT4_FS",)
"""Options of a kernel that can keep on a disk what its guest writes."""

_SERVER = "the kernel of `swiftlet kernel build --profile server` has it"


MACHINE_ID = "/etc/machine-id"

NETWORK_SETTINGS = {
    "/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
    "/proc/sys/net/ipv4/ping_group_range": "0 2147483647",
}
"""As in a container: a guest's user may listen on port 80 and send pings without a capability."""

LIMITS = {name.removeprefix("RLIMIT_"): getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}


_PREFERRED = ("server", "toolchain", "docker", "net", "pmem", "micro")
"""Profiles in the order in which they are taken where no kernel was asked for."""


class Program(NamedTuple):
    """A unikernel that was built, in a kernel's place. image: its path."""

    digest: str
    image: str
    initramfs: str = ""


class Found(NamedTuple):
    """What one machine is made of. kernel, images: paths on the host. snapshot: that it goes on from, "" for none.

    mapped: see `qemu.Settings`. opener: path of what a clone's QEMU is preloaded with. watched: its start is looked at
    from outside.
    """

    hypervisor: Rootfs
    kernel: Kernel | Program
    images: tuple[str, ...]
    accelerator: str
    why: str
    snapshot: str = ""
    counter_khz: int = 0
    mapped: tuple[int, ...] = ()
    opener: str = ""
    watched: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """What QEMU is to see of the host's files, in the order in which `MachineDriver` attaches them."""
        return tuple(filter(None, (self.kernel.image, self.kernel.initramfs, *self.images, self.opener)))


class Machines:
    """What the machines of one instance have in common."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.snapshots = Snapshots(layout)
        self._accelerator: tuple[str, str] | None = None
        self._counter: int | None = None
        self._making = asyncio.Lock()

    async def found_for(
        self, kernel: str, snapshot: str, rootfs: Rootfs, resolve: Callable[[tuple[str, ...]], Awaitable[Rootfs]]
    ) -> Found:
        """What a machine is made of: of a clone, the same as what was saved. resolve: makes a template's root.

        Raises what `find` and `resolve` raise, NotFoundError when there is no such snapshot.
        """
        if not snapshot:
            return await self.find(kernel, rootfs, await resolve((HYPERVISOR,)))
        saved = self.snapshots.find(snapshot).machine
        found = await self.find(saved.kernel, rootfs, saved.process.rootfs)
        return found._replace(snapshot=snapshot, opener=await asyncio.to_thread(opener, self._layout.cache))

    async def descriptors(self, machine: Machine) -> list[tuple[str, int]]:
        """What a clone's machine gets of its snapshot, the caller's to close.

        Raises ConflictError when the saved state is of another machine, NotFoundError, StoreError.
        """
        if not machine.snapshot:
            return []
        snapshot = self.snapshots.find(machine.snapshot)
        check_same(machine, snapshot.machine)
        memory, state = await asyncio.to_thread(self.snapshots.open, snapshot)
        return [("memory", memory), ("state", state)]

    async def find(self, kernel: str, rootfs: Rootfs, hypervisor: Rootfs) -> Found:
        """Everything for a machine with this root; images that are missing are made.

        Raises NotFoundError (no such kernel), HostError, FullError, StoreError.
        """
        async with self._making:  # two that need the same image make it once
            return await asyncio.to_thread(self._find, kernel, rootfs, hypervisor)

    def _find(self, kernel: str, rootfs: Rootfs, hypervisor: Rootfs) -> Found:
        chosen = self.kernel(kernel)
        cache = self._layout.cache
        check_layers(rootfs)
        images = [machine_root(cache).path]
        for lower, name in zip(rootfs.lowers, rootfs.trees, strict=True):
            images.append(erofs.image_of(lower, name, cache).path)
        accelerator, why = self.accelerator
        mapped = tuple(os.stat(path).st_size for path in images[1:]) if kept.has(chosen, MAPPING) else ()
        return Found(
            hypervisor, chosen, tuple(images), accelerator, why, counter_khz=self._counter_khz(), mapped=mapped
        )

    def of_program(self, program: Program, hypervisor: Rootfs) -> Found:
        """The machine of a unikernel."""
        accelerator, why = self.accelerator
        return Found(hypervisor, program, (), accelerator, why)

    def check(self, workload: Workload) -> None:
        """What is told of a machine before anything is fetched in vain. Raises NotFoundError, InputError."""
        kernel = self.kernel(workload.kernel)
        if disk := disk_of(workload):
            rootdisk.check(self._layout.root, disk)
            if not kept.has(kernel, DISKS):
                name = workload.kernel or kernel.name
                raise InputError(f"$.resources.disk: kernel {name} has no ext4 of its own", _SERVER)
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if workload.resources.memory > there:
            asked = f"{workload.resources.memory >> 20} MiB are more than this host's {there >> 20} MiB"
            raise InputError(f"$.resources.memory: {asked}", "a machine's memory is memory of the host: give it less")

    def kernel(self, name: str) -> Kernel:
        """A kernel by a profile's name or the beginning of its digest; "" is the best of those that are there.

        One that was not built here starts slower, and is taken only where it is meant or where there is no other.

        Raises NotFoundError.
        """
        cache = self._layout.cache
        if name:
            return kept.kernel_named(cache, name)
        kernels = kept.general(cache)
        if not kernels:
            raise NotFoundError("no kernel has been built here", "swiftlet kernel build   (five to ten minutes, once)")
        for profile in _PREFERRED:
            for each in kernels:
                if profile in kept.names_of(each):
                    return each
        return next((each for each in kernels if not each.initramfs), kernels[0])

    def files_of(self, digest: str) -> KernelFiles:
        """Where a kernel's image and its symbols are, and where its console is kept when it does not start."""
        cache = self._layout.cache
        folder = f"{cache}/kernels/{digest}"
        found = kept.kernel_of(cache, digest)
        return KernelFiles(found.image if found else "", f"{folder}/System.map", f"{cache}/console.log")

    def _counter_khz(self) -> int:
        if self._counter is None:
            self._counter = counter_khz()
        return self._counter

    @property
    def accelerator(self) -> tuple[str, str]:
        """How guests run here, and how that was found out, once: /dev/kvm that opens may still run no guest."""
        if self._accelerator is None:
            verdict = canary.try_kvm()
            self._accelerator = ("kvm" if verdict.works else "tcg", verdict.detail)
        return self._accelerator


def counter_khz() -> int:
    """How fast the host's time stamp counter counts, 0 where that is not known."""
    try:
        return tsc.frequency_khz()
    except OSError:
        return 0


def told_to(bundle: Bundle, machine: Machine, attached: Attached | None, files: Mapping[str, str]) -> dict[str, str]:
    """What a machine's first process, and a clone's QEMU, is told at the moment of its start: for the launcher."""
    card = _card(attached)
    if bundle.workload.kind == "unikernel":
        return {"orders": orders.unikernel(card), "script": ""}
    entropy, files = _drawn(files)
    if machine.snapshot:  # its kernel is set as its snapshot's was
        resumed = orders.resume(bundle, card, files, time.time_ns(), entropy)
        return {"orders": resumed, "script": qemu.script(machine.descriptors) + qemu.GO}
    settings = {**files, **(NETWORK_SETTINGS if attached else {})}
    started = orders.start(bundle, machine, card, settings, time.time_ns(), entropy, LIMITS)
    return {"orders": started, "script": ""}


def told_ahead(
    bundle: Bundle, machine: Machine, attached: Attached | None, files: Mapping[str, str], *, held: bool
) -> dict[str, str]:
    """What a machine is told that is to wait: to read its state and, where its workload is held, who it is."""
    script = qemu.script(machine.descriptors)
    if not held:
        return {"orders": "", "script": script}
    entropy, files = _drawn(files)
    told = orders.ahead(bundle, _card(attached), files, time.time_ns(), entropy)
    return {"orders": told, "script": script + qemu.GO, "halt": qemu.HALT}


def told_after(bundle: Bundle, files: Mapping[str, str], before: Bundle, known: Mapping[str, str]) -> dict[str, str]:
    """What is left to tell when it is wanted. before, known: the bundle and the files that it was told ahead."""
    changed = {path: text for path, text in files.items() if known.get(path) != text}
    renamed = bundle.hostname != before.hostname
    return {"orders": orders.go_on(bundle, changed, time.time_ns(), renamed=renamed)}


def _card(attached: Attached | None) -> orders.Card | None:
    if attached is None:
        return None
    return orders.Card(attached.hardware, attached.address, attached.prefix, attached.gateway)


def _drawn(files: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Digits that no other machine is told, and its files with an id that no other one has."""
    return secrets.token_hex(64), {**files, MACHINE_ID: f"{secrets.token_hex(16)}\n"}


def disk_orders(bundle: Bundle, files: Mapping[str, str], *, data: bool, at_end: int, at_button: int) -> str:
    """What the first process of a disk image is told, wherever it is started."""
    settings = {**files, **NETWORK_SETTINGS}
    return orders.on_disk(bundle, settings, LIMITS, data=data, at_end=at_end, at_button=at_button)


def command_orders(bundle: Bundle, request: Mapping[str, Any]) -> str:
    """What the first process is told of a further command. request: as the launcher gets it."""
    fields = {name: request[name] for name in ("cwd", "uid", "gid", "groups")}
    asked = msgspec.structs.replace(bundle, **fields)
    terminal = (0, 0) if request["tty"] else None
    return orders.command(request["argv"], request["env"], asked, LIMITS, terminal=terminal)
