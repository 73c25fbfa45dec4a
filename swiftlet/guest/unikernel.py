"""The unikernel driver: a program of tasks as a machine of its own, without an operating system in it. Pure.

Around it is the same QEMU in the same walls as a virtual machine's; what is inside needs no root, no disk and no clock.
"""

from __future__ import annotations

import math

import msgspec

from swiftlet.guest import qemu
from swiftlet.guest.container import ContainerDriver
from swiftlet.guest.driver import MachinePlace, Place
from swiftlet.guest.machine import HEADROOM, IMAGES, THREADS
from swiftlet.model.bundle import Bundle, Hypervisor, Machine, Rootfs
from swiftlet.model.error import InputError
from swiftlet.model.workload import Resources, Workload

DEFAULT_MEMORY = 32 << 20
LEAST_MEMORY = 4 << 20

EACH_PROCESSOR = 212 << 10
"""Stacks, and the least that its tasks and its part of the calls have (`unikernel.kernel.main.share_memory`)."""

OVERHEAD = 96 << 20
"""Memory that QEMU takes besides the guest's."""

MOST_PROCESSORS = 255
"""What xAPIC's numbers reach; QEMU 7.2 emulates no x2APIC."""

PORT = 7000
"""Where every unikernel listens (UDP)."""


class UnikernelDriver:
    """Guests that are a program of tasks and nothing else."""

    kind = "unikernel"
    features: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._around = ContainerDriver()

    def plan(self, workload: Workload, rootfs: Rootfs, place: Place) -> Bundle:
        """See `Driver.plan`."""
        if place.machine is None:
            raise InputError("no machine was prepared")
        _refuse(workload)
        memory = memory_of(workload)
        around = self._around.plan(_on_host(workload, memory), rootfs, place)
        machine = _machine(workload, place, place.machine, memory)
        return msgspec.structs.replace(around, workload=workload, netns="new", userns=0, machine=machine)


def memory_of(workload: Workload) -> int:
    """Bytes of memory of the guest, in whole MiB. Raises InputError."""
    asked = workload.resources.memory or DEFAULT_MEMORY
    if asked < LEAST_MEMORY:
        raise InputError(
            f"$.resources.memory: {asked} bytes are too little for a unikernel",
            f"give it {LEAST_MEMORY >> 20}M or more",
        )
    least = LEAST_MEMORY + (processors_of(workload) - 1) * EACH_PROCESSOR
    if asked < least:
        raise InputError(
            f"$.resources.memory: {asked >> 20} MiB are too little for {processors_of(workload)} processors",
            f"give it {-(-least >> 20)}M or more",
        )
    return asked & -(1 << 20)


_NOT_FOR_TASKS = (
    ("templates", "a unikernel has no files"),
    ("volumes", "a unikernel has no files"),
    ("tmpfs", "a unikernel has no files"),
    ("env", "a unikernel has no environment"),
    ("workdir", "a unikernel has no folders"),
    ("user", "a unikernel has no users"),
    ("tty", "a unikernel has no terminal"),
    ("interactive", "a unikernel reads no input: call its tasks"),
    ("kernel", "a unikernel is its own kernel"),
    ("userns", "a unikernel shares no users with the host"),
)


def _refuse(workload: Workload) -> None:
    """What a unikernel cannot do, rather than something else that was not asked for."""
    for member, reason in _NOT_FOR_TASKS:
        if getattr(workload, member):
            raise InputError(f"$.{member}: {reason}", "leave it out, or start a Linux machine: --as vm")
    if workload.resources.disk:
        raise InputError("$.resources.disk: a unikernel has no disk", "leave --disk out")
    if workload.network == "host":
        raise InputError("$.network: a machine has no part in the host's network", f"publish: -p {PORT}/udp")
    for port in workload.ports:
        if port.protocol != "udp":
            raise InputError(f"$.ports: a unikernel speaks UDP only, not tcp {port.guest}", f"-p {PORT}:{PORT}/udp")
        if port.guest != PORT:
            raise InputError(f"$.ports: a unikernel listens on {PORT} only, not {port.guest}", f"-p {PORT}:{PORT}/udp")
    if processors_of(workload) > MOST_PROCESSORS:
        raise InputError(f"$.resources.cpus: a unikernel has {MOST_PROCESSORS} processors at most here")


def processors_of(workload: Workload) -> int:
    """How many processors it gets."""
    return max(1, math.ceil(workload.resources.cpus))


def _on_host(workload: Workload, memory: int) -> Workload:
    """The workload with the limits of the host's process."""
    asked = workload.resources
    cpus = asked.cpus + HEADROOM if asked.cpus else 0.0
    threads = THREADS + processors_of(workload)
    limits = Resources(memory + OVERHEAD if asked.memory else 0, cpus, asked.cpu_weight, threads)
    return msgspec.structs.replace(workload, resources=limits, command=(workload.program,))


def _machine(workload: Workload, place: Place, found: MachinePlace, memory: int) -> Machine:
    kernel = f"{IMAGES}/kernel"
    descriptors = qemu.unikernel_channels(network=workload.network == "bridge")
    settings = qemu.Settings(
        name=place.id,
        accelerator=found.accelerator,
        type="microvm",
        kernel=kernel,
        memory=memory,
        processors=processors_of(workload),
        images=(),
        descriptors=descriptors,
        shares=0,
        words=f"master={workload.master} placement={workload.placement}",
    )
    process = Hypervisor(
        rootfs=found.hypervisor,
        argv=qemu.unikernel_argv(settings),
        uid=found.user,
        gid=found.user,
        volumes=((kernel, False),),
        seccomp=place.seccomp,
        volatile=workload.remove,
    )
    return Machine(
        process=process,
        accelerator=found.accelerator,
        why=found.why,
        type="microvm",
        kernel=found.kernel,
        memory=memory,
        processors=settings.processors,
        images=(),
        descriptors=descriptors,
    )
