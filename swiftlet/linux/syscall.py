"""System calls that Python 3.11 has no function for: one thin wrapper each.

A negative return becomes an OSError that carries what it was about. Numbers are x86-64's. Structures are
those of the kernel's uapi headers. Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Call = tuple[str, tuple["int | bytes | None", ...]]
"""A system call that is prepared: what an error would be about, and its number and arguments."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_PRCTL, _PIVOT_ROOT, _MOUNT, _UMOUNT2, _SETHOSTNAME, _CAPSET = 157, 155, 165, 166, 170, 126
_MKDIR, _SYMLINK, _CHOWN, _UMASK, _MKNOD = 83, 88, 92, 95, 133
_UNSHARE, _TEE, _SETNS, _SECCOMP, _BPF = 272, 276, 308, 317, 321
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 435, 436, 437, 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NAME = 1, 4, 36, 15
PR_SET_NO_NEW_PRIVS = 38

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10


def call(number: int, *arguments: int | bytes | ctypes.Array[Any] | ctypes.c_void_p | None, about: str = "") -> int:
    """Make system call `number`; raise OSError about `about` when it returns -1.

    Integers are passed as they are, which ctypes takes as 32 bits (extended by sign): a third of the time that
    wrapping each takes. An address is passed as the ctypes object that lies there, or as c_void_p.
    """
    result = int(_syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), about or None)
    return result


def prctl(option: int, argument: int | bytes = 0) -> int:
    """prctl(2) with one argument."""
    return call(_PRCTL, option, argument, 0, 0, 0, about=f"prctl {option}")


def perform(calls: tuple[Call, ...]) -> None:
    """Make calls that were prepared, in their order. Raises OSError about the first that fails."""
    for about, arguments in calls:
        if _syscall(*arguments) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), about)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    perform((mount_call(source, target, kind, flags, options),))


def mount_call(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> Call:
    """mount(2), prepared."""
    last = options.encode() if options else None
    return target, (_MOUNT, source.encode(), target.encode(), kind.encode() if kind else None, flags, last)


def mkdir_call(path: str) -> Call:
    """mkdir(2) with mode 777 and the umask, prepared."""
    return path, (_MKDIR, path.encode(), 0o777)


def mknod_call(path: str, mode: int, major: int, minor: int) -> Call:
    """mknod(2) of a device, prepared."""
    return path, (_MKNOD, path.encode(), mode, os.makedev(major, minor))


def symlink_call(target: str, path: str) -> Call:
    """symlink(2), prepared."""
    return path, (_SYMLINK, target.encode(), path.encode())


def chown_call(path: str, uid: int, gid: int) -> Call:
    """chown(2), which follows links, prepared."""
    return path, (_CHOWN, path.encode(), uid, gid)


def umask_call(mask: int) -> Call:
    """umask(2), prepared."""
    return "umask", (_UMASK, mask)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    call(_UMOUNT2, target.encode(), flags, about=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    call(_PIVOT_ROOT, new.encode(), old.encode(), about=new)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    call(_SETHOSTNAME, raw, len(raw), about=name)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call(_UNSHARE, flags, about=f"unshare {flags:#x}")


def setns(fd: int, flags: int) -> None:
    """setns(2); `fd` is a namespace or, with several flags, a pidfd (Linux 5.8)."""
    call(_SETNS, fd, flags, about=f"setns {flags:#x}")


def tee(source: int, target: int, count: int) -> int:
    """tee(2): bytes duplicated from one pipe to another without being consumed; never blocks."""
    splice_nonblock = 2
    return call(_TEE, source, target, count, splice_nonblock, about="tee")


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2); flags 4 only marks them close-on-exec."""
    call(_CLOSE_RANGE, first, last, flags, about="descriptors")


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): open `path` below `directory` under the RESOLVE_ rules; always close-on-exec."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, mode, resolve)
    return call(_OPENAT2, directory, path.encode(), how, ctypes.sizeof(how), about=path)


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2); flag 1 (OPEN_TREE_CLONE) makes a detached copy of the mount."""
    return call(_OPEN_TREE, directory, path.encode(), flags | os.O_CLOEXEC, about=path)


def move_mount(source: int, target_directory: int, target: str) -> None:
    """Attach the detached mount `source` at `target` below `target_directory` ("" is the directory itself)."""
    from_empty, to_empty = 0x04, 0x40
    flags = from_empty | (0 if target else to_empty)
    call(_MOVE_MOUNT, source, b"", target_directory, target.encode(), flags, about=target)


def mount_setattr(
    directory: int, path: str, *, flags: int = 0, set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0
) -> None:
    """mount_setattr(2): change the MOUNT_ATTR_ flags of a mount, or of a tree of them with AT_RECURSIVE."""
    attributes = (ctypes.c_uint64 * 4)(set_, clear, propagation, userns)
    if not path:
        flags |= AT_EMPTY_PATH
    size = ctypes.sizeof(attributes)
    call(_MOUNT_SETATTR, directory, path.encode(), flags, attributes, size, about=path or "mount")


def fsopen(kind: str) -> int:
    """fsopen(2): a context in which a file system of `kind` is set up."""
    return call(_FSOPEN, kind.encode(), 1, about=kind)


def fsconfig(fd: int, key: str, value: str) -> None:
    """fsconfig(2): set a string option, or (where `value` is empty) a flag."""
    command = 1 if value else 0
    call(_FSCONFIG, fd, command, key.encode(), value.encode() or None, 0, about=f"{key}={value}")


def fsmount(fd: int, attributes: int = 0, *, about: str = "") -> int:
    """Create the file system of the context `fd` and return it as a detached mount."""
    call(_FSCONFIG, fd, 6, None, None, 0, about=about)
    return call(_FSMOUNT, fd, 1, attributes, about=about)


def clone3(flags: int, *, cgroup: int = -1, sibling: bool = False) -> tuple[int, int]:
    """clone3(2) like fork: (0, -1) in the child; (pid, pidfd) in the parent. `cgroup`: a v2 folder to be born in.

    sibling: the new process is a child of the caller's own parent, which waits for it.

    The caller must have one thread. Python's own fork hooks do not run: the child must end in exec or os._exit.
    """
    clone_pidfd, clone_parent, clone_into_cgroup, sigchld = 0x1000, 0x8000, 0x200000000, 17
    pidfd = ctypes.c_int(-1)
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0] = flags | clone_pidfd
    arguments[1] = ctypes.addressof(pidfd)
    if sibling:
        arguments[0] |= clone_parent
    else:
        arguments[4] = sigchld
    if cgroup >= 0:
        arguments[0] |= clone_into_cgroup
        arguments[10] = cgroup
    pid = call(_CLONE3, arguments, ctypes.sizeof(arguments), about="clone3")
    return pid, pidfd.value if pid else -1


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that an open descriptor is on (fstatfs)."""
    buffer = (ctypes.c_long * 32)()
    call(138, fd, buffer, about="fstatfs")
    return buffer[0]
