"""A prepared guest goes to the launcher, with its network, its volumes and all else that a start takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import msgspec

from swiftlet.guest.qemu import DISK, GO
from swiftlet.model.bundle import Bundle, Machine
from swiftlet.model.error import ConflictError, LaunchError, SwiftletError
from swiftlet.node import diagnose, hosts, record
from swiftlet.node.launch import Answer, LauncherClient
from swiftlet.node.machines import Machines, told_after, told_ahead, told_to
from swiftlet.node.network import Network, forget_packets
from swiftlet.node.prepare import Prepared, furnish
from swiftlet.node.record import Guest, Spare
from swiftlet.node.rootdisk import open_disk
from swiftlet.node.wire import close_all

READY_SECONDS = 45.0
"""A machine that has not begun its workload after so long never will; under emulation a start takes about a second."""

Fds = tuple[int, ...]


class SpareLostError(ConflictError):
    """The machine that waited has ended in this very moment."""


class Starter:
    """What all starts have in common."""

    def __init__(self, launcher: LauncherClient, network: Network, machines: Machines) -> None:
        self._launcher = launcher
        self._network = network
        self._machines = machines
        chosen = os.environ.get("SWIFTLET_READY_SECONDS", "")
        self._ready_seconds = float(chosen) if chosen.isdigit() else READY_SECONDS

    async def start(self, guest: Guest, prepared: Prepared, attach: bool, stdin: int) -> tuple[int, Fds]:
        """Start a guest; its process, and the descriptors that the launcher has sent, which are the caller's.

        What was attached to it stays so when that fails. Raises every kind of SwiftletError.
        """
        if guest.spare is not None:
            prepared.close()
            return await self._go(guest, prepared.bundle, guest.spare)
        machine = prepared.bundle.machine
        ours: list[int] = []
        try:
            roles = await self._roles(guest, prepared, ours)
            roles += [("stdin", stdin)] if stdin >= 0 else []
            files = self._furnish(guest, prepared.bundle)
            request: dict[str, Any] = {
                "bundle": msgspec.to_builtins(prepared.bundle),
                "roles": [role for role, _ in roles],
                "attach": attach,
            }
            fds = tuple(fd for _, fd in roles)
            if machine is None:
                reply, received = await self._launcher.request("start", request, fds)
            else:
                request |= told_to(prepared.bundle, machine, guest.attached, files)
                reply, received = await self._start_machine(guest, machine, "start", request, fds)
        finally:
            prepared.close()
            close_all(tuple(ours))
        return int(reply["pid"]), received

    async def make_spare(self, guest: Guest, prepared: Prepared, *, held: bool) -> Spare:
        """Start a clone's machine that waits for `start`, as a guest of its own that nobody sees.

        held: its snapshot's workload was held, so it can know who it is before it goes on.
        What was attached to it stays so when that fails. Raises every kind of SwiftletError.
        """
        machine = prepared.bundle.machine
        assert machine is not None
        ours: list[int] = []
        tap = -1
        try:
            roles = await self._roles(guest, prepared, ours)
            tap = next((os.dup(fd) for role, fd in roles if role == "tap"), -1)
            files = self._furnish(guest, prepared.bundle)
            request = {
                "bundle": msgspec.to_builtins(prepared.bundle),
                "roles": [role for role, _ in roles],
                "attach": False,
                "waits": True,
                **told_ahead(prepared.bundle, machine, guest.attached, files, held=held),
            }
            _, received = await self._launcher.request("start", request, tuple(fd for _, fd in roles))
            close_all(received)
        except BaseException:
            close_all((tap,) if tap >= 0 else ())
            raise
        finally:
            prepared.close()
            close_all(tuple(ours))
        return Spare(guest, prepared.bundle, tap, files if held else None)

    async def _go(self, guest: Guest, bundle: Bundle, spare: Spare) -> tuple[int, Fds]:
        """Let a machine go on that was started ahead, as this guest."""
        machine = bundle.machine
        assert machine is not None
        guest.attached, guest.spare = spare.guest.attached, None
        try:
            if guest.attached is not None:
                self._network.publish(guest.id, guest.name, guest.attached, guest.workload.ports)
                record.write_network(guest.folder, guest.attached)
                forget_packets(spare.tap)
        finally:
            spare.close()
        files = self._furnish(guest, bundle)
        if spare.files is None:
            told = told_to(bundle, machine, guest.attached, files)
        else:
            told = told_after(bundle, files, spare.bundle, spare.files)
        request = {"id": guest.id, **told, "script": GO}
        try:
            reply, received = await self._start_machine(guest, machine, "go", request, ())
        except ConflictError as error:
            raise SpareLostError(str(error)) from None
        return int(reply["pid"]), received

    async def _roles(self, guest: Guest, prepared: Prepared, ours: list[int]) -> list[tuple[str, int]]:
        """What the launcher is sent; `ours` takes what is to be closed afterwards, also when this fails."""
        machine = prepared.bundle.machine
        roles = [("volume", volume.mount) for volume in prepared.opened]
        if guest.workload.network == "bridge":
            ports = guest.workload.ports
            guest.attached, end = await self._network.attach(guest.id, guest.name, ports, machine=machine is not None)
            ours.append(end)
            roles.append(("tap" if machine else "netns", end))
            record.write_network(guest.folder, guest.attached)
        if machine is not None and machine.disk:
            ours.append(await asyncio.to_thread(open_disk, guest.folder, machine.disk))
            roles.append((DISK, ours[-1]))
        for role, fd in await self._machines.descriptors(machine) if machine else ():
            ours.append(fd)
            roles.append((role, fd))
        return roles

    def _furnish(self, guest: Guest, bundle: Bundle) -> dict[str, str]:
        """Write the files that depend on where the guest runs, or have them told to its machine; returns them."""
        address = guest.attached.address if guest.attached else ""
        shares_host = guest.workload.network == "host"
        files = hosts.files(bundle.hostname, address, hosts.read_resolver(), shares_host=shares_host)
        furnish(guest.folder, {} if bundle.machine else files, bundle.userns)
        return files

    async def _start_machine(
        self, guest: Guest, machine: Machine, method: str, request: dict[str, Any], fds: Fds
    ) -> Answer:
        """Start a machine and wait until its workload has begun; say what is known of one that does not come to it."""
        kernel = self._machines.files_of(machine.kernel)
        asked = asyncio.ensure_future(self._launcher.request(method, request, fds))
        try:
            await self._network.published(guest.id)
        except BaseException:
            await self._give_up(guest, asked)
            raise
        done, _ = await asyncio.wait([asked], timeout=self._ready_seconds)
        if done:
            try:
                return await asked
            except LaunchError as error:
                raise diagnose.ended_early(error, guest, machine, kernel) from None
        given_up = await diagnose.not_ready(guest, machine, kernel, self._ready_seconds)
        await self._give_up(guest, asked)
        raise given_up

    async def _give_up(self, guest: Guest, asked: asyncio.Future[Answer]) -> None:
        """End a machine that is being started."""
        if not asked.done():
            with contextlib.suppress(SwiftletError):  # it has just ended, or its launcher has
                await self._launcher.request("kill", {"id": guest.id})
            await asyncio.wait([asked])
        if not asked.exception():
            close_all(asked.result()[1])
