"""Does KVM work here? A guest of eight bytes tells: it is run, in a child with a deadline, and must do what they say.

/dev/kvm that opens proves nothing: on some hosts a virtual processor never gets anywhere. The program runs in real
mode, writes one byte to an I/O port and halts. Numbers are those of linux/kvm.h; structures are x86-64's.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import signal
import struct
from typing import NamedTuple

DEADLINE_SECONDS = 2.0

_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _SET_TSS_ADDR, _RUN = 0xAE41, 0xAE47, 0xAE80
_SET_USER_MEMORY_REGION = 0x4020AE46
_GET_SREGS, _SET_SREGS, _SET_REGS = 0x8138AE83, 0x4138AE84, 0x4090AE82
_EXIT_IO, _EXIT_HLT = 2, 5

_TSS = 0x7FFBD000
"""Three pages below 4 GiB that Intel processors without unrestricted guests need for real mode; not in any slot."""

_PORT, _BYTE = 0x3F8, ord("s")
_PROGRAM = bytes((0xB8, _BYTE, 0x00, 0xBA, _PORT & 0xFF, _PORT >> 8, 0xEE, 0xF4))
"""mov ax, BYTE; mov dx, PORT; out dx, al; hlt."""

_CS_BASE, _CS_SELECTOR = 0, 12
"""Offsets in struct kvm_sregs, which begins with the code segment: base u64, limit u32, selector u16."""


class Verdict(NamedTuple):
    """works: the guest did all that its program says. detail: a sentence fragment for people."""

    works: bool
    detail: str


def try_kvm(path: str = "/dev/kvm", seconds: float = DEADLINE_SECONDS) -> Verdict:
    """Run the canary. Takes `seconds` at most, whatever the kernel does with it."""
    if not os.path.exists(path):
        return Verdict(False, f"{path} is not there")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _sing(path, writer)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], seconds)
        text = os.read(reader, 200).decode() if ready else ""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _collect(child)
    if not ready:
        return Verdict(False, f"{path} opens, but a guest of eight bytes has not run after {seconds:.0f} s")
    return Verdict(text == "works", "a guest ran" if text == "works" else text or "the canary died")


def _collect(child: int) -> None:
    """Wait for the killed child, but not for one that hangs in the kernel: that is left to whoever inherits it."""
    pidfd = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(1000):
            os.waitpid(child, 0)
    finally:
        os.close(pidfd)


def _sing(path: str, writer: int) -> None:
    """In the child: run the guest and tell what happened. Never returns."""
    signal.alarm(10)
    try:
        os.write(writer, _run(path).encode())
    except Exception as error:
        os.write(writer, f"{path}: {error}".encode())
    finally:
        os._exit(0)


def _run(path: str) -> str:
    kvm = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    version = fcntl.ioctl(kvm, _GET_API_VERSION, 0)
    if version != 12:
        return f"KVM of version {version}, not 12"
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory.write(_PROGRAM)
    fcntl.ioctl(machine, _SET_TSS_ADDR, _TSS)
    region = struct.pack("=IIQQQ", 0, 0, 0x1000, mmap.PAGESIZE, _address(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, region)
    processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    state = mmap.mmap(processor, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    _point_at(processor, 0x1000)
    fcntl.ioctl(processor, _RUN, 0)
    if struct.unpack_from("=I", state, 8)[0] != _EXIT_IO:
        return f"the guest left for reason {struct.unpack_from('=I', state, 8)[0]} instead of writing to its port"
    fcntl.ioctl(processor, _RUN, 0)
    reason = struct.unpack_from("=I", state, 8)[0]
    return "works" if reason == _EXIT_HLT else f"the guest left for reason {reason} instead of halting"


def _point_at(processor: int, address: int) -> None:
    """Let the processor begin at `address` in real mode: code segment base 0, instruction pointer there."""
    segments = bytearray(312)
    fcntl.ioctl(processor, _GET_SREGS, segments)
    struct.pack_into("=Q", segments, _CS_BASE, 0)
    struct.pack_into("=H", segments, _CS_SELECTOR, 0)
    fcntl.ioctl(processor, _SET_SREGS, bytes(segments))
    # struct kvm_regs: sixteen general registers, then rip and rflags (bit 1 is always set)
    fcntl.ioctl(processor, _SET_REGS, struct.pack("=18Q", *[0] * 16, address, 2))


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
