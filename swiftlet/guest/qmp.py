"""QEMU's monitor, over qemu.qmp: the one wrapper. A session is opened for a task and closed after it.

QEMU serves one client at a time, and so a session that stays open would keep the next daemon out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

from swiftlet.model.error import ConflictError, LaunchError

CONNECT_SECONDS = 5.0
"""A monitor that does not greet in this time belongs to a machine that hangs, or to another client."""

POLL_SECONDS = 0.002


class Monitor:
    """An open session."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command (underscores in names of arguments stand for hyphens).

        Raises LaunchError with QEMU's own words.
        """
        from qemu.qmp import QMPError

        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return await self._client.execute(command, given or None)
        except QMPError as error:
            raise LaunchError(f"QEMU refuses {command}: {error}") from None

    async def send_descriptor(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor by which `fd:NAME` then means it."""
        self._client.send_fd_scm(fd)
        await self.execute("getfd", fdname=name)

    async def execute_all(self, commands: Iterable[tuple[str, dict[str, object]]]) -> None:
        """Execute commands one after the other. Raises LaunchError at the first that is refused."""
        for command, arguments in commands:
            await self.execute(command, **arguments)

    async def migrate_to(self, name: str, seconds: float) -> None:
        """Write the machine's state, without its memory, to a descriptor that it was given. Raises LaunchError."""
        capability = {"capability": "x-ignore-shared", "state": True}
        await self.execute("migrate-set-capabilities", capabilities=[capability])
        await self.execute("migrate", uri=f"fd:{name}")
        async with asyncio.timeout(seconds):
            while (told := await self.execute("query-migrate")).get("status") != "completed":
                if told.get("status") == "failed":
                    raise LaunchError(f"QEMU cannot save the machine: {told.get('error-desc', 'it does not say why')}")
                await asyncio.sleep(POLL_SECONDS)

    async def go_on(self, seconds: float) -> None:
        """Let a machine run that stands still, also one that is still being saved. Raises LaunchError, TimeoutError."""
        async with asyncio.timeout(seconds):
            while not (await self.execute("query-status"))["running"]:
                with contextlib.suppress(LaunchError):  # it is told again until what stopped it is done with it
                    await self.execute("cont")
                await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def session(folder: str) -> AsyncIterator[Monitor]:
    """A session with the machine whose guest's folder this is. Raises ConflictError when it does not answer."""
    from qemu.qmp import QMPClient, QMPError

    client = QMPClient()
    client.logger.disabled = True
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.setblocking(False)  # where a hung machine has taken none of the last connections, another one would wait
        sock.connect(f"/proc/self/fd/{directory}/monitor.sock")  # a socket's address holds 107 bytes only
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(sock)
    except (OSError, QMPError, TimeoutError) as error:
        sock.close()
        raise ConflictError(f"the machine's monitor does not answer: {error or 'no greeting'}") from None
    finally:
        os.close(directory)
    try:
        yield Monitor(client)
    finally:
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()
