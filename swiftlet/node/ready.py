"""Waits until a guest's service answers: somebody listens on its ports, at its own address."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from swiftlet.model.error import ConflictError
from swiftlet.node.record import Guest

WAIT_SECONDS = 60.0

_CONNECT_SECONDS = 0.5
_AGAIN_SECONDS = 0.02


def published(guest: Guest) -> list[int]:
    """The ports at which its service is expected."""
    return [port.guest for port in guest.workload.ports if port.protocol == "tcp"]


async def wait(guest: Guest, ports: Iterable[int], seconds: float = WAIT_SECONDS) -> None:
    """Until every TCP port is listened on. Raises ConflictError: it ended, it has no address, or it took too long."""
    deadline = time.monotonic() + seconds
    for port in ports:
        while not await _listens(guest, port):
            if not guest.is_running:
                raise ConflictError(f"guest {guest.name} is {guest.state}, not Running")
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"guest {guest.name} does not listen on port {port} after {seconds:.0f} s",
                    "see `swiftlet logs`, or do not wait for it: --now",
                )
            await asyncio.sleep(_AGAIN_SECONDS)


async def _listens(guest: Guest, port: int) -> bool:
    if guest.attached is None:
        raise ConflictError(f"guest {guest.name} has no address of its own to wait at", "do not wait for it: --now")
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(guest.attached.address, port)
        writer.close()
        return True
    return False
