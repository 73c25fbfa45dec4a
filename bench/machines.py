"""The configurations that are compared, as starts of machines: the paper's three, and ours on the stock's machine.

`stock`: Debian 12, its kernel, its initramfs, its root. `stockkernel`: Debian's kernel with our image. `q35`: our
kernel with our image on the same machine type; `ours`: on swiftlet's own. All have the same memory and processor, and
QEMU starts their kernels without a boot loader. Ours are given what `swiftlet run` gave the same workload: images,
orders and command line are those of its bundle.
"""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

import msgspec

from bench.boot import ANSWER_PORT, Start
from bench.stock import Stock
from bench.tap import GUEST, HOST, PREFIX, READY_PORT
from swiftlet.guest import orders, qemu
from swiftlet.model.bundle import FIRST_DESCRIPTOR, Bundle, Machine

MEMORY_MIB = 512

_TRACED = "earlyprintk=serial,ttyS0,115200 loglevel=7"


class Host(NamedTuple):
    """What machines run on. accelerator: "kvm" or "tcg". counter_khz: see `qemu.Settings`."""

    accelerator: str
    counter_khz: int


def stock(installed: Stock, host: Host, *, traced: bool) -> Start:
    """Debian 12 as it is installed, on q35 with virtio devices; `quiet` is what its boot loader would say."""
    descriptors = ("console", "tap")
    console, tap = (FIRST_DESCRIPTOR + number for number in range(2))
    words = f"root=/dev/vda ro console=ttyS0 net.ifnames=0 {_TRACED if traced else 'quiet'}"
    argv = (
        qemu.PROGRAM,
        "-name", "stock",
        "-machine", "q35,smbus=off,sata=off,usb=off",
        "-accel", "kvm" if host.accelerator == "kvm" else f"tcg,tb-size={qemu.TRANSLATION_MIB}",
        "-cpu", "host" if host.accelerator == "kvm" else qemu.EMULATED_PROCESSOR,
        "-smp", "1",
        "-m", f"{MEMORY_MIB}M",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", installed.kernel, "-initrd", installed.initrd, "-append", words,
        "-add-fd", f"fd={console},set={console}",
        "-chardev", f"file,id=console,path=/dev/fdset/{console},append=on", "-serial", "chardev:console",
        "-drive", f"file={installed.disk},format=raw,if=none,id=disk,snapshot=on",
        "-device", "virtio-blk-pci,drive=disk",
        "-netdev", f"tap,id=net,fd={tap}", "-device", f"virtio-net-pci,netdev=net,mac={qemu.CARD},romfile=",
        "-device", "virtio-rng-pci",
    )  # fmt: skip
    return Start("stock", argv, descriptors, traced=traced)


def stock_kernel(installed: Stock, bundle: Bundle, host: Host, *, traced: bool) -> Start:
    """Debian's kernel with our image: a small initramfs has the modules that it needs for that."""
    settings = _settings(bundle, host, "q35", installed.kernel, traced=traced)
    argv = (*qemu.argv(settings), "-initrd", installed.loader)
    return Start("stockkernel", argv, settings.descriptors, _orders(bundle), traced)


def ours(bundle: Bundle, kernel: str, host: Host, type_: str, *, traced: bool) -> Start:
    """Our kernel (vmlinux) with our image, on a machine type."""
    settings = _settings(bundle, host, type_, kernel, traced=traced)
    name = "ours" if type_ == "microvm" else type_
    return Start(name, qemu.argv(settings), settings.descriptors, _orders(bundle), traced)


def machine_of(bundle: Bundle) -> Machine:
    """The machine of a bundle that has one."""
    assert bundle.machine is not None
    return bundle.machine


def _settings(bundle: Bundle, host: Host, type_: str, kernel: str, *, traced: bool) -> qemu.Settings:
    machine = machine_of(bundle)
    return qemu.Settings(
        name=f"bench-{type_}",
        accelerator=host.accelerator,
        type=type_,
        kernel=kernel,
        memory=MEMORY_MIB << 20,
        processors=1,
        images=machine.images,
        descriptors=machine.descriptors,
        shares=0,
        counter_khz=host.counter_khz,
        debug=_TRACED if traced else "",
    )


def _orders(bundle: Bundle) -> str:
    """What the guest's first process is told, with an address on the bench's wire and somebody to tell."""
    told = msgspec.structs.replace(
        bundle, argv=(bundle.argv[0], str(ANSWER_PORT), HOST, str(READY_PORT)), rlimits={}, hostname="bench"
    )
    card = orders.Card(qemu.CARD, GUEST, PREFIX, HOST)
    return orders.start(told, machine_of(bundle), card, {}, time.time_ns(), secrets.token_hex(64), {})
