"""Capabilities: their names and numbers, docker's defaults, and giving up all others before a guest's program runs.

The order in a guest's process is `drop_to`, then `no_new_privileges`, then the seccomp program, then execve. Which
capabilities a guest keeps is decided above; `kept` only does docker's arithmetic of --cap-add and --cap-drop.
See capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from swiftlet.linux.syscall import call, prctl

NAMES: tuple[str, ...] = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""The name without CAP_ of each number, as in linux/capability.h."""

NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

DEFAULT: frozenset[int] = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
"""Docker's fourteen: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT
MKNOD AUDIT_WRITE SETFCAP."""

ALL: frozenset[int] = frozenset(range(len(NAMES)))

_CAPGET, _CAPSET, _SYS_PRCTL = 125, 126, 157
_VERSION = 0x20080522
SET_KEEPCAPS = 8
_CAPBSET_DROP, _CAP_AMBIENT, _SET_NO_NEW_PRIVS = 24, 47, 38
_AMBIENT_CLEAR_ALL = 4
_UNCHANGED = 0xFFFFFFFF

# Made once, at import: in a freshly cloned process each first use of ctypes costs tens of microseconds.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_header = ctypes.create_string_buffer(struct.pack("<II", _VERSION, 0), 8)
_sets = ctypes.create_string_buffer(24)


def number_of(name: str) -> int:
    """The number of `NET_ADMIN`, `CAP_NET_ADMIN` or `net_admin`. Raises ValueError for a name that is none."""
    short = name.upper().removeprefix("CAP_")
    if short not in NUMBERS:
        raise ValueError(f"no such capability: {name}")
    return NUMBERS[short]


def kept(add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> frozenset[int]:
    """Docker's defaults with and without some; either list may hold ALL, and a name in both is kept as docker does.

    Raises ValueError for a name that is none.
    """
    added = _numbers(add)
    dropped = _numbers(drop)
    if added == ALL:
        return ALL - dropped
    return (frozenset() if dropped == ALL else DEFAULT - dropped) | added


def _numbers(names: tuple[str, ...]) -> frozenset[int]:
    if any(name.upper() == "ALL" for name in names):
        return ALL
    return frozenset(number_of(name) for name in names)


def bound(keep: frozenset[int] | set[int] | tuple[int, ...]) -> None:
    """Drop everything but `keep` from the bounding set, capabilities that this file does not know yet included.

    The kernel takes one at a time and answers EINVAL behind its last. Raises OSError (EPERM without CAP_SETPCAP).
    """
    for number in range(64):
        if number not in keep and _prctl(_CAPBSET_DROP, number, 0, 0, 0) < 0:
            code = ctypes.get_errno()
            if code == errno.EINVAL:
                return
            raise OSError(code, os.strerror(code), f"capability {number}")


def drop_to(uid: int, gid: int, groups: tuple[int, ...], keep: frozenset[int] | set[int] | tuple[int, ...]) -> None:
    """Become `uid`, `gid`, `groups` with no capability but `keep`, and no way to more, for good.

    User 0 has `keep` permitted and effective, any other user has none; inheritable and ambient sets are empty for
    all (CVE-2022-27650). Raises OSError; the process is then half-way and must end. Raises ValueError, with nothing
    done, for an id that the kernel reads as "leave it as it is".
    """
    for number in (uid, gid, *groups):
        if not 0 <= number < _UNCHANGED:
            raise ValueError(f"no user or group has the id {number}")
    bound(keep)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    prctl(SET_KEEPCAPS, 0)
    os.setresuid(uid, uid, uid)
    call(_SYS_PRCTL, _CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0, about="ambient capabilities")
    wanted = frozenset(keep) if uid == 0 else frozenset()
    try:
        set_capabilities(wanted)
    except PermissionError:  # this process itself lacks one of them
        set_capabilities(wanted & permitted())


def permitted() -> frozenset[int]:
    """The calling process's permitted set."""
    call(_CAPGET, _header, _sets, about="capget")
    _, low, _, _, high, _ = struct.unpack("<6I", _sets)
    mask = low | high << 32
    return frozenset(number for number in range(64) if mask >> number & 1)


def set_capabilities(numbers: frozenset[int]) -> None:
    """Make `numbers` the permitted and effective set and empty the inheritable one. Raises OSError."""
    mask = sum(1 << number for number in numbers)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    struct.pack_into("<6I", _sets, 0, low, low, 0, high, high, 0)
    call(_CAPSET, _header, _sets, about="capset")


def no_new_privileges() -> None:
    """From now on execve gives no privilege: set-uid bits and file capabilities are ignored, in children too."""
    prctl(_SET_NO_NEW_PRIVS, 1)
