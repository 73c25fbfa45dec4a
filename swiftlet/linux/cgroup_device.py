"""Which device nodes a guest may use: one list, for the v1 `devices` controller and as an eBPF program for v2.

Version 2 of control groups has no devices controller; the kernel asks a BPF_PROG_TYPE_CGROUP_DEVICE program
instead (kernel: Documentation/admin-guide/cgroup-v2.rst, "Device controller"). The program is assembled here by
hand: nothing but the bpf(2) system call is needed. Making the nodes in /dev is the launcher's business.
"""

from __future__ import annotations

import ctypes
import os
import struct

from swiftlet.linux.syscall import call

ANY = -1
"""A major or minor number that matches all."""

DEVICE_RULES: tuple[tuple[str, int, int, str], ...] = (
    ("c", 1, 3, "rwm"),  # /dev/null
    ("c", 1, 5, "rwm"),  # /dev/zero
    ("c", 1, 7, "rwm"),  # /dev/full
    ("c", 1, 8, "rwm"),  # /dev/random
    ("c", 1, 9, "rwm"),  # /dev/urandom
    ("c", 5, 0, "rwm"),  # /dev/tty
    ("c", 5, 1, "rwm"),  # /dev/console
    ("c", 5, 2, "rwm"),  # /dev/ptmx
    ("c", 136, ANY, "rwm"),  # /dev/pts/*
    ("c", ANY, ANY, "m"),  # making a node is harmless: opening it is what is refused
    ("b", ANY, ANY, "m"),
)
"""What docker permits by default: (type, major, minor, access of r, w, m).

The numbers are those of the kernel's Documentation/admin-guide/devices.txt.
"""

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*, linux/bpf.h
_TYPE = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*

_SYS_BPF = 321
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_TYPE_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2  # every program of the group and of its ancestors must agree

_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE, _MOVE_REGISTER = 0xB7, 0xBF
_AND, _SHIFT_RIGHT = 0x57, 0x77
_JUMP_UNEQUAL = 0x55
_EXIT = 0x95

_Instruction = tuple[int, int, int, int, int]  # opcode, destination, source, offset, immediate


def control_lines() -> tuple[tuple[str, str], ...]:
    """The list as (file, value) for the v1 controller, in the order in which it must be written."""

    def number(value: int) -> str:
        return "*" if value == ANY else str(value)

    lines = [("devices.deny", "a")]
    for kind, major, minor, access in DEVICE_RULES:
        lines.append(("devices.allow", f"{kind} {number(major)}:{number(minor)} {access}"))
    return tuple(lines)


def device_program() -> bytes:
    """The list as eBPF: 1 is returned for what a rule permits, else 0."""
    program: list[_Instruction] = [
        (_LOAD_WORD, 2, 1, 0, 0),  # r2 = access << 16 | type
        (_LOAD_WORD, 4, 1, 4, 0),  # r4 = major
        (_LOAD_WORD, 5, 1, 8, 0),  # r5 = minor
        (_MOVE_REGISTER, 3, 2, 0, 0),
        (_SHIFT_RIGHT, 3, 0, 0, 16),  # r3 = access
        (_AND, 2, 0, 0, 0xFFFF),  # r2 = type
    ]
    for rule in DEVICE_RULES:
        program += _rule(*rule)
    program += [(_MOVE, 0, 0, 0, 0), (_EXIT, 0, 0, 0, 0)]
    return b"".join(
        struct.pack("<BBhi", code, destination | source << 4, offset, immediate)
        for code, destination, source, offset, immediate in program
    )


def _rule(kind: str, major: int, minor: int, access: str) -> list[_Instruction]:
    """Return 1 when all of the rule holds, else go on behind it."""
    permitted = sum(_ACCESS[letter] for letter in access)
    body: list[_Instruction] = []
    if permitted != 7:
        body += [(_MOVE_REGISTER, 6, 3, 0, 0), (_AND, 6, 0, 0, 7 & ~permitted), (_JUMP_UNEQUAL, 6, 0, 0, 0)]
    body.append((_JUMP_UNEQUAL, 2, 0, 0, _TYPE[kind]))
    if major != ANY:
        body.append((_JUMP_UNEQUAL, 4, 0, 0, major))
    if minor != ANY:
        body.append((_JUMP_UNEQUAL, 5, 0, 0, minor))
    body += [(_MOVE, 0, 0, 0, 1), (_EXIT, 0, 0, 0, 0)]
    end = len(body)
    return [
        (code, to, source, end - place - 1 if code == _JUMP_UNEQUAL else 0, immediate)
        for place, (code, to, source, _, immediate) in enumerate(body)
    ]


def load_device_filter() -> int:
    """Give the program to the kernel: a close-on-exec descriptor that can be attached to any number of groups.

    Raises OSError (ENOSYS, EINVAL: a kernel without it; EPERM: no CAP_BPF or CAP_SYS_ADMIN).
    """
    code = device_program()
    instructions = ctypes.create_string_buffer(code, len(code))
    license_name = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
        *(0, 0, 0, 0, 0),
        b"swiftlet_device",
    )
    return _bpf(_PROG_LOAD, attributes, "device filter")


def attach_device_filter(group: int, program: int = -1) -> None:
    """Let the program decide for the v2 cgroup whose folder `group` is a descriptor of; it leaves with the group.

    program: from `load_device_filter`; without it one is loaded for this call. Raises OSError.
    """
    own = load_device_filter() if program < 0 else -1
    try:
        used = own if program < 0 else program
        attributes = struct.pack("<IIII", group, used, _ATTACH_TYPE_CGROUP_DEVICE, _ALLOW_MULTI)
        _bpf(_PROG_ATTACH, attributes, "device filter on a cgroup")
    finally:
        if own >= 0:
            os.close(own)


def _bpf(command: int, attributes: bytes, what: str) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return call(_SYS_BPF, command, buffer, len(attributes), about=what)
