"""QEMU's command line as a pure function of what the machine is to be. Nothing here runs anything.

Everything that QEMU opens besides its images comes to it as a descriptor, so that its user needs to reach no file, no
socket and no network of the host's. Options are those of QEMU 7.2; the reasons for the odd ones stand beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from swiftlet.model.bundle import FIRST_DESCRIPTOR

PROGRAM = "/usr/bin/qemu-system-x86_64"

EXECS = 6
"""Commands that may run in a guest besides its workload at one time. Each gets a port when it begins, for a port takes
4 MiB of a guest's memory: the driver fills its queue with pages, and a microvm's queues have 1,024 places."""

ORDERS_PORT, OUTPUT_PORT, ERROR_PORT, INPUT_PORT, EXEC_PORT = 1, 2, 3, 4, 5

MMIO_DEVICES = 8
"""What microvm has room for (QEMU 7.2: VIRTIO_NUM_TRANSPORTS without an IO-APIC of its own for more)."""

PCI_DEVICES = 30
"""What q35 has room for besides its own (QEMU 7.2, measured)."""

CARD = "52:54:00:00:00:01"
"""Every machine's card has this address until its guest is told its own: so that a clone's command line is the same."""

UNIKERNEL_EXIT_PORT = 0x501
"""Where a unikernel writes to end its machine (`unikernel.kernel.power`)."""

EMULATED_PROCESSOR = "max,-erms"
"""Everything that can be emulated, but for copying by bytes: to a kernel that believes it to be quick, as it is on a
processor that was made for it, a page is 4,096 steps instead of 512. A start of Python takes 9 % less without."""

TRANSLATION_MIB = 64
"""Emulation keeps translated code in a buffer of its own; by default it would take a quarter of the host's memory."""


class Settings(NamedTuple):
    """A machine. memory: bytes. images: paths that QEMU sees, the machine's own root first.

    descriptors: names, in the order of their numbers. shares: how many folders are served. clone: it goes on from a
    saved state instead of booting. counter_khz: how fast the host's time stamp counter counts, 0 for not known. debug:
    words for the kernel instead of `quiet`. initramfs: that the kernel starts from, "" for none. mapped: bytes of every
    image but the first, where the guest maps them instead of reading them as disks. reporting: the guest tells which
    memory it has freed, and the host has it back. volatile: its disk need not survive a power failure.
    words: for a unikernel (`unikernel.kernel.options`).
    """

    name: str
    accelerator: str
    type: str
    kernel: str
    memory: int
    processors: int
    images: tuple[str, ...]
    descriptors: tuple[str, ...]
    shares: int
    clone: bool = False
    counter_khz: int = 0
    debug: str = ""
    initramfs: str = ""
    mapped: tuple[int, ...] = ()
    reporting: bool = False
    volatile: bool = False
    words: str = ""


INPUT = "input"
"""Of this descriptor QEMU makes no use: the workload's input is the machine's own standard input, for it can read
nothing else (`-chardev file` only writes until 8.2)."""


_MAPPED_STEP = 2 << 20
"""Bytes of which the address and the size of what is mapped are multiples (`image.erofs`)."""

DEBUGGER = "debugger"
"""Where a machine that is looked at while it starts serves the debugger's protocol (`guest.gdbstub`)."""

LOOKED_AT = "quiet initcall_debug log_buf_len=512K"
"""What its kernel is told: to note each initcall in memory, and still to print nothing, for that takes time.
There is room for the initcalls of large kernels; 4M took 35 ms to clear, for it comes with as many records."""

DISK = "disk"
"""A file that the guest writes to: what it changes of its root."""

OF_CLONES = ("memory", "state", "script")
"""Descriptors that a clone inherits besides those of the machine that was saved."""


def channels(
    *,
    terminal: bool,
    input_: bool,
    network: bool,
    shares: int,
    disk: bool = False,
    clone: bool = False,
    debugger: bool = False,
) -> tuple[str, ...]:
    """The names of the descriptors that a machine inherits."""
    names = ["orders", "console", "output"]
    if not terminal:
        names.append("errors")
    if input_ or terminal:
        names.append(INPUT)
    names.append("monitor")
    if debugger:
        names.append(DEBUGGER)
    if network:
        names.append("tap")
    if disk:
        names.append(DISK)
    names += [f"share{number}" for number in range(shares)]
    return (*names, *OF_CLONES) if clone else tuple(names)


