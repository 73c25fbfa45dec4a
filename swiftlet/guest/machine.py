"""The virtual machine driver: a workload in a machine of its own, which is a process like a container's. Pure.

What is planned twice is nested: the workload inside, with the container's rules, and around it QEMU, which the
launcher starts as it starts a container: in namespaces and control groups of its own, without a capability.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import msgspec

from swiftlet.guest import qemu
from swiftlet.guest.container import ContainerDriver
from swiftlet.guest.driver import MachinePlace, Place
from swiftlet.model.bundle import Bundle, Hypervisor, Machine, Rootfs
from swiftlet.model.error import ConflictError, InputError
from swiftlet.model.workload import Resources, Workload

DEFAULT_MEMORY = 256 << 20
LEAST_MEMORY = 32 << 20

LEAST_DISK = 16 << 20
"""Of which a file system's own tables and journal leave 11."""

OVERHEAD = 192 << 20
"""Memory that QEMU takes besides the guest's: its own, translated code, and a server for each volume."""

HEADROOM = 0.25
"""Processors that QEMU may take besides the guest's: a quota of the guest's alone would hold up all of it."""

THREADS = 256
"""Tasks that QEMU and its volumes' servers may have; what runs inside is counted by the guest's own kernel."""

IMAGES = "/machine"
"""Where QEMU sees the kernel and the images, and `/volume` what it serves."""

OPENER = f"{IMAGES}/opener.so"
"""What a clone's QEMU is preloaded with (`image.preload`)."""

VOLUMES = "/volume"


class MachineDriver:
    """Guests with a kernel of their own."""

    kind = "vm"
    features = frozenset(("exec",))

    def __init__(self) -> None:
        self._inside = ContainerDriver()

    def plan(self, workload: Workload, rootfs: Rootfs, place: Place) -> Bundle:
        """See `Driver.plan`."""
        if place.machine is None:
            raise InputError("no machine was prepared")
        _refuse(workload)
        memory = memory_of(workload)
        inside = self._inside.plan(_on_host(workload, memory), rootfs, place)
        return msgspec.structs.replace(
            inside, workload=workload, netns="new", userns=0, machine=_machine(workload, place, memory)
        )


def memory_of(workload: Workload) -> int:
    """Bytes of memory of the guest: what the workload may have, in whole MiB."""
    asked = workload.resources.memory or DEFAULT_MEMORY
    if asked < LEAST_MEMORY:
        raise InputError(
            f"$.resources.memory: {asked} bytes are too little for a machine",
            f"give it {LEAST_MEMORY >> 20}M or more: its kernel lives there too",
        )
    return asked & -(1 << 20)


def disk_of(workload: Workload) -> int:
    """Bytes of the disk for what the guest writes to its root, in whole MiB; 0 for none. Raises InputError."""
    asked = workload.resources.disk
    if asked and asked < LEAST_DISK:
        raise InputError(
            f"$.resources.disk: {asked} bytes are too little for a disk", f"give it {LEAST_DISK >> 20}M or more"
        )
    return asked & -(1 << 20)


def _refuse(workload: Workload) -> None:
    """What a machine cannot do, rather than something else that was not asked for."""
    if workload.network == "host":
        raise InputError("$.network: a machine has no part in the host's network", "publish ports with -p")
    if workload.userns:
        raise InputError("$.userns: a machine shares no users with the host", "leave --userns out: it is apart anyway")


def _on_host(workload: Workload, memory: int) -> Workload:
    """The workload with the limits of the host's process."""
    asked = workload.resources
    cpus = asked.cpus + HEADROOM if asked.cpus else 0.0
    limits = Resources(
        memory + OVERHEAD if asked.memory else 0, cpus, asked.cpu_weight, THREADS
    )  # no disk: it is inside
    return msgspec.structs.replace(workload, resources=limits)


def _machine(workload: Workload, place: Place, memory: int) -> Machine:
    found = place.machine
    assert found is not None
    settings = _settings(workload, place, found, memory)
    preloaded = (OPENER,) if found.preloaded else ()
    files = (settings.kernel, *filter(None, (settings.initramfs,)), *settings.images, *preloaded)
    process = Hypervisor(
        rootfs=found.hypervisor,
        argv=qemu.argv(settings),
        env={"LD_PRELOAD": OPENER} if preloaded else {},
        uid=found.user,
        gid=found.user,
        volumes=(*((path, False) for path in files), *_served(place.volumes)),
        seccomp=place.seccomp,
        tty=workload.tty,
        volatile=workload.remove,
    )
    return Machine(
        process=process,
        accelerator=found.accelerator,
        why=found.why,
        type=settings.type,
        kernel=found.kernel,
        memory=memory,
        processors=settings.processors,
        images=found.images,
        descriptors=settings.descriptors,
        shares=tuple(target for target, _ in place.volumes),
        snapshot=found.snapshot,
        mapped=bool(found.mapped),
        disk=disk_of(workload),
    )


