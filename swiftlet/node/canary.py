"""Does KVM work here? A guest of 79 bytes tells: it is run, in a child with a deadline, and must do what they say.

/dev/kvm that opens proves nothing, and neither does a guest in real mode: there are hosts (nested ones) that run it,
even with paging and in 64-bit mode, and fail at the first exception, so that every kernel hangs. The program does what
a kernel's first lines do: from real mode into 64-bit mode with page tables, then through an exception; the handler
writes one byte to an I/O port and returns, and the program halts. Numbers are those of linux/kvm.h; structures are
x86-64's.
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
_GET_SUPPORTED_CPUID, _SET_CPUID2, _MAX_FEATURES = 0xC008AE05, 0x4008AE90, 100
_EXIT_IO, _EXIT_HLT, _EXIT_SHUTDOWN, _EXIT_INTERNAL_ERROR = 2, 5, 8, 17

_TSS = 0x7FFBD000
"""Three pages below 4 GiB that Intel processors without unrestricted guests need for real mode; not in any slot."""

_PORT, _BYTE = 0x3F8, ord("s")
_CODE, _TABLES, _MEMORY = 0x1000, 0x2000, 0x4000
"""Guest addresses of the program and of three page tables behind it; bytes of memory, which begins at the program."""

_PROGRAM = bytes.fromhex(
    "66b820000000 0f22e0"  # mov eax, CR4.PAE; mov cr4, eax
    "66b800200000 0f22d8"  # mov eax, TABLES; mov cr3, eax
    "66b9800000c0 0f32 80cc01 0f30"  # EFER.LME on
    "660f01169010"  # lgdt [0x1090]
    "66b811000080 0f22c0"  # CR0: protection and paging on
    "ea33100800"  # jmp 8:0x1033, from here on 64-bit
    "31c0 8ed0 bc001f0000"  # ss: null; rsp: 0x1f00
    "0f011c25a0100000"  # lidt [0x10a0]
    "cc f4"  # int3; hlt
    "b073 66baf803 ee 48cf"  # 0x1046, where int3 leads: mov al, BYTE; mov dx, PORT; out dx, al; iretq
)
_DESCRIPTORS = {
    0x80: struct.pack("<QQ", 0, 0x00209A0000000000),  # the null and a 64-bit code segment
    0x90: struct.pack("<HI", 15, _CODE + 0x80),  # what lgdt reads
    0xA0: struct.pack("<HQ", 63, _CODE + 0xC0),  # what lidt reads
    0xF0: struct.pack("<HHHHQ", _CODE + 0x46, 8, 0x8E00, 0, 0),  # the gate of vector 3
}
"""Offset in the program's page -> bytes."""

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
        return Verdict(False, f"{path} opens, but a guest of 79 bytes has not run after {seconds:.0f} s")
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
    memory = _memory()
    fcntl.ioctl(machine, _SET_TSS_ADDR, _TSS)
    region = struct.pack("=IIQQQ", 0, 0, _CODE, _MEMORY, _address(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, region)
    processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    features = bytearray(struct.pack("=II", _MAX_FEATURES, 0) + bytes(40 * _MAX_FEATURES))
    fcntl.ioctl(kvm, _GET_SUPPORTED_CPUID, features)
    fcntl.ioctl(processor, _SET_CPUID2, features)
    state = mmap.mmap(processor, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    _point_at(processor, _CODE)
    fcntl.ioctl(processor, _RUN, 0)
    reason = struct.unpack_from("=I", state, 8)[0]
    if reason in (_EXIT_SHUTDOWN, _EXIT_INTERNAL_ERROR):
        return f"{path} opens and a guest begins, but it fails at its first exception, as every kernel would"
    if reason != _EXIT_IO:
        return f"the guest left for reason {reason} instead of writing to its port"
    fcntl.ioctl(processor, _RUN, 0)
    reason = struct.unpack_from("=I", state, 8)[0]
    return "works" if reason == _EXIT_HLT else f"the guest left for reason {reason} instead of halting"


def _memory() -> mmap.mmap:
    """The program, its descriptors, and tables that map the first 2 MiB onto themselves."""
    memory = mmap.mmap(-1, _MEMORY)
    memory[: len(_PROGRAM)] = _PROGRAM
    for offset, descriptor in _DESCRIPTORS.items():
        memory[offset : offset + len(descriptor)] = descriptor
    present_writable, huge = 3, 0x80
    entries = (_TABLES + 0x1000 | present_writable, _TABLES + 0x2000 | present_writable, present_writable | huge)
    for number, entry in enumerate(entries):
        struct.pack_into("<Q", memory, _TABLES - _CODE + 0x1000 * number, entry)
    return memory


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
