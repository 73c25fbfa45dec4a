"""What a guest sees of the kernel (/proc, /sys, /dev) and what is hidden from it: as system calls, a pure value.

The launcher makes it once and every child performs it: in a new process each page that Python's own bookkeeping
touches is copied, so a loop over finished calls takes half the time of the functions that would make them.
Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import os
import stat

from swiftlet.linux import syscall
from swiftlet.linux.mount import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT
from swiftlet.linux.syscall import Call

NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
MASKED = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats")),
    *(f"/proc/{name}" for name in ("sched_debug", "scsi", "timer_list", "timer_stats")),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
"""Docker's masked paths (its thermal_throttle too, which `masked_on_host` adds for each processor)."""

READ_ONLY = tuple(f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"))

_STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC
_PTS_FLAGS = MS_NOSUID | MS_NOEXEC
_TTY_GROUP = 5


def masked_on_host() -> tuple[tuple[str, bool], ...]:
    """Which of the masked paths this kernel has, and whether each is a folder. Asked once by the launcher."""
    base = "/sys/devices/system/cpu"
    processors = [name for name in os.listdir(base) if name.startswith("cpu") and name[3:].isdigit()]
    paths = [*MASKED, *(f"{base}/{name}/thermal_throttle" for name in processors)]
    return tuple((path, os.path.isdir(path)) for path in paths if os.path.exists(path))


def read_only_on_host() -> tuple[str, ...]:
    """Which of the read-only paths this kernel has."""
    return tuple(path for path in READ_ONLY if os.path.exists(path))


def kernel(hierarchies: tuple[str, ...] | None, shm_bytes: int) -> tuple[Call, ...]:
    """Mount /proc, /sys, the guest's own control groups and /dev.

    hierarchies: of cgroup v1, none for v2 alone; None hides them all.
    """
    calls = [
        syscall.mount_call("proc", "/proc", "proc", _STRICT),
        syscall.mount_call("sysfs", "/sys", "sysfs", _STRICT | MS_RDONLY),
    ]
    if hierarchies is not None:
        calls += _control_groups(hierarchies)
    return (*calls, *_devices(shm_bytes))


def _control_groups(hierarchies: tuple[str, ...]) -> list[Call]:
    """The guest's own groups, read-only: runtimes read their memory limit there."""
    top = "/sys/fs/cgroup"
    if not hierarchies:
        return [syscall.mount_call("cgroup", top, "cgroup2", _STRICT | MS_RDONLY)]
    calls = [syscall.mount_call("tmpfs", top, "tmpfs", _STRICT, "size=4k,mode=755")]
    for name in hierarchies:
        calls.append(syscall.mkdir_call(f"{top}/{name}"))
        calls.append(syscall.mount_call("cgroup", f"{top}/{name}", "cgroup", _STRICT | MS_RDONLY, name))
    return [*calls, syscall.mount_call("none", top, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _STRICT)]


def owned_by(owner: int) -> tuple[Call, ...]:
    """Give what a container's root expects to own to user `owner` of the host, root in a user namespace.

    The terminals' group is counted from there too, or it would be nobody's in the guest.
    """
    paths = ("/dev", "/dev/shm", "/dev/pts/ptmx", *(f"/dev/{name}" for name, _, _ in NODES))
    terminals = syscall.mount_call("devpts", "/dev/pts", "devpts", MS_REMOUNT | _PTS_FLAGS, _pts_options(owner))
    return (*(syscall.chown_call(path, owner, owner) for path in paths), terminals)


def _pts_options(owner: int) -> str:
    return f"newinstance,ptmxmode=0666,mode=0620,gid={owner + _TTY_GROUP}"


def _devices(shm_bytes: int) -> list[Call]:
    """/dev: six nodes, the usual links, pseudo-terminals, shared memory and message queues of the guest's own."""
    return [
        syscall.mount_call("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=65536k,mode=755"),
        syscall.umask_call(0),
        *(syscall.mknod_call(f"/dev/{name}", stat.S_IFCHR | 0o666, major, minor) for name, major, minor in NODES),
        syscall.umask_call(0o022),
        *(syscall.symlink_call(target, f"/dev/{name}") for name, target in LINKS),
        *(syscall.mkdir_call(f"/dev/{name}") for name in ("pts", "shm", "mqueue")),
        syscall.mount_call("devpts", "/dev/pts", "devpts", _PTS_FLAGS, _pts_options(0)),
        syscall.mount_call("shm", "/dev/shm", "tmpfs", _STRICT, f"size={shm_bytes},mode=1777"),
        syscall.mount_call("mqueue", "/dev/mqueue", "mqueue", _STRICT),
    ]


def covers(masked: tuple[tuple[str, bool], ...], read_only: tuple[str, ...]) -> tuple[Call, ...]:
    """Mask what tells about the host, and make read-only what changes it."""
    calls: list[Call] = []
    for path, is_folder in masked:
        if is_folder:
            calls.append(syscall.mount_call("tmpfs", path, "tmpfs", _STRICT | MS_RDONLY, "size=0k,nr_inodes=2"))
        else:
            calls.append(syscall.mount_call("/dev/null", path, "", MS_BIND))
    for path in read_only:
        calls.append(syscall.mount_call(path, path, "", MS_BIND | MS_REC))
        calls.append(syscall.mount_call("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _STRICT))
    return tuple(calls)
