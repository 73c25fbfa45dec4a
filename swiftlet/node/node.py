"""One instance's node: the parts of the daemon put together, opened and closed. The wire is left to `api`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from swiftlet.guest.container import ContainerDriver
from swiftlet.guest.driver import Driver
from swiftlet.guest.machine import MachineDriver
from swiftlet.guest.unikernel import UnikernelDriver
from swiftlet.model.error import SwiftletError
from swiftlet.model.instance import Instance
from swiftlet.node.adopt import adopt
from swiftlet.node.guests import Guests, Roots
from swiftlet.node.launch import LauncherClient, start_launcher
from swiftlet.node.losses import compare, look_again, lost
from swiftlet.node.machines import Machines
from swiftlet.node.names import Names
from swiftlet.node.network import Network
from swiftlet.node.prepare import Preparer
from swiftlet.node.programs import Programs
from swiftlet.node.workers import Kernels, Workers
from swiftlet.node.workers import Roots as ResolvedRoots
from swiftlet.store.layout import Layout

log = logging.getLogger("swiftlet.node")


class Node:
    """Everything that the daemon does for guests. `open` once, `close` once.

    drivers, start, roots: other ones in tests.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        drivers: Sequence[Driver] = (ContainerDriver(), MachineDriver(), UnikernelDriver()),
        start: Callable[[Instance, str], object] = start_launcher,
        roots: Roots | None = None,
        pool: int | None = None,
    ) -> None:
        self.instance = instance
        self.layout = Layout(instance)
        self.layout.prepare()
        self.workers = Workers(instance)
        self.kernels = Kernels(self.workers)
        self.network = Network(instance, pool)
        self.launcher = LauncherClient(
            instance,
            on_exit=lambda guest, exec_, exit_: self.guests.on_exit(guest, exec_, exit_),
            on_lost=lambda: lost(self.guests),
            on_stray=lambda: look_again(self.guests),
            start=start,
        )
        self.guests = Guests(
            Names(instance.root),
            Preparer(instance, self.layout, drivers),
            self.launcher,
            self.network,
            roots or ResolvedRoots(self.workers, self.layout.cache),
            Machines(self.layout),
            Programs(self.workers, self.layout.cache),
        )

    async def open(self) -> None:
        """Take over what runs, and begin to prepare for what will."""
        self.guests.sweep_later(self.layout)
        try:
            await self.launcher.connect()
        except SwiftletError as error:
            log.error("%s", error)
        running = await adopt(self.guests, self.instance)
        self.network.begin(running)
        await compare(self.guests)  # who ended while the others were being taken over

    async def close(self) -> None:
        """Leave running guests to the launcher; take down what nobody needs."""
        running = any(guest.is_running for guest in self.guests.by_id.values())
        await self.guests.close()
        if not running and self.launcher.connected:
            try:
                await self.launcher.dismiss()
            except SwiftletError as error:
                log.warning("%s", error)
        self.launcher.close()
        await self.network.close(remove=not running)
        if not running:
            self.guests.preparer.remove_groups()
