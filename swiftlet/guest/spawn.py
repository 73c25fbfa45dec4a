"""Making a process: what every child is told, its control groups, and the clone itself. The launcher's hands.

Imports the standard library and `swiftlet.linux` only.
"""

from __future__ import annotations

import mmap
import os
import time

from swiftlet.guest import stage, view
from swiftlet.guest.process import Process
from swiftlet.linux import cgroup, cgroup_device, seccomp, syscall
from swiftlet.linux.channel import Channel
from swiftlet.linux.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SLOTS = mmap.PAGESIZE // stage.SLOT.size
"""Processes that may be between clone and exec at one time."""

_VIEWS = 64
"""Settings whose system calls are kept."""


class RequestError(stage.StageError):
    """A request cannot be met, whoever's fault that is; nothing was started for it."""


def described(error: Exception) -> str:
    """An error in words, with the key that a request lacked."""
    return f"request lacks {error}" if isinstance(error, KeyError) else str(error)


class Spawner:
    """What all children have in common, and the page in which each tells that it executes its command."""

    def __init__(self, mount_point: str) -> None:
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._mount_point = mount_point
        self._filters: dict[str, seccomp.Filter] = {}
        self._views: dict[tuple[tuple[str, ...], int], tuple[syscall.Call, ...]] = {}
        self._covers = view.covers(view.masked_on_host(), view.read_only_on_host())
        self._device_filter = -1
        self._progress = mmap.mmap(-1, mmap.PAGESIZE)
        self._slots = list(range(_SLOTS))

    def guest(self, bundle: dict[str, Any], roles: list[str], fds: tuple[int, ...]) -> stage.Guest:
        """What the child is told of a bundle (or an exec request) and of the descriptors that came with it."""
        guest = stage.Guest(bundle)
        guest.stdio = [self.null, self.null, self.null]
        guest.covers = self._covers
        guest.mount_point = self._mount_point
        guest.volumes = tuple(fd for role, fd in zip(roles, fds, strict=True) if role == "volume")
        for role, fd in zip(roles, fds, strict=True):
            if role == "netns":
                guest.netns = fd
            elif role in ("stdin", "stdout", "stderr"):
                guest.stdio[("stdin", "stdout", "stderr").index(role)] = fd
        guest.given_output = "stdout" in roles
        if bundle["seccomp"]:
            guest.filter = self._filter(bundle["seccomp"])
        return guest

    def view(self, bundle: dict[str, Any]) -> tuple[syscall.Call, ...]:
        """What a guest sees of the kernel: the same for all with the same settings, but for who owns it."""
        settings = (tuple(name for name in bundle["cgroup"]["paths"] if name), bundle["shm_bytes"])
        if settings not in self._views:
            if len(self._views) == _VIEWS:
                self._views.clear()
            self._views[settings] = view.kernel(*settings)
        owner = bundle["userns"]
        return (*self._views[settings], *view.owned_by(owner)) if owner else self._views[settings]

    def _filter(self, path: str) -> seccomp.Filter:
        """A compiled system call filter, read once: its name is its digest."""
        if path not in self._filters:
            with open(path, "rb") as file:
                self._filters[path] = seccomp.Filter(file.read())
        return self._filters[path]

    def clone(self, process: Process, guest: stage.Guest, flags: int, steps: tuple[Any, ...]) -> None:
        """Make the process; it goes on in `stage.run`. Its status channel ends when it executes the command.

        Raises OSError, RequestError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        group = -1
        try:
            guest.cgroup_tasks = tuple(cgroup.open_entrances(process.groups))
            if "" in process.groups:
                group = os.open(process.groups[""], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if process.owns_groups:
                    self._filter_devices(group)
            self._give_slot(process, guest)
            process.pid, process.pidfd = syscall.clone3(flags, cgroup=group)
            if process.pid == 0:
                ours.close()  # its own copy: else it would not notice that it has no launcher any more
                guest.status = Channel(theirs)
                stage.run(guest, steps)
        except BaseException:
            ours.close()
            if guest.progress is not None:
                self.take_slot(process)
            raise
        finally:
            theirs.close()
            for fd in (*guest.cgroup_tasks, group):
                if fd >= 0:
                    os.close(fd)
        process.started_ns = time.time_ns()
        process.status = Channel(ours)

    def _give_slot(self, process: Process, guest: stage.Guest) -> None:
        """A place in the shared page where the child says how far it came."""
        if not self._slots:
            raise RequestError(f"{_SLOTS} guests are being started at this moment", "ConflictError", "try again")
        process.slot = guest.slot = self._slots.pop()
        guest.progress = self._progress

    def take_slot(self, process: Process) -> tuple[bool, int]:
        """Whether the child came as far as executing its command, and the process that does so in its place or 0.

        Its slot is free again.
        """
        place = process.slot * stage.SLOT.size
        ready, successor = stage.SLOT.unpack_from(self._progress, place)
        stage.SLOT.pack_into(self._progress, place, 0, 0)
        self._slots.append(process.slot)
        return bool(ready), successor

    def _filter_devices(self, group: int) -> None:
        if self._device_filter < 0:
            self._device_filter = cgroup_device.load_device_filter()
        cgroup_device.attach_device_filter(group, self._device_filter)
