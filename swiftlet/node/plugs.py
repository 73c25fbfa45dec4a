"""Ports of virtual machines that come and go with the further commands that run in them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import NamedTuple

from swiftlet.guest import qemu, qmp
from swiftlet.model.error import ConflictError, LaunchError, SwiftletError
from swiftlet.node.record import Guest

log = logging.getLogger("swiftlet.plugs")


_TRIES, _PAUSE_SECONDS = 20, 0.01


class Plug(NamedTuple):
    """A port of a machine. number: in the guest. name: to QEMU. fd: the other end, to be closed by the caller."""

    number: int
    name: str
    fd: int


async def plug(guest: Guest, name: str) -> Plug:
    """Add a port to a machine. Raises ConflictError when it has as many as it can, or does not answer; LaunchError."""
    async with guest.still, guest.monitor:  # behind those that are being taken away
        for number in range(qemu.EXEC_PORT, qemu.EXEC_PORT + qemu.EXECS):
            if number not in guest.ports and (made := await _try(guest, number, name)) is not None:
                guest.ports.add(number)
                return made
    text = f"{qemu.EXECS} commands run in guest {guest.name} already, as many as a machine takes at a time"
    raise ConflictError(text, "wait until one has ended")


async def _try(guest: Guest, number: int, name: str) -> Plug | None:
    """The port with a number; None when an earlier daemon's command has it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with ours, theirs:
        try:
            async with qmp.session(guest.folder) as monitor:
                await monitor.send_descriptor(name, theirs.fileno())
                await _add(monitor, number, name)
        except LaunchError as error:
            log.info("guest %s: port %d: %s", guest.name, number, error)
            return None
        return Plug(number, name, ours.detach())


async def _add(monitor: qmp.Monitor, number: int, name: str) -> None:
    backend, device = qemu.plug(number, name)
    await monitor.execute_all([backend])
    try:
        await monitor.execute_all([device])
    except LaunchError:
        await monitor.execute_all([qemu.unplug(name)[1]])
        raise


async def _remove(monitor: qmp.Monitor, name: str) -> None:
    """Remove a port, and what is behind it: QEMU lets go of that a moment after it has said that the port is gone."""
    device, backend = qemu.unplug(name)
    await monitor.execute_all([device])
    for left in reversed(range(_TRIES)):
        try:
            await monitor.execute_all([backend])
        except LaunchError:
            if not left:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def unplug(guest: Guest, port: Plug) -> None:
    """Take a port away when its command has ended. A machine that has ended too needs that no more."""
    guest.unplugging.add(port.number)
    try:
        if guest.is_running:
            async with guest.monitor, qmp.session(guest.folder) as monitor:
                await _remove(monitor, port.name)
    except (SwiftletError, OSError, asyncio.CancelledError) as error:
        log.info("guest %s: port %d stays: %s", guest.name, port.number, error)
    guest.ports.discard(port.number)
    guest.unplugging.discard(port.number)


def close(port: Plug) -> None:
    """Close this end of a port."""
    os.close(port.fd)