def plug(number: int, name: str) -> tuple[tuple[str, dict[str, object]], ...]:
    """What a monitor is told to add a port whose other end is the descriptor `name`, which QEMU was given."""
    address = {"type": "fd", "data": {"str": name}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    device = {"driver": "virtserialport", "bus": "serial.0", "nr": number, "chardev": name, "id": f"port-{name}"}
    return (("chardev-add", {"id": name, "backend": backend}), ("device_add", {**device, "name": name}))


def unplug(name: str) -> tuple[tuple[str, dict[str, object]], ...]:
    """What a monitor is told to take a port away again."""
    return (("device_del", {"id": f"port-{name}"}), ("chardev-remove", {"id": name}))


GO = f"{json.dumps({'execute': 'cont'})}\n"
"""To go on, as soon as the state has been read."""

HALT = f"{json.dumps({'execute': 'stop'})}\n"
"""To stand still until the next `GO`."""


def script(descriptors: Sequence[str]) -> str:
    """What a clone's monitor is told before anybody can ask it anything: to read the state that it inherits, and wait.

    `GO` goes behind it, at once or when the clone is wanted. Memory is in a file of its own (`x-ignore-shared`), which
    can be said on no command line. And QEMU is to announce no address: all clones have their snapshot's until their
    guests are told their own.
    """
    capability = {"capability": "x-ignore-shared", "state": True}
    commands = (
        {"execute": "qmp_capabilities"},
        {"execute": "migrate-set-capabilities", "arguments": {"capabilities": [capability]}},
        {"execute": "migrate-set-parameters", "arguments": {"announce-rounds": 0}},
        {
            "execute": "migrate-incoming",
            "arguments": {"uri": f"fd:{FIRST_DESCRIPTOR + list(descriptors).index('state')}"},
        },
    )
    return "".join(f"{json.dumps(command)}\n" for command in commands)


def argv(settings: Settings) -> tuple[str, ...]:
    """The command line."""
    words = [
        PROGRAM,
        *_descriptor_sets(settings),
        *_machine(settings),
        *([] if settings.clone else _kernel(settings)),  # its memory has it
        *_console(settings),
        *_serial_ports(settings),
        *_disks(settings),
        *_network(settings),
        *_shares(settings),
        "-device", f"virtio-rng-{_bus(settings)}",
        *(["-device", f"virtio-balloon-{_bus(settings)},free-page-reporting=on"] if settings.reporting else []),
        "-chardev", f"socket,id=monitor,fd={_number(settings, 'monitor')},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]  # fmt: skip
    if DEBUGGER in settings.descriptors:
        words += ["-chardev", f"socket,id={DEBUGGER},fd={_number(settings, DEBUGGER)},server=on,wait=off"]
        words += ["-gdb", f"chardev:{DEBUGGER}", "-S"]  # or it may have run on before the watcher is heard
    if settings.clone:
        words += ["-incoming", "defer", "-S"]
        words += [
            "-chardev",
            f"socket,id=script,fd={_number(settings, 'script')}",
            "-mon",
            "chardev=script,mode=control",
        ]
    return tuple(words)


def unikernel_channels(*, network: bool) -> tuple[str, ...]:
    """The names of the descriptors that a unikernel's machine inherits."""
    return ("orders", "console", "output", "monitor", *(("tap",) if network else ()))


def unikernel_argv(settings: Settings) -> tuple[str, ...]:
    """The command line of a machine in which nothing is but a unikernel: no clock ticks in it.

    Its words go to the first serial port; orders and reports over the second one (`unikernel.kernel.orders`). Without
    ACPI it starts 2 ms earlier, for nobody makes tables, and ends by the port that it has for that.
    """
    tcg = settings.accelerator == "tcg"
    return (
        PROGRAM,
        "-add-fd", f"fd={_number(settings, 'output')},set={_number(settings, 'output')}",
        "-name", settings.name,
        "-machine", "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=on,dump-guest-core=off",
        "-accel", f"tcg,tb-size={TRANSLATION_MIB}" if tcg else "kvm",
        "-cpu", EMULATED_PROCESSOR if tcg else "host",
        "-smp", _processors(settings),
        "-m", f"{settings.memory >> 20}M",
        "-global", "virtio-mmio.force-legacy=false",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", settings.kernel,
        "-append", f"orders= {settings.words}".rstrip(),
        "-chardev", _sink(settings, "output"), "-serial", "chardev:output",
        "-chardev", f"socket,id=orders,fd={_number(settings, 'orders')}",
        "-device", "isa-serial,index=1,chardev=orders",
        "-device", f"isa-debug-exit,iobase={UNIKERNEL_EXIT_PORT:#x},iosize=1",
        *_network(settings),
        "-chardev", f"socket,id=monitor,fd={_number(settings, 'monitor')},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )  # fmt: skip


def _machine(settings: Settings) -> list[str]:
    tcg = settings.accelerator == "tcg"
    # pit=off and pic=off hang a guest under emulation; with rtc=off it waits 2 s for a clock that is not there. Our
    # kernels have no driver for that clock, which would take the interrupt of the fourth virtio device.
    options = ",acpi=off,isa-serial=on,rtc=on" if settings.type == "microvm" else ",smbus=off,sata=off,usb=off"
    return [
        "-name", settings.name,
        "-machine", f"{settings.type}{options},memory-backend=ram,dump-guest-core=off",
        "-accel", f"tcg,tb-size={TRANSLATION_MIB}" if tcg else "kvm",
        "-cpu", EMULATED_PROCESSOR if tcg else "host",
        "-smp", _processors(settings),
        "-m", _room(settings),
        "-object", _memory(settings),
        "-global", "virtio-mmio.force-legacy=false",  # servers of volumes speak virtio 1 only
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
    ]  # fmt: skip


def _room(settings: Settings) -> str:
    """The guest's memory, and how far the addresses behind it go: what it maps has a place there."""
    behind = sum(size + _MAPPED_STEP for size in settings.mapped)
    own = settings.memory >> 20
    return f"{own}M,maxmem={own + -(-behind >> 30 << 10)}M" if behind else f"{own}M"


def _processors(settings: Settings) -> str:
    """Each a socket of its own: of a socket's processors SeaBIOS tells only the first to a kernel without ACPI."""
    count = settings.processors
    return f"{count},sockets={count}" if count > 1 else "1"


def _memory(settings: Settings) -> str:
    """The guest's memory: a file that others can have too; of a clone, a private mapping of a snapshot's."""
    size = f"id=ram,size={settings.memory}"
    if not settings.clone:
        return f"memory-backend-memfd,{size},share=on"
    return f"memory-backend-file,{size},mem-path=/proc/self/fd/{_number(settings, 'memory')},share=off"


def _kernel(settings: Settings) -> list[str]:
    words = [
        "console=ttyS0",
        settings.debug or "quiet",
        "root=/dev/vda",
        "rootfstype=erofs",
        "ro",
        "init=/init",
        "reboot=t",
        "panic=-1",
        "random.trust_cpu=on",
        *_not_probed(settings),
        *_clocks(settings),
        "ip=off",  # a kernel for disk images would ask for an address, and init is told it
    ]
    initramfs = ["-initrd", settings.initramfs] if settings.initramfs else []
    return ["-kernel", settings.kernel, *initramfs, "-append", " ".join(words)]


def _not_probed(settings: Settings) -> list[str]:
    """What a kernel need not find out or wait for on a machine that we know: together a fifth of its start, emulated.

    One serial port, ports that need no pause, and where there is no PCI, none. Whether the timer's interrupts come it
    would try for ten ticks (arch/x86/kernel/apic/io_apic.c, timer_irq_works): emulated on a busy host they may come
    later, and it panics. Emulated, a lock costs what no lock does, and patching all of a kernel's for its one processor
    switches page tables 25,000 times.
    """
    words = ["8250.nr_uarts=1", "io_delay=none", "no_timer_check"]
    if settings.type == "microvm":
        words.append("pci=off")
    if settings.accelerator == "tcg":
        words.append("noreplace-smp")
    return words


def _clocks(settings: Settings) -> list[str]:
    """What an emulated guest cannot find out, since a microvm has no other clock to measure the counter with.

    Without it time goes in steps of 4 ms. One processor needs no timer of its own besides the machine's: measuring
    how fast that counts takes 200 ms of every start. With KVM the guest is told both.
    """
    if settings.accelerator != "tcg" or not settings.counter_khz:
        return []
    return [
        f"tsc_early_khz={settings.counter_khz}",
        "tsc=reliable",
        *(["nolapic_timer"] if settings.processors == 1 else []),
    ]


def _console(settings: Settings) -> list[str]:
    """The kernel's console goes where QEMU's own messages go."""
    return ["-chardev", _sink(settings, "console"), "-serial", "chardev:console"]


def _serial_ports(settings: Settings) -> list[str]:
    """One virtio device with a port for each thing that is said between host and guest (docs/vms.md)."""
    ports = [(ORDERS_PORT, "orders", f"socket,id=orders,fd={_number(settings, 'orders')}")]
    ports.append((OUTPUT_PORT, "output", _sink(settings, "output")))
    if "errors" in settings.descriptors:
        ports.append((ERROR_PORT, "errors", _sink(settings, "errors")))
    if INPUT in settings.descriptors:
        ports.append((INPUT_PORT, INPUT, f"stdio,id={INPUT},signal=off"))
    words = ["-device", f"virtio-serial-{_bus(settings)},id=serial,max_ports={EXEC_PORT + EXECS}"]
    for number, name, backend in ports:
        words += ["-chardev", backend, "-device", f"virtserialport,chardev={name},nr={number},name={name}"]
    return words


def _sink(settings: Settings, name: str) -> str:
    """A character device that writes to an inherited descriptor."""
    number = _number(settings, name)
    return f"file,id={name},path=/dev/fdset/{number},append=on"


def _descriptor_sets(settings: Settings) -> list[str]:
    """Files that are opened by a name can be descriptors too, when they are announced as a set of one."""
    words: list[str] = []
    for name in ("console", "output", "errors", DISK):
        if name in settings.descriptors:
            words += ["-add-fd", f"fd={_number(settings, name)},set={_number(settings, name)}"]
    return words


def _disks(settings: Settings) -> list[str]:
    words: list[str] = []
    for number, (path, size) in enumerate(zip(settings.images[1:], settings.mapped, strict=False)):
        # A mapping that nobody can write through, whose pages all guests have in common.
        words += [
            "-object", f"memory-backend-file,id=mapped{number},size={size},mem-path={path},share=on,readonly=on",
            "-device", f"virtio-pmem-pci,memdev=mapped{number}",
        ]  # fmt: skip
    for number, path in enumerate(settings.images[: 1 if settings.mapped else None]):
        words += [
            "-blockdev", f"driver=file,node-name=image{number},filename={path},read-only=on,locking=off",
            "-device", f"virtio-blk-{_bus(settings)},drive=image{number}",
        ]  # fmt: skip
    if DISK in settings.descriptors:
        # A full host is the guest's error, not a machine that stands still; what it removes goes back to the host.
        number = _number(settings, DISK)
        file = f"driver=file,node-name=disk,filename=/dev/fdset/{number},locking=off,discard=unmap"
        words += [
            "-blockdev", f"{file},cache.no-flush=on" if settings.volatile else file,
            "-device", f"virtio-blk-{_bus(settings)},drive=disk,werror=report,rerror=report",
        ]  # fmt: skip
    return words


def _network(settings: Settings) -> list[str]:
    if "tap" not in settings.descriptors:
        return []
    # What a clone would announce when it goes on, before it is told its own, is its snapshot's address.
    device = f"virtio-net-{_bus(settings)},netdev=net,mac={CARD},guest_announce=off"
    rom = "" if settings.type == "microvm" else ",romfile="
    return ["-netdev", f"tap,id=net,fd={_number(settings, 'tap')}", "-device", f"{device}{rom}"]


def _shares(settings: Settings) -> list[str]:
    words: list[str] = []
    for number in range(settings.shares):
        name = f"share{number}"
        words += [
            "-chardev", f"socket,id={name},fd={_number(settings, name)}",
            "-device", f"vhost-user-fs-{_bus(settings)},chardev={name},tag={name}",
        ]  # fmt: skip
    return words


def _bus(settings: Settings) -> str:
    return "device" if settings.type == "microvm" else "pci"


def _number(settings: Settings, name: str) -> int:
    return FIRST_DESCRIPTOR + settings.descriptors.index(name)


def type_for(devices: int, *, pci: bool = False) -> str:
    """The machine type that has room for so many virtio devices: microvm starts faster.

    pci: something needs it. A kernel whose drivers are modules finds devices there only: of a microvm's it is told by
    words that a driver must be there to read (VIRTIO_MMIO_CMDLINE_DEVICES), which distributions leave out.
    """
    return "microvm" if devices <= MMIO_DEVICES and not pci else "q35"


def device_count(descriptors: Sequence[str], images: int, shares: int) -> int:
    """Virtio devices of a machine: the serial one, entropy, a card, disks, shares."""
    return 2 + ("tap" in descriptors) + (DISK in descriptors) + images + shares
