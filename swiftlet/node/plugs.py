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


class Plug(NamedTuple):
    """A port of a machine. number: in the guest. name: to QEMU. fd: the other end, to be closed by the caller."""

    number: int
    name: str
    fd: int


async def plug(guest: Guest, name: str) -> Plug:
    """Add a port to a machine. Raises ConflictError when it has as many as it can, or does not answer; LaunchError."""
    numbers = [qemu.EXEC_PORT + each for each in range(qemu.EXECS) if qemu.EXEC_PORT + each not in guest.ports]
    for number in numbers:
        guest.ports.add(number)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            async with guest.monitor, qmp.session(guest.folder) as monitor:
                await monitor.send_descriptor(name, theirs.fileno())
                await _add(monitor, number, name)
            return Plug(number, name, ours.detach())
        except LaunchError as error:  # an earlier daemon's, whose command may still run
            log.info("guest %s: port %d: %s", guest.name, number, error)
            guest.ports.discard(number)
        except BaseException:
            guest.ports.discard(number)
            raise
        finally:
            ours.close()
            theirs.close()
    text = f"{qemu.EXECS} commands run in guest {guest.name} already, as many as a machine takes at a time"
    raise ConflictError(text, "wait until one has ended")


async def _add(monitor: qmp.Monitor, number: int, name: str) -> None:
    backend, device = qemu.plug(number, name)
    await monitor.execute_all([backend])
    try:
        await monitor.execute_all([device])
    except LaunchError:
        await monitor.execute_all([qemu.unplug(name)[1]])
        raise


async def unplug(guest: Guest, port: Plug) -> None:
    """Take a port away when its command has ended. A machine that has ended too needs that no more."""
    try:
        if guest.is_running:
            async with guest.monitor, qmp.session(guest.folder) as monitor:
                await monitor.execute_all(qemu.unplug(port.name))
    except (SwiftletError, OSError, asyncio.CancelledError) as error:
        log.info("guest %s: port %d stays: %s", guest.name, port.number, error)
    guest.ports.discard(port.number)


def close(port: Plug) -> None:
    """Close this end of a port."""
    os.close(port.fd)
