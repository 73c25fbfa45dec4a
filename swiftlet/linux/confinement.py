"""Shut a process in: it reads some of the host's files, computes, and can do nothing else.

For code that somebody wrote and that has to run in this Python, as a program's top level does when it is built. It has
no network, sees no other process, owns nothing, and writes to a small file system in memory that goes with it. The one
capability that it keeps is to read and search, so that it reads what the caller could: of its own user namespace,
where `open_by_handle_at` does not take it. The processes of one such guest end with the first.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Iterable
from typing import NamedTuple

from swiftlet.linux import capability, mount, namespace, seccomp, syscall

NOBODY = 65534
"""Whom everybody takes for nobody (`kernel.overflowuid`)."""

SPACES = namespace.NEWNS | namespace.NEWPID | namespace.NEWNET | namespace.NEWIPC | namespace.NEWUTS

_ANYWHERE = "/proc"
"""A folder that every system has, to build the new root on."""

_FLAGS = mount.ATTR_RDONLY | mount.ATTR_NOSUID | mount.ATTR_NODEV
_SCRATCH = "size=64m,mode=1777"
_KEPT = frozenset((capability.number_of("DAC_READ_SEARCH"),))


class Limits(NamedTuple):
    """memory: bytes of address space. file: bytes of a file. processes: and threads. descriptors: of open files."""

    memory: int
    file: int
    processes: int
    descriptors: int


def separate() -> int:
    """Leave this process's namespaces: its next child is the first of its own. Returns what `shut_in` takes.

    Raises OSError.
    """
    owner = namespace.same_ids_namespace()
    syscall.unshare(SPACES)
    return owner


def shut_in(owner: int, parent: int, visible: Iterable[str], limits: Limits, filter_: bytes) -> None:
    """In that child: see `visible` (absolute paths) read-only where they were, and go without every right, for good.

    owner: of `separate`. parent: the reading end of a pipe that the parent alone has open for writing, and with whose
    end this process ends. filter_: a seccomp program. Raises OSError; the process is then half-way and must end.
    """
    syscall.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
    _enter(list(outermost(visible)))
    syscall.setns(owner, namespace.NEWUSER)
    os.close(owner)
    for which, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_NOFILE, limits.descriptors),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))
    _give_up()
    syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)  # now: a change of user takes it back
    if select.select([parent], [], [], 0)[0]:
        os._exit(1)  # it had gone before
    seccomp.load(filter_)


def outermost(paths: Iterable[str]) -> Iterable[str]:
    """The paths that lie in no other one."""
    last = ""
    for path in sorted({os.path.normpath(each) for each in paths}, key=lambda each: each.split("/")):
        if not last or not (path == last or path.startswith(f"{last}/")):
            last = path
            yield path


def _enter(paths: list[str]) -> None:
    """Make a root in which there is nothing but these paths, and enter it."""
    copies = [(path, *_copied(path)) for path in paths]
    links = [(path, os.readlink(path)) for path in ("/bin", "/lib", "/lib64") if os.path.islink(path)]
    syscall.mount("tmpfs", _ANYWHERE, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "size=1m,mode=755")
    root = os.open(_ANYWHERE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    os.mkdir("tmp")
    syscall.mount("tmpfs", "tmp", "tmpfs", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC, _SCRATCH)
    for path, copy, is_folder in copies:
        place = mount.make_beneath(root, path, directory=is_folder)
        syscall.move_mount(copy, place, "")
        os.close(place)
        os.close(copy)
    for path, target in links:
        if not os.path.lexists(f".{path}"):
            os.symlink(target, f".{path}")
    mount.set_mount_attributes(root, set_=mount.ATTR_RDONLY, recursive=False)
    os.close(root)
    syscall.pivot_root(".", ".")
    syscall.umount(".", mount.MNT_DETACH)
    os.chdir("/")


def _copied(path: str) -> tuple[int, bool]:
    """A detached copy of what is mounted at a path, that can only be read; and whether it is a folder."""
    fd = os.open(os.path.realpath(path), os.O_PATH | os.O_CLOEXEC)
    try:
        copy = mount.clone_tree(fd)
    finally:
        os.close(fd)
    mount.set_mount_attributes(copy, set_=_FLAGS)
    return copy, os.path.isdir(path)


def _give_up() -> None:
    """Be nobody, with `_KEPT` and no way to more."""
    capability.bound(_KEPT)
    os.setgroups(())
    os.setresgid(NOBODY, NOBODY, NOBODY)
    syscall.prctl(capability.SET_KEEPCAPS, 1)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    syscall.prctl(capability.SET_KEEPCAPS, 0)
    capability.set_capabilities(_KEPT)
    capability.no_new_privileges()
