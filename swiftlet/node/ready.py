"""Waits until a guest's service answers: somebody listens on its ports, at its own address; and until it rests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable

from swiftlet.model.error import ConflictError, SwiftletError
from swiftlet.node import hosts
from swiftlet.node.launch import LauncherClient
from swiftlet.node.machines import MACHINE_ID
from swiftlet.node.record import Guest

WAIT_SECONDS = 60.0

_CONNECT_SECONDS = 0.5
_AGAIN_SECONDS = 0.02

SETTLED_SECONDS = 3.0
"""From a machine's start on, for what its kernel does a while after it: it calibrates its clock after one second, which
stops every processor, and gives freed memory back after two (tsc_refine_calibration_work, page_reporting_process)."""

REST_SECONDS = 1.0
_REST_LOOKS, _LOOK_SECONDS = 5, 0.02
_REST_SHARE = 0.05
"""Of a processor's time that a machine at rest may take: its QEMU's own threads look around now and then."""


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


async def settle(guest: Guest, launcher: LauncherClient) -> bool:
    """Bring a machine that is about to be saved to rest; what its clones will be told anew is open in it.

    Whether its workload is held: so it does not run before a clone of it is told to go on. Not where the guest's kernel
    has no control groups, or its workload makes groups of its own. Whoever asks for this has to `let_go`.
    """
    await rest(guest)
    await _keep(guest, launcher, [MACHINE_ID, *hosts.files("", "", "")])
    await rest(guest)  # it has read that
    with contextlib.suppress(SwiftletError):  # as below
        answer, _ = await launcher.request("held", {"id": guest.id})
        return bool(answer["held"])
    return False


async def let_go(guest: Guest, launcher: LauncherClient) -> None:
    """A machine that was saved goes on, its workload too, and may make other files of those that were open."""
    await _keep(guest, launcher, [])


async def _keep(guest: Guest, launcher: LauncherClient, files: list[str]) -> None:
    with contextlib.suppress(SwiftletError):  # it has ended, as it will be found; or the launcher is an older one
        await launcher.request("keep", {"id": guest.id, "files": files})


async def rest(guest: Guest, seconds: float = REST_SECONDS) -> None:
    """Until a machine has settled and has had nothing to do for a tenth of a second, or for so long at most.

    Whoever asked for its port has left it work behind: the connection's end, a process that was made for it. What it is
    in the middle of when it is saved, and what it has still before it, each of its clones has to do.
    """
    lived = (time.time_ns() - guest.started_ns) / 1e9
    await asyncio.sleep(SETTLED_SECONDS - max(lived, 0))  # a host's clock may have been set back
    deadline = time.monotonic() + seconds
    quiet, before = 0, _spent_ns(guest.pid)
    while quiet < _REST_LOOKS and time.monotonic() < deadline:
        begin = time.monotonic_ns()
        await asyncio.sleep(_LOOK_SECONDS)
        now = _spent_ns(guest.pid)
        quiet = quiet + 1 if 0 <= now - before < _REST_SHARE * (time.monotonic_ns() - begin) else 0
        before = now


def _spent_ns(pid: int) -> int:
    """Nanoseconds that a process's threads have run, those that there are now."""
    spent = 0
    threads: list[str] = []
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            spent += int(file.read().split()[0])
    return spent
