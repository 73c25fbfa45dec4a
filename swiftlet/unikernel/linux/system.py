"""System calls of Linux that the service makes: numbers and structures of x86-64, meanings in the manual's section 2.

What fails returns the error's number below zero, as the kernel itself has it.
"""

from __future__ import annotations

from swiftlet.unikernel.metal.words import (
    Struct,
    address,
    array,
    at,
    i64,
    system_call,
    u64,
)

READ, WRITE, MMAP, MPROTECT, MUNMAP = 0, 1, 9, 10, 11
SIGNAL_ACTION, SIGNAL_MASK, ADVISE, PID, SOCKET = 13, 14, 28, 39, 41
SEND, RECEIVE, BIND, SOCKET_NAME, SOCKET_OPTION, EXIT = 46, 47, 49, 51, 54, 60
WAIT, KILL, SYSTEM_INFORMATION, PARENT, ALTERNATE_STACK = 61, 62, 99, 110, 131
PROCESS_CONTROL, ARCHITECTURE, FUTEX, CLOCK, EXIT_ALL = 157, 158, 202, 228, 231
KILL_THREAD, POLL, SIGNAL_FILE, EVENT_FILE = 234, 271, 289, 290
"""arch/x86/entry/syscalls/syscall_64.tbl. SEND is sendmsg(2), RECEIVE recvmsg(2), POLL ppoll(2), KILL_THREAD
tgkill(2), WAIT wait4(2).
"""

PAGE = 4096

_READABLE, _WRITABLE = 1, 2
_SHARED, _PRIVATE, _ANONYMOUS, _NO_RESERVE = 1, 2, 0x20, 0x4000
DROPPED, SMALL_PAGES = 4, 15
"""madvise(2): MADV_DONTNEED, MADV_NOHUGEPAGE."""

SECOND, MILLISECOND = 1_000_000_000, 1_000_000
"""In nanoseconds."""

_MONOTONIC = 1
_SET_FS = 0x1002  # arch_prctl(2): ARCH_SET_FS


class Time(Struct):
    """struct timespec."""

    seconds: u64
    nanoseconds: u64


information = array(u64, 16)
"""What `memory_of_host` has read: struct sysinfo."""


def exit_all(status: u64) -> None:
    """End the process and all its threads: exit_group(2)."""
    system_call(EXIT_ALL, status)


def write(file: u64, start: u64, length: u64) -> i64:
    """write(2)."""
    return system_call(WRITE, file, start, length)


def read(file: u64, start: u64, length: u64) -> i64:
    """read(2)."""
    return system_call(READ, file, start, length)


def own_memory(size: u64) -> i64:
    """Memory of zeros of which nothing is set aside before it is used: mmap(2)."""
    how = _PRIVATE | _ANONYMOUS | _NO_RESERVE
    return system_call(MMAP, 0, size, _READABLE | _WRITABLE, how, -1, 0)


def common_memory(size: u64) -> i64:
    """The same, for this process and those that it forks."""
    how = _SHARED | _ANONYMOUS | _NO_RESERVE
    return system_call(MMAP, 0, size, _READABLE | _WRITABLE, how, -1, 0)


def give_back(start: u64, size: u64) -> None:
    """munmap(2)."""
    system_call(MUNMAP, start, size)


def guard(start: u64) -> i64:
    """Make a page one that nobody may touch: mprotect(2)."""
    return system_call(MPROTECT, start, PAGE, 0)


def advise(start: u64, size: u64, what: u64) -> None:
    """madvise(2)."""
    system_call(ADVISE, start, size, what)


def now(room: u64) -> u64:
    """Nanoseconds of the clock that nobody sets, by way of a struct timespec of the caller's: clock_gettime(2)."""
    system_call(CLOCK, _MONOTONIC, room)
    told = at(Time, room)
    return told.seconds * SECOND + told.nanoseconds


def thread_pointer(place_: u64) -> None:
    """Let FS of this thread begin there."""
    system_call(ARCHITECTURE, _SET_FS, place_)


def memory_of_host() -> u64:
    """Bytes of memory that the host has; those that are free lie behind it in `information`: sysinfo(2)."""
    system_call(SYSTEM_INFORMATION, address(information))
    return information[4]