def _settings(workload: Workload, place: Place, found: MachinePlace, memory: int) -> qemu.Settings:
    """What QEMU is told."""
    images = tuple(f"{IMAGES}/{number}.erofs" for number in range(len(found.images)))
    descriptors = qemu.channels(
        terminal=workload.tty,
        input_=workload.interactive,
        network=workload.network == "bridge",
        disk=bool(workload.resources.disk),
        shares=len(place.volumes),
        clone=bool(found.snapshot),
        debugger=found.watched,
    )
    devices = qemu.device_count(descriptors, len(images), len(place.volumes))
    if devices > qemu.PCI_DEVICES:
        raise InputError(
            f"{len(images) - 1} templates' layers and {len(place.volumes)} volumes are too many for a machine",
            f"it has room for {qemu.PCI_DEVICES} devices: put several into one template or one folder",
        )
    type_ = qemu.type_for(devices, pci=found.initramfs or bool(found.mapped))
    return qemu.Settings(
        name=place.id,
        accelerator=found.accelerator,
        type=type_,
        kernel=f"{IMAGES}/kernel",
        memory=memory,
        processors=max(1, math.ceil(workload.resources.cpus)),
        images=images,
        descriptors=descriptors,
        shares=len(place.volumes),
        clone=bool(found.snapshot),
        counter_khz=found.counter_khz,
        initramfs=f"{IMAGES}/initramfs" if found.initramfs else "",
        mapped=found.mapped,
        reporting=devices < (qemu.PCI_DEVICES if type_ == "q35" else qemu.MMIO_DEVICES),  # not worth another type
        debug=qemu.LOOKED_AT if found.watched else "",
        volatile=workload.remove,
    )


_OF_ITS_OWN = {"-name", "-kernel", "-initrd", "-append"}
"""Options of a command line that a clone has not, or with another value."""


def check_same(clone: Machine, source: Machine) -> None:
    """Raise ConflictError unless a saved state of `source` is one of this machine: QEMU would fail, or worse, not."""
    compared = (
        ("QEMU's build", clone.process.rootfs.trees, source.process.rootfs.trees),
        ("the accelerator", clone.accelerator, source.accelerator),
        ("the machine type", clone.type, source.type),
        ("the kernel", clone.kernel, source.kernel),
        ("the memory", clone.memory, source.memory),
        ("the processors", clone.processors, source.processors),
        ("the root", _names(clone.images), _names(source.images)),
        ("the devices", clone.descriptors[: -len(qemu.OF_CLONES)], source.descriptors),
        ("the command line", _comparable(clone), _comparable(source)),
    )
    for what, now, then in compared:
        if now != then:
            raise ConflictError(
                f"{what} of the snapshot is another: {_short(then)}, now {_short(now)}", "take a new snapshot"
            )


def _comparable(machine: Machine) -> tuple[str, ...]:
    """The command line but for what may differ: the name, where the memory comes from, the kernel, which is in it."""
    words = machine.process.argv
    if machine.snapshot:
        words = words[: words.index("-incoming")]
    return tuple(
        word
        for before, word in zip(("", *words), words, strict=False)
        if not {before, word} & _OF_ITS_OWN and not word.startswith(("memory-backend-memfd,", "memory-backend-file,"))
    )


def _names(images: Sequence[str]) -> tuple[str, ...]:
    """Of each image its file's name, which tells what it holds."""
    return tuple(os.path.basename(each).removesuffix(".erofs")[-16:] for each in images)


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) < 200 else f"{text[:200]}..."


def _served(volumes: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, bool], ...]:
    """Where each volume is attached for its server: a file lies alone in a folder, since folders are served."""
    return tuple(
        (f"{VOLUMES}/{number}" if is_folder else f"{VOLUMES}/{number}/{target.rpartition('/')[2]}", is_folder)
        for number, (target, is_folder) in enumerate(volumes)
    )
